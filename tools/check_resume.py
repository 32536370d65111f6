#!/usr/bin/env python3
"""Kill `pare quantize` or `pare apply` at random moments, resume it, and compare what comes out with an undisturbed run.

    check_resume.py --pare BINARY [--kills N] [--seed S] [--method M | --apply RECIPE] [--model DIR] [--text FILE]

With --apply the recipe (a file or the name of a ready one) is applied, else one matrix format by one method. Each trial begins anew and is killed with SIGKILL again and again, after random times, until a run gets
through; a trial ends when its output is published. After every kill nothing may stand under the output's
name. Where runs get through before they are killed (the machine is less busy than it was), the times are drawn
shorter, and longer after a kill. The files of the output must equal those of the undisturbed run, byte for byte. Prints the seed.
"""
import argparse
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

os.environ["PARE_LEDGER"] = "off"  # these runs are none of the user's


def hashes(folder):
    """Of all files, by name."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pare", required=True, type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--method", default="gptq")
    parser.add_argument("--weights", default="int4:g128")
    parser.add_argument("--apply", metavar="RECIPE")
    parser.add_argument("--tokens", default="2048")
    parser.add_argument("--model", default=root / "models/pare-tales", type=pathlib.Path)
    parser.add_argument("--text", default=root / "models/heldout.txt", type=pathlib.Path)
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)

        def command(out):
            recipe = pathlib.Path(args.apply).resolve() if args.apply and pathlib.Path(args.apply).exists() else args.apply
            words = (["apply", args.model.resolve(), recipe] if args.apply else
                     ["quantize", args.model.resolve(), "--weights", args.weights, "--method", args.method])
            return [str(word) for word in [args.pare.resolve(), *words, "-o", out, "--text", args.text.resolve(),
                                           "--tokens", args.tokens, "--quiet"]]

        start = time.time()
        subprocess.run(command("undisturbed"), cwd=work, check=True, stdout=subprocess.DEVNULL)
        whole = time.time() - start
        expected = hashes(work / "undisturbed")
        kills = trials = resumed = published = 0
        while kills < args.kills:
            trials += 1
            out = work / f"trial-{trials}"
            while True:
                process = subprocess.Popen(command(out.name), cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                try:
                    process.wait(draw.uniform(0, 1.1 * whole) if kills < args.kills else None)
                    whole *= 0.9
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
                    whole *= 1.03
                    if out.exists() and hashes(out) != expected:
                        print(f"FAILED: an output that is not whole after kill {kills}")
                        return 1
                    if list(work.glob(f"{out.name}.pare-work/step-*")):
                        resumed += 1
                    if out.exists():  # killed after it was published
                        published += 1
                        break
                    continue
                if process.returncode != 0:
                    print(f"FAILED: exit {process.returncode}: {process.stderr.read().decode()}")
                    return 1
                break
            if hashes(out) != expected:
                print(f"FAILED: trial {trials} differs from the undisturbed run")
                return 1
            shutil.rmtree(out)
            shutil.rmtree(work / f"{out.name}.pare-work", ignore_errors=True)
        left = sorted(p.name for p in work.iterdir() if p.name != "undisturbed" and not p.name.endswith(".lock"))
        if any(name.endswith(".pare-work") for name in left):
            print(f"FAILED: left over: {left}")
            return 1
    print(f"{kills} kills in {trials} runs, {resumed} of them with finished blocks to go on from, {published} after publishing: all outputs equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
