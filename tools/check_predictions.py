#!/usr/bin/env python3
"""Predicted against measured speed on this machine.

    tools/check_predictions.py --work DIR [--pare build/release/pare] [--out predictions.csv]
                               [--shapes NAME ...] [--rounds N] [--rates]

Writes random models of known shapes into DIR, measures decode and prefill of each with several
schemes, numbers of threads, batches and contexts (`pare bench`), and holds the times against those
that the cost model predicts from the kernels' measured rates. With --rates these are measured anew
first (`pare roof --kernels`). One CSV line a point; the summary says the median, the 90th percentile
and the largest error of the time per token, of prefill, and of the ratios between a scheme and bf16
at the same threads, batch and context. A machine should have nothing else to do meanwhile.
"""
import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys

SHAPES = ["smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b"]
BASE = "bf16"
SCHEMES = {"bf16": [], "int8": ["--weights", "int8:channel"], "int4g32": ["--weights", "int4:g32"],
           "w8a8": ["--weights", "int8:channel", "--activations", "int8:token"]}
LOADS = [(1, 64), (1, 1024), (4, 256)]  # batch, context
PROMPT = 128
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


def measure(pare, path, threads, batch, context, rounds):
    prompt = min(PROMPT, context)
    text = run(pare, "bench", path, "--json", "--quiet", "--threads", threads, "--batch", batch,
               "--context", context, "--prompt", prompt, "--generate", 12, "--repeats", rounds)
    return json.loads(text)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pare", default="build/release/pare")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", action="store_true")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    paths = {(shape, scheme): model(args.pare, args.work, shape, scheme)
             for shape in args.shapes for scheme in SCHEMES}
    if args.rates:
        run(args.pare, "roof", "--kernels", "--quiet")
    rows = []
    for shape in args.shapes:
        for threads in args.threads:
            for batch, context in LOADS:
                for scheme in SCHEMES:
                    r = measure(args.pare, paths[shape, scheme], threads, batch, context, args.rounds)
                    decode, prefill = r["decode_step_seconds"]["median"], r["prefill_seconds"]["median"]
                    row = dict(zip(FIELDS, [
                        shape, scheme, threads, batch, context, decode,
                        r["predicted_decode_step_seconds"],
                        error(r["predicted_decode_step_seconds"], decode), prefill,
                        r["predicted_prefill_seconds"],
                        error(r["predicted_prefill_seconds"], prefill)]))
                    rows.append(row)
                    print(f"{shape} {scheme} threads {threads} batch {batch} context {context}: "
                          f"decode {1e3 * decode:.2f} ms ({100 * row['decode_error']:+.1f} %), "
                          f"prefill {1e3 * prefill:.1f} ms ({100 * row['prefill_error']:+.1f} %)",
                          flush=True)
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
