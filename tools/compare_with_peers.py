#!/usr/bin/env python3
"""Quantize the same model on the same tokens with Pare, GPTQModel and llm-compressor, on the CPU, and compare.

    compare_with_peers.py --pare BINARY --model DIR --text FILE --eval FILE... --out CSV
        [--gptqmodel PYTHON] [--llmcompressor PYTHON] [--cases NAME,...] [--repeats N] [--threads N]
        [--sequences N] [--length N] [--eval-sequences N] [--work DIR] [--ram MB] [--note WORDS]

PYTHON is the interpreter of an environment that has the program (`pip install gptqmodel`, `pip install
llmcompressor`; they cannot share one). FILE is a text, plain or .zst. Calibration and evaluation texts are
encoded once (`pare tokenize`) and cut into sequences spread evenly over the text; everybody gets the same ids.
Each program runs in a process of its own, one at a time, all of them in turn, `--repeats` times. What they wrote is
loaded by Pare and measured by `pare eval` on the same windows. One row a run and text:

  quantize_seconds  the peer's own call that quantizes, without imports, loading and saving; of Pare the
                    whole command, which also loads, reports and saves
  command_seconds   the whole process
  cpu_seconds       of all its threads, user and system: what a busy machine does not lengthen (much)
  peak_rss_mib      of the process, as wait4 says
  load              load average of one minute when the run began
"""
import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

# case: (program, settings). `pare` settings are words of the command line.
CASES = {
    "int4-gptq": {"pare": ["--weights", "int4:g128:s=f16", "--method", "gptq"], "bits": 4, "method": "gptq"},
    "int3-gptq": {"pare": ["--weights", "int3:g128:s=f16", "--method", "gptq"], "bits": 3, "method": "gptq"},
    "int4-awq": {"pare": ["--weights", "int4:g128:s=f16", "--method", "awq"], "bits": 4, "method": "awq"},
    "int4-auto": {"pare": ["--weights", "int4:g128:s=f16", "--method", "auto"], "bits": 4, "method": None},
    "int3-auto": {"pare": ["--weights", "int3:g128:s=f16", "--method", "auto"], "bits": 3, "method": None},
}


# ---- inside the peers' environments ----


def quantize_with_gptqmodel(job, sequences):
    from gptqmodel import GPTQModel, QuantizeConfig

    words = {} if job["method"] == "gptq" else {"method": "awq", "format": "gemm"}
    if job["desc_act"]:
        words["desc_act"] = True
    config = QuantizeConfig(bits=job["bits"], group_size=128, sym=True, device="cpu", **words)
    model = GPTQModel.load(job["model"], config)
    data = [{"input_ids": s, "attention_mask": [1] * len(s)} for s in sequences]
    begin = time.time()
    model.quantize(data, batch_size=job["batch"])
    seconds = time.time() - begin
    model.save(job["out"])
    return seconds


