#!/usr/bin/env python3
"""Folders that `pare export` wrote, read by the programs that they are for.

    tools/check_exports.py PARE MODEL GPTQMODEL_SOURCE AUTOAWQ_SOURCE BITSANDBYTES_FOLDER WORK [FORMAT]

For each scheme and format the model is quantized and exported; the matrices are decoded by the
packers' own code (tools/reference_packers.py) and compared bit for bit with the values that Pare
decodes (`pare export --format dense:f32`). Folders that Transformers reads without a GPU are loaded
by it, GPTQ and AWQ folders by GPTQModel with its PyTorch kernels (in float16, the only width they
take beside bfloat16), and their logits and greedy tokens compared with Pare's. Needs PyTorch and
Transformers; bitsandbytes folders are loaded when accelerate is installed too, GPTQ and AWQ ones
when gptqmodel is.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from reference_packers import Awq, Bitsandbytes, Gptq

os.environ["PARE_LEDGER"] = "off"  # these runs are none of the user's

IDS = [5, 17, 23, 99, 4, 260, 31, 8]


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def modules(tensors, suffix):
    return sorted(k.removesuffix("." + suffix) for k in tensors if k.endswith("." + suffix))


def planes_of(tensors, module):
    front = module + "."
    return {k.removeprefix(front): v for k, v in tensors.items() if k.startswith(front)}


def decode_gptq(gptq, folder, tensors):
    q = json.load(open(folder / "quantization.json"))
    for m in modules(tensors, "qweight"):
        p = planes_of(tensors, m)
        zeros = p["qzeros"] if q["checkpoint_format"] == "gptq_v2" else gptq.v2(p["qzeros"], q["bits"])
        yield m, gptq.values(p["qweight"], zeros, p["scales"], p["g_idx"], q["bits"])


def decode_awq(awq, folder, tensors):
    q = json.load(open(folder / "quantization.json"))
    for m in modules(tensors, "qweight"):
        p = planes_of(tensors, m)
        group = q["group_size"] if q["group_size"] > 0 else p["qweight"].shape[0]
        yield m, awq.values(p["qweight"], p["qzeros"], p["scales"], group)


def decode_bnb(bnb, folder, tensors):
    for m in modules(tensors, "weight.absmax"):
        yield m, bnb.values(planes_of(tensors, m))
    for m in modules(tensors, "SCB"):
        p = planes_of(tensors, m)
        yield m, p["weight"].float() * (p["SCB"] / 127).unsqueeze(1)


def decode_fp8(_, folder, tensors):
    for m in modules(tensors, "weight_scale_inv"):
        p = planes_of(tensors, m)
        scale = p["weight_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
        rows, cols = p["weight"].shape
        yield m, p["weight"].float() * scale[:rows, :cols]


def check_values(decoder, tool, folder, dense):
    tensors = load_file(folder / "model.safetensors")
    config = json.load(open(folder / "config.json"))
    (folder / "quantization.json").write_text(json.dumps(config["quantization_config"]))
    count = 0
    for module, found in decoder(tool, folder, tensors):
        want = dense[module + ".weight"]
        assert torch.equal(found.float(), want), f"{folder}: {module} differs"
        count += 1
    (folder / "quantization.json").unlink()
    assert count > 0, folder
    return count


def pare_tokens(pare, folder, work):
    (work / "ids.jsonl").write_text(json.dumps(IDS) + "\n")
    out = json.loads(run(pare, "run", folder, "--ids", work / "ids.jsonl", "--tokens", 24, "--greedy",
                         "--json"))
    return out


def first_ids(out):
    if isinstance(out, dict):
        for key in ("ids", "tokens"):
            if isinstance(out.get(key), list) and out[key] and isinstance(out[key][0], int):
                return out[key]
        for value in out.values():
            found = first_ids(value)
            if found:
                return found
    if isinstance(out, list):
        for value in out:
            found = first_ids(value)
            if found:
                return found
    return None


def compare(pare, what, model, folder, dense_folder, work):
    from transformers import AutoModelForCausalLM
    dense = AutoModelForCausalLM.from_pretrained(dense_folder, dtype=torch.float32).eval()
    ids = torch.tensor([IDS])
    with torch.no_grad():
        a, b = model(input_ids=ids, use_cache=False).logits.float(), dense(ids).logits
        tokens = list(IDS)
        for _ in range(24):
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(logits.argmax()))
    tokens = tokens[len(IDS):]
    ours = first_ids(pare_tokens(pare, folder, work))
    ours = ours[len(IDS):] if ours[:len(IDS)] == IDS else ours
    same = next((i for i, (x, y) in enumerate(zip(tokens, ours)) if x != y), len(ours))
    print(f"  {what} loads it; logits differ from the dense values' by at most {(a - b).abs().max():.2g} "
          f"(largest {b.abs().max():.3g}); {same} of {len(ours)} greedy tokens are Pare's", flush=True)


def with_transformers(form, folder):
    from transformers import AutoModelForCausalLM
    options = {}
    if form == "fp8":
        from transformers import FineGrainedFP8Config
        options["quantization_config"] = FineGrainedFP8Config(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


def with_gptqmodel(form, folder):
    from gptqmodel import BACKEND, GPTQModel
    backend = BACKEND.AWQ_TORCH if form == "awq" else BACKEND.GPTQ_TORCH
    return GPTQModel.load(str(folder), device="cpu", backend=backend, dtype=torch.float16).model.eval()


def main():
    pare, model, gptqmodel, autoawq, bnb_folder, work, *only = sys.argv[1:]
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    bnb = Bitsandbytes(bnb_folder)
    gptq, awq = Gptq(gptqmodel), Awq(autoawq)
    cases = [("gptq", "int4:g128:s=f16", decode_gptq, gptq), ("gptq", "int4:g32:asym:s=f16", decode_gptq, gptq),
             ("gptq-v2", "int3:g32:asym:s=f16", decode_gptq, gptq), ("gptq", "int2:g32:s=f16", decode_gptq, gptq),
             ("gptq", "int8:g64:s=f16", decode_gptq, gptq), ("gptq", "int4:channel", decode_gptq, gptq),
             ("awq", "int4:g128:asym:s=f16", decode_awq, awq), ("awq", "int4:g64", decode_awq, awq),
             ("bnb", "nf4:g64", decode_bnb, bnb), ("bnb", "fp4:g64", decode_bnb, bnb),
             ("bnb", "nf4:g64:dq", decode_bnb, bnb), ("bnb", "int8:channel", decode_bnb, bnb),
             ("fp8", "e4m3:b128x128", decode_fp8, None),
             ("compressed-tensors", "int4:g128", None, None),
             ("compressed-tensors", "int8:channel", None, None),
             ("compressed-tensors", "e4m3:channel", None, None),
             ("compressed-tensors", "e4m3:tensor", None, None)]
    for i, (form, scheme, decoder, tool) in enumerate(cases):
        if only and form not in only:
            continue
        source, out, plain = work / f"source{i}", work / f"out{i}", work / f"plain{i}"
        run(pare, "quantize", model, "-o", source, "--weights", scheme, "--range", "absmax", "--force")
        run(pare, "export", source, "-o", out, "--format", form, "--force")
        run(pare, "export", source, "-o", plain, "--format", "dense:f32", "--force")
        run(pare, "verify", out)
        dense = load_file(plain / "model.safetensors")
        if decoder:
            print(f"{form} {scheme}: {check_values(decoder, tool, out, dense)} matrices, bit for bit")
        packed = form in ("gptq", "gptq-v2", "awq")
        reader, load = ("GPTQModel", with_gptqmodel) if packed else ("Transformers", with_transformers)
        try:
            compare(pare, f"{form} {scheme}: {reader}", load(form, out), out, plain, work)
        except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
            print(f"  {form} {scheme}: not loaded by {reader} here: {str(error)[:160]}", flush=True)


if __name__ == "__main__":
    main()
