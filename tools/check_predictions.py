#!/usr/bin/env python3
"""Predicted against measured speed on this machine.

    tools/check_predictions.py --work DIR [--pare build/release/pare] [--out predictions.csv]
                               [--plot predictions.svg] [--shapes NAME ...] [--rounds N] [--rates]

Writes random models of known shapes into DIR, measures decode and prefill of each with several
schemes, numbers of threads, batches and contexts (`pare bench`), and holds the times against those
that the cost model predicts from the kernels' measured rates. With --rates these are measured anew
(`pare roof --kernels`; from the second round on only the products that the models are made of). All
is measured in rounds, one after the other, the rates at the beginning of each; of a point the median
of its measured times and the median of its predicted ones count. So both have met the machine at the
same times of day: a host that others share is slower at some. One CSV line
a point, and a plot of predicted over measured times; the summary says the median, the 90th percentile
and the largest error of the time per token, of prefill, and of the ratios between a scheme and bf16
at the same threads, batch and context. A machine should have nothing else to do meanwhile.
"""
import argparse
import csv
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

SHAPES = ["smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b"]
BASE = "bf16"
SCHEMES = {"bf16": [], "int8": ["--weights", "int8:channel"], "int4g32": ["--weights", "int4:g32"],
           "w8a8": ["--weights", "int8:channel", "--activations", "int8:token"]}
PRODUCTS = "bf16,int8:channel,int4:g32,int8:channel+int8:token"  # what these multiply
LOADS = [(1, 256), (4, 64)]  # batch, context
PROMPT = 64
FIELDS = ["shape", "scheme", "threads", "batch", "context", "decode_seconds", "decode_predicted",
          "decode_error", "prefill_seconds", "prefill_predicted", "prefill_error"]


def run(pare, *args):
    environment = {**os.environ, "PARE_LEDGER": "off"}
    result = subprocess.run([pare, *map(str, args)], capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"pare {' '.join(map(str, args))}\n{result.stderr}{result.stdout}")
    return result.stdout


def model(pare, work, shape, scheme):
    """A random model, made once. What is multiplied does not depend on the values."""
    out = work / f"{shape}-{scheme}"
    if out.exists():
        return out
    if not SCHEMES[scheme] or "--activations" not in SCHEMES[scheme]:
        weights = SCHEMES[scheme][1] if SCHEMES[scheme] else BASE
        run(pare, "random", "--like", shape, "--weights", weights, "-o", out, "--quiet")
        return out
    base = model(pare, work, shape, BASE)
    run(pare, "quantize", base, "-o", out, *SCHEMES[scheme], "--range", "absmax", "--quiet")
    return out


def measure(pare, path, threads, batch, context):
    text = run(pare, "bench", path, "--json", "--quiet", "--threads", threads, "--batch", batch,
               "--context", context, "--prompt", PROMPT, "--generate", 16, "--repeats", 1)
    r = json.loads(text)
    return {"decode_seconds": r["decode_step_seconds"]["median"],
            "prefill_seconds": r["prefill_seconds"]["median"],
            "decode_predicted": r["predicted_decode_step_seconds"],
            "prefill_predicted": r["predicted_prefill_seconds"]}


def error(predicted, measured):
    return predicted / measured - 1


def summary(name, errors):
    size = sorted(abs(e) for e in errors)
    p90 = size[min(len(size) - 1, int(0.9 * len(size)))]
    print(f"{name}: {len(size)} points, error median {100 * statistics.median(size):.1f} %, "
          f"90th percentile {100 * p90:.1f} %, largest {100 * size[-1]:.1f} %, "
          f"median with sign {100 * statistics.median(errors):+.1f} %")


def ratios(rows, kind):
    """Error of time(bf16) / time(scheme), predicted over measured."""
    key = lambda r: (r["shape"], r["threads"], r["batch"], r["context"])
    base = {key(r): r for r in rows if r["scheme"] == BASE}
    for r in rows:
        b = base.get(key(r))
        if r["scheme"] != BASE and b is not None:
            yield error(b[f"{kind}_predicted"] / r[f"{kind}_predicted"],
                        b[f"{kind}_seconds"] / r[f"{kind}_seconds"])