def quantize_with_llmcompressor(job, sequences):
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = {"num_bits": job["bits"], "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
    words = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
    if job["method"] == "gptq":
        from llmcompressor.modifiers.quantization import GPTQModifier

        recipe = [GPTQModifier(**words)]
    else:
        try:
            from llmcompressor.modifiers.quantization import QuantizationModifier
            from llmcompressor.modifiers.transform.awq import AWQModifier

            recipe = [AWQModifier(), QuantizationModifier(**words)]
        except ImportError:
            from llmcompressor.modifiers.awq import AWQModifier

            recipe = [AWQModifier(**words)]
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    data = Dataset.from_dict({"input_ids": sequences, "attention_mask": [[1] * len(s) for s in sequences]})
    begin = time.time()
    oneshot(model=model, tokenizer=tokenizer, dataset=data, recipe=recipe, max_seq_length=job["length"],
            num_calibration_samples=len(sequences), batch_size=job["batch"], shuffle_calibration_samples=False)
    seconds = time.time() - begin
    model.save_pretrained(job["out"], save_compressed=True)
    tokenizer.save_pretrained(job["out"])
    return seconds


def peer(job_file):
    job = json.loads(pathlib.Path(job_file).read_text())
    import torch

    torch.set_num_threads(job["threads"])
    sequences = [json.loads(line) for line in pathlib.Path(job["ids"]).read_text().splitlines()]
    run = {"gptqmodel": quantize_with_gptqmodel, "llmcompressor": quantize_with_llmcompressor}[job["peer"]]
    seconds = run(job, sequences)
    import importlib.metadata

    name = {"gptqmodel": "gptqmodel", "llmcompressor": "llmcompressor"}[job["peer"]]
    result = {"seconds": seconds, "version": importlib.metadata.version(name)}
    pathlib.Path(job["result"]).write_text(json.dumps(result))


# ---- outside ----


def pare_json(args, *words):
    done = subprocess.run([str(args.pare), *map(str, words), "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"pare {' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout)


def text_of(path):
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", str(path)], check=True, capture_output=True).stdout.decode("utf-8")
    return path.read_text(encoding="utf-8")


def sequences_of(args, path, count, work):
    """`count` sequences spread evenly over the text; documents' separators become the end token's text."""
    plain = work / "text.txt"
    plain.write_text(text_of(path), encoding="utf-8")
    ids = pare_json(args, "tokenize", args.model, "--file", plain, "--no-special")["ids"]
    pieces = len(ids) // args.length
    count = min(count, pieces)
    starts = [i * pieces // count * args.length for i in range(count)]
    return [ids[s:s + args.length] for s in starts]


def write_ids(path, sequences):
    path.write_text("".join(json.dumps(s) + "\n" for s in sequences))
    return path


def spawn(words, threads, log):
    """(exit code, seconds, seconds of processors, peak MiB) of a process."""
    environment = dict(os.environ, HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)
    environment["GPTQMODEL_CPU_WORKERS"] = str(max(2, threads))  # on two processors 7.7.0 takes one and fails to start
    begin = time.time()
    with open(log, "w", encoding="utf-8") as out:
        child = subprocess.Popen([str(w) for w in words], stdout=out, stderr=subprocess.STDOUT, env=environment,
                                 cwd=log.parent)  # GPTQModel leaves a folder of logs where it runs
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, time.time() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def run_pare(args, case, ids, out, work):
    words = [args.pare, "quantize", args.model, "-o", out, "--force", *CASES[case]["pare"], "--ids", ids, "--length",
             args.length, "--tokens", args.sequences * args.length, "--threads", args.threads, "--quiet"]
    words += ["--ram", args.ram] if args.ram else []
    code, seconds, cpu, peak = spawn(words, args.threads, work / "pare.log")
    if code != 0:
        raise RuntimeError((work / "pare.log").read_text()[-600:])
    return seconds, seconds, cpu, peak, pare_json(args, "show", args.model).get("version", "")


def run_peer(args, name, case, ids, out, work):
    python = getattr(args, name)
    job = {"peer": name, "model": str(args.model), "ids": str(ids), "out": str(out), "threads": args.threads,
           "length": args.length, "batch": args.batch, "desc_act": args.desc_act, "result": str(work / "result.json"),
           **{k: CASES[case][k] for k in ("bits", "method")}}
    (work / "job.json").write_text(json.dumps(job))
    (work / "result.json").unlink(missing_ok=True)
    log = work / f"{name}-{case}.log"
    code, seconds, cpu, peak = spawn([python, pathlib.Path(__file__).resolve(), "--peer", work / "job.json"], args.threads, log)
    if code != 0:
        raise RuntimeError(f"{name} failed: {log.read_text()[-1500:]}")
    result = json.loads((work / "result.json").read_text())
    return result["seconds"], seconds, cpu, peak, result["version"]


def measure(args, name, case, repeat, ids, texts, work, writer):
    out = work / f"{name}-{case}"
    load = os.getloadavg()[0]
    try:
        if name == "pare":
            quantize, command, cpu, peak, version = run_pare(args, case, ids, out, work)
        else:
            quantize, command, cpu, peak, version = run_peer(args, name, case, ids, out, work)
    except RuntimeError as error:
        print(f"{name} {case}: {error}", flush=True)
        return
    for text, path in texts:
        found = pare_json(args, "eval", out, "--ids", path, "--against", args.model)
        row = [args.model.name, case, name, version, repeat, text, found["tokens"], f"{found['base']['perplexity']:.4f}",
               f"{found['perplexity']:.4f}", f"{found['kl_mean']:.6f}", f"{quantize:.2f}", f"{command:.2f}",
               f"{cpu:.2f}", f"{peak:.0f}", args.threads, f"{load:.1f}", args.note]
        writer.writerow(row)
        print(*row, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pare", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True, help="to calibrate on")
    parser.add_argument("--eval", type=pathlib.Path, nargs="+", required=True, help="texts to measure on")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--gptqmodel", help="Python that has gptqmodel")
    parser.add_argument("--llmcompressor", help="Python that has llmcompressor")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8, help="sequences that a peer runs at once")
    parser.add_argument("--desc-act", action="store_true", help="GPTQModel's desc_act instead of its default order")
    parser.add_argument("--eval-sequences", type=int, default=128)
    parser.add_argument("--work", type=pathlib.Path, help="keep everything there")
    parser.add_argument("--ram", help="of Pare: megabytes that calibration may take")
    parser.add_argument("--note", default="", help="a word for the last column")
    return parser.parse_args()


def main():
    if sys.argv[1:2] == ["--peer"]:
        return peer(sys.argv[2])
    args = arguments()
    args.pare, args.model = args.pare.resolve(), args.model.resolve()
    with tempfile.TemporaryDirectory() as temporary, open(args.out, "w", newline="", encoding="utf-8") as file:
        work = (args.work or pathlib.Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        ids = write_ids(work / "calibration.jsonl", sequences_of(args, args.text, args.sequences, work))
        texts = [(path.name.removesuffix(".zst"),
                  write_ids(work / f"eval-{i}.jsonl", sequences_of(args, path, args.eval_sequences, work)))
                 for i, path in enumerate(args.eval)]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "case", "program", "version", "repeat", "text", "tokens", "base_perplexity",
                         "perplexity", "kl_mean", "quantize_seconds", "command_seconds", "cpu_seconds", "peak_rss_mib", "threads",
                         "load", "note"])
        for case in args.cases.split(","):
            for repeat in range(1, args.repeats + 1):
                for name in ("pare", "gptqmodel", "llmcompressor"):
                    if name == "pare" or (getattr(args, name) and CASES[case]["method"]):
                        measure(args, name, case, repeat, ids, texts, work, writer)
                        file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
