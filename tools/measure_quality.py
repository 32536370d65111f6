#!/usr/bin/env python3
"""Measure what each method and scheme costs in quality: docs/results/quality.csv.

    measure_quality.py --pare BINARY --data DIR --out CSV [--larger MODEL] [--only MODEL]

DIR is the folder of the shared test data (models, text). Every model is calibrated on the first two thirds of
tinystories-valid-a.txt and measured, against itself unquantized, on texts that it was not calibrated on: perplexity,
KL divergence (nats, mean over positions) and the share of equal first choices. A row each, in the order measured.
"""
import argparse
import csv
import json
import os
import pathlib
import subprocess
import tempfile
import time

os.environ["PARE_LEDGER"] = "off"  # these runs are none of the user's

WEIGHTS = ("int4:g128", "int4:g32", "int3:g128", "int2:g64")
METHODS = ("rtn", "gptq", "awq", "auto")
BLOCK64 = ("int4:g64", "nf4:g64", "fp4:g64", "e2m1:g64")


def run(args, *words):
    return json.loads(subprocess.run([str(args.pare), *map(str, words), "--json", "--quiet"], check=True,
                                     capture_output=True, text=True).stdout)


def recipes():
    """(weights, activations, method, further flags)"""
    for weights in WEIGHTS:
        for method in METHODS:
            yield weights, "", method, ()
    for weights in BLOCK64:
        for method in ("rtn", "gptq"):
            yield weights, "", method, ()
    yield "int8:channel", "int8:token", "rtn", ()
    yield "int8:channel", "int8:token", "smoothquant", ()
    yield "int8:channel", "int8:token", "llm-int8", ("--threshold", "20")


def measure(args, writer, name, model, texts, calibration, work):
    for number, (weights, activations, method, flags) in enumerate(recipes()):
        if args.weights and weights not in args.weights.split(","):
            continue
        out = work / f"{name}-{number}"
        words = ["quantize", model, "-o", out, "--weights", weights, "--method", method, *flags]
        if activations:
            words += ["--activations", activations]
        if method != "rtn":
            words += ["--text", calibration, "--tokens", args.tokens]
        start = time.time()
        try:
            made = run(args, *words)
        except subprocess.CalledProcessError as error:
            print(f"{name} {weights} {method}: {error.stdout.strip() or error.stderr.strip()}", flush=True)
            continue
        seconds = time.time() - start
        for text, limit in texts:
            result = run(args, "eval", out, "--text", text, "--against", model, "--limit", limit)
            row = [name, weights, activations or "none", method, f"{made['bits_per_weight']:.3f}", text.name,
                   result["tokens"], f"{result['base']['perplexity']:.4f}", f"{result['perplexity']:.4f}",
                   f"{result['kl_mean']:.6f}", f"{result['top1_agreement']:.4f}", f"{seconds:.1f}"]
            writer.writerow(row)
            print(*row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pare", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--larger", type=pathlib.Path, help="another model, measured as the embedded one is")
    parser.add_argument("--only", help="one of the models by name")
    parser.add_argument("--weights", help="of the recipes only those with these schemes, separated by commas")
    parser.add_argument("--tokens", default="16384")
    parser.add_argument("--limit", default="8192", help="tokens of each text that are scored")
    args = parser.parse_args()
    args.pare = args.pare.resolve()
    root = pathlib.Path(__file__).resolve().parent.parent
    story = (args.data / "text/tinystories-valid-a.txt").read_text(encoding="utf-8")
    cut = story.find("\n", 2 * len(story) // 3)
    with tempfile.TemporaryDirectory() as temporary, open(args.out, "w", newline="", encoding="utf-8") as file:
        work = pathlib.Path(temporary)
        calibration, held = work / "calibration.txt", work / "tinystories.txt"
        calibration.write_text(story[:cut], encoding="utf-8")
        held.write_text(story[cut:], encoding="utf-8")
        models = args.data / "models"
        for name, source, vocabulary in (("stories260K", "stories260K/stories260K.bin", "stories260K/tok512.bin"),
                                         ("babyllama-tok105", "babyllama-tok105/model5000.bin", "babyllama-tok105/tok105.model")):
            run(args, "convert", models / source, "--tokenizer", models / vocabulary, "-o", work / name)
        heldout = (root / "models/heldout.txt", args.limit)
        wiki = (args.data / "text/wikitext-2/wiki.test.raw", args.limit)
        jobs = [("pare-tales", root / "models/pare-tales", [heldout, wiki]),
                ("stories260K", work / "stories260K", [(held, args.limit)]),
                ("babyllama-tok105", work / "babyllama-tok105", [(held, args.limit)])]
        if args.larger:
            jobs.append((args.larger.name, args.larger, [heldout, wiki]))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "weights", "activations", "method", "bits_per_weight", "text", "tokens",
                         "base_perplexity", "perplexity", "kl_mean", "top1_agreement", "seconds"])
        for name, model, texts in jobs:
            if args.only in (None, name):
                measure(args, writer, name, model, texts, calibration, work)
                file.flush()


if __name__ == "__main__":
    main()
