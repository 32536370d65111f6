#!/usr/bin/env python3
"""Load a model folder with Transformers (and compressed-tensors) and compare it with Pare.

    check_with_transformers.py MODEL [--ids FILE] [--tokens N] [--decode] [--pare BINARY]

Runs in an environment that has torch, transformers and, for quantized folders, compressed-tensors; no test
of the repository needs it. The model is loaded in float32 on the CPU. Quantized weights stay in the file's
codes; compressed-tensors decodes them, and quantizes the inputs where the folder says so.

FILE holds prompts as JSON lists of token ids, one a line (default: three short ones). Without --pare the
greedy ids are printed, one JSON object a line. With --pare the same prompts go through `pare run` and
`pare eval --logits`; the ids must be equal and the logits close, else the exit status is 1.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402


def greedy(model, ids, count):
    """Token by token without a cache and without the generation config's rules."""
    out = list(ids)
    for _ in range(count):
        logits = model(input_ids=torch.tensor([out]), use_cache=False).logits[0, -1]
        out.append(int(logits.argmax()))
    return out[len(ids):]


def margins(model, sequence, start):
    """Distance of the two largest logits at each generated place: how firm each choice was."""
    logits = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
    top = logits[start - 1:-1].topk(2, dim=-1).values
    return (top[:, 0] - top[:, 1]).tolist()


def decode_modules(folder):
    """The model with every quantized weight decoded by compressed-tensors' own functions, one module at a time.

    For forms that the package can decode but not load through Transformers: in version 0.20 asymmetric packed
    weights (their zero points get an unpacked shape on the meta device) and fp4 into a float32 model.
    """
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file

    config = AutoConfig.from_pretrained(folder)
    section = dict(config.quantization_config)
    section.pop("quant_method", None)
    del config.quantization_config
    quantization = QuantizationConfig.model_validate(section)
    state = {}
    for shard in sorted(pathlib.Path(folder).glob("*.safetensors")):
        state.update(load_file(shard))
    for module in {name.rsplit(".", 1)[0] for name in state if name.endswith(".weight_scale")}:
        named = [g for g in quantization.config_groups.values() if module in g.targets]
        group = (named or [g for g in quantization.config_groups.values() if "Linear" in g.targets])[0]
        form = group.format or quantization.format
        parts = {n[len(module) + 1:]: state.pop(n) for n in list(state) if n.rsplit(".", 1)[0] == module}
        if parts["weight_scale"].dtype in (torch.bfloat16, torch.float16):  # else the products are rounded to that
            parts["weight_scale"] = parts["weight_scale"].float()
        decoded = BaseCompressor.get_value_from_registry(form).decompress(dict(parts), group)
        state[f"{module}.weight"] = decoded["weight"].float()
        if "bias" in parts:
            state[f"{module}.bias"] = parts["bias"]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [n for n in missing if not (config.tie_word_embeddings and n == "lm_head.weight")]
    if missing or unexpected:
        sys.exit(f"missing {missing}, unexpected {unexpected}")
    return model


def pare(binary, arguments):
    done = subprocess.run([binary, *arguments, "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join([binary, *arguments])}\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def compare(args, model, prompts, expected):
    from safetensors.torch import load_file

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        prompt_file = pathlib.Path(folder) / "prompts.jsonl"
        prompt_file.write_text("".join(json.dumps(p) + "\n" for p in prompts))
        kv = ["--kv", "f32"]
        run = pare(args.pare, ["run", args.model, "--ids", str(prompt_file), "--tokens", str(args.tokens), "--greedy",
                               "--no-stop", *kv])
        found = [entry["ids"] for entry in run.get("sequences", [run])]
        for k, (prompt, want) in enumerate(zip(prompts, expected)):
            got = found[k]
            same = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), len(want))
            text = f"prompt {k}: {same} of {len(want)} greedy ids equal"
            if same < len(want):
                wrong += 1
                text += f"; margin there {margins(model, prompt + want, len(prompt))[same]:.2e}"
            print(text)
        sequences = [p + e for p, e in zip(prompts, expected)]
        ids_file, out_file = pathlib.Path(folder) / "ids.jsonl", pathlib.Path(folder) / "logits.safetensors"
        ids_file.write_text("".join(json.dumps(s) + "\n" for s in sequences))
        pare(args.pare, ["eval", args.model, "--ids", str(ids_file), "--logits", str(out_file), *kv])
        logits = load_file(out_file)
        for k, sequence in enumerate(sequences):
            want = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0].float()
            got = logits[f"seq{k}"]
            worst = float((got - want[: got.shape[0]]).abs().max())
            scale = float(want.abs().max())
            print(f"prompt {k}: logits differ by at most {worst:.2e} (largest logit {scale:.1f}, {got.shape[0]} positions)")
            wrong += worst > args.tolerance * max(1.0, scale)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ids", help="prompts, one JSON list of token ids a line")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--decode", action="store_true", help="decode modules one by one; inputs stay floats")
    parser.add_argument("--pare", help="the binary to compare with")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of logits, relative to the largest")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    if args.decode:
        model = decode_modules(args.model)
    else:
        model, info = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, output_loading_info=True)
        problems = {key: sorted(value) for key, value in info.items() if value}
        if problems:
            sys.exit(f"Transformers did not find the tensors it wants: {problems}")
    model.eval()
    if args.ids:
        prompts = [json.loads(line) for line in pathlib.Path(args.ids).read_text().splitlines() if line.strip()]
    else:
        prompts = [[1, 5, 9, 17], [2, 33], [7, 11, 13, 19, 23, 29, 31]]
    expected = [greedy(model, prompt, args.tokens) for prompt in prompts]
    if not args.pare:
        for prompt, ids in zip(prompts, expected):
            print(json.dumps({"prompt": prompt, "ids": ids}))
        return 0
    wrong = compare(args, model, prompts, expected)
    print("equal" if wrong == 0 else f"{wrong} comparisons failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
