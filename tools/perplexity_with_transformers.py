#!/usr/bin/env python3
"""Perplexity of a model folder on a text with Transformers, by the protocol of `pare eval`.

    perplexity_with_transformers.py MODEL --text FILE [--window N] [--stride N] [--pare BINARY]

The text is tokenized once, by the folder's own tokenizer.json through Hugging Face tokenizers, and cut into
windows of N tokens that begin `stride` tokens apart; of each window the tokens not yet scored are, except its
first. Weights and products are float32, likelihoods double. Needs torch, transformers and, for quantized folders,
compressed-tensors; no test of the repository needs it.

Prints one JSON object with the names of `pare eval --json`. With --pare the same is done by `pare eval` (cache
in f32) and compared: the exit status is 1 unless tokens are equal and perplexities agree in four digits.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402


def windows(count, window, stride):
    """(begin, end, first scored token), as in src/probe/perplexity.cpp."""
    cut, scored, begin = [], 1, 0
    while begin + 1 < count and scored < count:
        end = min(count, begin + window)
        cut.append((begin, end, max(scored, begin + 1)))
        scored = end
        begin += stride
    return cut


def score(model, ids, window, stride, batch):
    """Number of scored tokens and the sum of their -ln p. Windows of equal length run as one batch."""
    tokens, nll = 0, 0.0
    pending = windows(len(ids), window, stride)
    while pending:
        length = pending[0][1] - pending[0][0]
        group = [w for w in pending[:batch] if w[1] - w[0] == length]
        pending = pending[len(group):]
        rows = torch.tensor([ids[begin:end] for begin, end, _ in group])
        logits = model(input_ids=rows, use_cache=False).logits
        for row, values, (begin, _, first) in zip(rows, logits, group):
            at = torch.arange(first - 1 - begin, length - 1)
            logp = torch.log_softmax(values[at].double(), dim=-1)
            nll -= float(logp[torch.arange(len(at)), row[at + 1]].sum())
            tokens += len(at)
    return tokens, nll


def by_pare(args):
    command = [args.pare, "eval", args.model, "--text", args.text, "--window", str(args.window),
               "--stride", str(args.stride), "--kv", "f32", "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--stride", type=int, default=0, help="default: the window")
    parser.add_argument("--batch", type=int, default=4, help="windows at once")
    parser.add_argument("--pare", help="the binary to compare with")
    args = parser.parse_args()
    args.stride = args.stride or args.window
    torch.set_grad_enabled(False)
    data = pathlib.Path(args.text).read_bytes()
    tokenizer = Tokenizer.from_file(str(pathlib.Path(args.model) / "tokenizer.json"))
    ids = tokenizer.encode(data.decode("utf-8")).ids
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokens, nll = score(model, ids, args.window, args.stride, args.batch)
    per_token = nll / tokens
    scored_bytes = round(len(data) * tokens / (len(ids) - 1))  # shared out by tokens
    result = {"tokens": tokens, "nll_per_token": per_token, "perplexity": math.exp(per_token),
              "bits_per_byte": nll / math.log(2) / scored_bytes}
    print(json.dumps(result))
    if not args.pare:
        return 0
    other = by_pare(args)
    print(json.dumps({name: other[name] for name in result}), other["protocol"])
    same = f"{other['perplexity']:.4g}" == f"{result['perplexity']:.4g}" and other["tokens"] == tokens
    relative = abs(other["perplexity"] / result["perplexity"] - 1)
    print(f"relative difference {relative:.1e}: {'equal' if same else 'not equal'} in four digits")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
