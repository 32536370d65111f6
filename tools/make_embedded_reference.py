#!/usr/bin/env python3
"""Writes tests/fixtures/embedded/reference.json: what other programs say about models/pare-tales.

The oracles are the tokenizers library and Transformers, which share nothing with this program; the
weights are the published bfloat16 ones, computed with in float32.

    HF_HUB_OFFLINE=1 python tools/make_embedded_reference.py --wikitext DIR/wiki.test.raw

(torch 2.15, transformers 5.23, tokenizers 0.23). Contents:

  model_sha256   of model.safetensors: the figures hold for this file only
  prompts        text, ids (tokens of the text, nothing added), greedy (40 ids, no end-of-text stop
                 needed to reach them), margin (the smallest lead of a chosen logit over the second:
                 an implementation whose logits are closer than half of it must choose the same)
  first_window   ids (the first 512 tokens of models/heldout.txt) and nll (511 values, nats; value i
                 belongs to token i + 1)
  heldout        perplexity of the whole text: tokens, scored, nll (mean, nats), perplexity,
  wikitext2      text_bytes, text_sha256. Protocol: window 512, stride 512, so windows do not
                 overlap; no token is added; each window but for its first token is scored; the last
                 window is as short as it comes.
"""
import argparse
import hashlib
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parent.parent
WINDOW, NEW_TOKENS, BATCH = 512, 40, 8
PROMPTS = (
    "Once upon a time, there was a little girl named Mia. One day, she",
    "The old captain shut the door of the cabin, and",
    "\"What is that?\" asked Tom.\n\nHis mother looked out of the window. It was 7 o'clock",
)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@torch.no_grad()
def greedy(model, ids):
    """NEW_TOKENS greedy ids by whole forward passes, and the smallest lead of a chosen logit."""
    ids, margin = list(ids), math.inf
    for _ in range(NEW_TOKENS):
        best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[-NEW_TOKENS:], margin


def generated(model, ids):
    """The same through Transformers' own loop with its cache; one more witness."""
    x = torch.tensor([ids])
    out = model.generate(x, attention_mask=torch.ones_like(x), do_sample=False,
                         max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
    return out[0, len(ids):].tolist()


@torch.no_grad()
def window_nll(model, windows):
    """nll in nats of all tokens but the first of each window; windows (n, t) -> (n, t - 1)."""
    logits, target = model(windows).logits[:, :-1].double(), windows[:, 1:]
    nll = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), reduction="none")
    return nll.view(target.shape)


def perplexity(model, tokenizer, path):
    data = path.read_bytes()
    ids = torch.tensor(tokenizer.encode(data.decode("utf-8")).ids)
    whole = len(ids) // WINDOW * WINDOW
    parts = list(ids[:whole].view(-1, WINDOW).split(BATCH))
    if len(ids) - whole > 1:
        parts.append(ids[whole:][None])
    total, scored = 0.0, 0
    for part in parts:
        nll = window_nll(model, part)
        total, scored = total + nll.sum().item(), scored + nll.numel()
    mean = total / scored
    return {"text_bytes": len(data), "text_sha256": sha256(data), "tokens": len(ids),
            "scored": scored, "nll": round(mean, 6), "perplexity": round(math.exp(mean), 6)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/pare-tales")
    parser.add_argument("--heldout", type=pathlib.Path, default=ROOT / "models/heldout.txt")
    parser.add_argument("--wikitext", type=pathlib.Path, help="raw test file of WikiText-2")
    parser.add_argument("--out", type=pathlib.Path,
                        default=ROOT / "tests/fixtures/embedded/reference.json")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    result = {"model_sha256": sha256((args.model / "model.safetensors").read_bytes()),
              "window": WINDOW, "stride": WINDOW, "prompts": []}
    for text in PROMPTS:
        ids = tokenizer.encode(text).ids
        out, margin = greedy(model, ids)
        assert out == generated(model, ids), "two ways of greedy decoding differ"
        result["prompts"].append({"text": text, "ids": ids, "greedy": out,
                                  "greedy_text": tokenizer.decode(out),
                                  "margin": round(margin, 6)})
    heldout = tokenizer.encode(args.heldout.read_text(encoding="utf-8")).ids
    first = heldout[:WINDOW]
    nll = window_nll(model, torch.tensor([first]))[0].tolist()
    result["first_window"] = {"ids": first, "nll": [round(v, 6) for v in nll]}
    result["heldout"] = perplexity(model, tokenizer, args.heldout)
    if args.wikitext:
        result["wikitext2"] = perplexity(model, tokenizer, args.wikitext)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = json.dumps(result, indent=1)
    args.out.write_text(lines + "\n", encoding="utf-8")
    print(json.dumps({k: result[k] for k in ("heldout", "wikitext2") if k in result}, indent=1))


if __name__ == "__main__":
    main()