def plot(rows):
    """Predicted over measured times on logarithmic axes, as SVG: on the diagonal where they agree."""
    size, margin, colors = 560, 60, {"bf16": "#555", "int8": "#1f6fb4", "int4g32": "#c2571a", "w8a8": "#2a8a3e"}
    points = [(r[f"{kind}_seconds"], r[f"{kind}_predicted"], r["scheme"], kind)
              for r in rows for kind in ("decode", "prefill")]
    every = [math.log10(t) for p in points for t in p[:2]]
    low, high = min(every) - 0.1, max(every) + 0.1
    at = lambda t: (math.log10(t) - low) / (high - low) * (size - 2 * margin)
    x, y = lambda t: margin + at(t), lambda t: size - margin - at(t)
    ends = 10 ** low, 10 ** high
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" '
           f'font-size="12"><title>Predicted over measured seconds</title>'
           f'<rect width="{size}" height="{size}" fill="#fff"/>']
    for factor, style in ((1, ""), (1.1, ' stroke-dasharray="3 3"'), (1 / 1.1, ' stroke-dasharray="3 3"')):
        a, b = ends[0] * max(1, 1 / factor), ends[1] / max(1, factor)
        out.append(f'<line x1="{x(a):.1f}" y1="{y(a * factor):.1f}" x2="{x(b):.1f}" '
                   f'y2="{y(b * factor):.1f}" stroke="#999"{style}/>')
    for power in range(math.ceil(low), math.floor(high) + 1):
        t = 10.0 ** power
        label = f"{1e3 * t:g} ms"
        out.append(f'<text x="{x(t):.1f}" y="{size - margin + 20}" text-anchor="middle">{label}</text>'
                   f'<text x="{margin - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{label}</text>')
    for measured, predicted, scheme, kind in points:
        place = f'cx="{x(measured):.1f}" cy="{y(predicted):.1f}" r="4"'
        fill = f'fill="{colors[scheme]}"' if kind == "decode" else 'fill="none"'
        out.append(f'<circle {place} {fill} stroke="{colors[scheme]}"/>')
    for i, (scheme, color) in enumerate(colors.items()):
        out.append(f'<text x="{margin + 10}" y="{margin + 16 * i}" fill="{color}">{scheme}</text>')
    out.append(f'<text x="{margin + 10}" y="{margin + 68}">full: time per token; ring: prefill</text>'
               f'<text x="{size / 2}" y="{size - 15}" text-anchor="middle">measured</text>'
               f'<text x="15" y="{size / 2}" text-anchor="middle" '
               f'transform="rotate(-90 15 {size / 2})">predicted (dashed: 10 % off)</text></svg>')
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pare", default="build/release/pare")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rates", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    paths = {(shape, scheme): model(args.pare, args.work, shape, scheme)
             for shape in args.shapes for scheme in SCHEMES}
    points = [(shape, scheme, threads, *load) for shape in args.shapes for threads in args.threads
              for load in LOADS for scheme in SCHEMES]
    runs = {point: [] for point in points}
    for round in range(args.rounds):
        if args.rates:
            only = ["--products", PRODUCTS] if round > 0 else []
            run(args.pare, "roof", "--kernels", "--rounds", 1, *only, "--quiet")
        for point in points:
            shape, scheme, *rest = point
            runs[point].append(measure(args.pare, paths[shape, scheme], *rest))
        print(f"round {round + 1} of {args.rounds}", file=sys.stderr, flush=True)
    rows = []
    for point in points:
        r = dict(zip(FIELDS, point))
        r.update({k: statistics.median(one[k] for one in runs[point]) for k in runs[point][0]})
        for kind in ("decode", "prefill"):
            r[f"{kind}_error"] = error(r[f"{kind}_predicted"], r[f"{kind}_seconds"])
        rows.append(r)
        print(f"{r['shape']} {r['scheme']} threads {r['threads']} batch {r['batch']} context {r['context']}: "
              f"decode {1e3 * r['decode_seconds']:.2f} ms ({100 * r['decode_error']:+.1f} %), "
              f"prefill {1e3 * r['prefill_seconds']:.1f} ms ({100 * r['prefill_error']:+.1f} %)")
    if args.plot:
        args.plot.write_text(plot(rows))
    if args.out:
        with open(args.out, "w", newline="") as f:
            writer = csv.DictWriter(f, FIELDS)
            writer.writeheader()
            writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()}
                             for r in rows)
    summary("time per token", [r["decode_error"] for r in rows])
    summary("prefill", [r["prefill_error"] for r in rows])
    summary("speed-up of decode", list(ratios(rows, "decode")))
    summary("speed-up of prefill", list(ratios(rows, "prefill")))


if __name__ == "__main__":
    main()
