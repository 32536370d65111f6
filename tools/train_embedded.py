#!/usr/bin/env python3
"""Train the embedded model, models/pare-tales, or a larger one: a Llama on children's stories and novels.

    python3 -m venv env
    env/bin/pip install torch transformers tokenizers safetensors numpy zstandard
    env/bin/python tools/train_embedded.py --corpus DIR --work DIR --out models/pare-tales --minutes 70

The corpus folder holds train-stories, train-novels-1, train-novels-2, valid and test (.txt.zst,
documents separated by a line <|endoftext|>) and manifest.tsv. Steps:

  1. A byte-level BPE vocabulary of 3,072 tokens (GPT-2 splitting) is trained on every second story
     and every eighth novel of the first novel file.
  2. The corpus is encoded to 16-bit ids; every document ends with id 0.
  3. A decoder of 3.9 million parameters is trained with AdamW; batches are rows at random places,
     60 % from the stories and 40 % from the novels (most of the stories by length are whole books:
     --tale-share says how many of the story rows are to come from short ones). The learning rate warms up, stays constant and
     falls linearly to zero over the last fifth of the time. The schedule counts wall time, because
     the pace of a shared machine does.
  4. The weights, rounded to bfloat16, are measured, written as a Hugging Face Llama checkpoint with
     its model card and credits, and read back with Transformers: logits must agree within 1e-4.

`--shape 512 1536 6 8 4 --grow models/pare-tales` gives the 20 million parameters of the quality tables
(docs/results), grown from the embedded model; it is too large for the repository and is trained
again by whoever wants it.

The work folder keeps the ids and a checkpoint every five minutes; the same command resumes, and
after the end of a run it only measures and exports again. To end a run early create a file FINISH
in the work folder: the rate then falls to zero over the next tenth of the whole.
"""
import argparse
import csv
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
import zstandard
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# Every inner size divides by 128, so that each group size up to 128 fits every matrix.
VOCAB, DIM, INNER, LAYERS, HEADS, KV_HEADS, CONTEXT = 3072, 256, 768, 4, 8, 4, 512
HEAD_DIM, THETA, EPS = DIM // HEADS, 10000.0, 1e-5
END = "<|endoftext|>"  # id 0: begins nothing, ends every document
TRAIN_FILES = ("train-stories", "train-novels-1", "train-novels-2")
STORY_SHARE = 0.6
TALE_TOKENS = 8192  # a story document of at most so many tokens is a tale, a longer one is a book
WARMUP_STEPS = 200
STABLE_SHARE = 0.8  # of the time, at the full rate
CHUNK = 200_000  # characters encoded at once
SAVE_SECONDS = 300


# ---- data ----------------------------------------------------------------------------------------


def documents(folder, name):
    with open(folder / f"{name}.txt.zst", "rb") as f:
        reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(f)
        text = reader.read().decode("utf-8")
    return [d.strip("\n") for d in text.split(f"\n{END}\n") if d.strip()]


def load_tokenizer(args):
    """The vocabulary of the work folder, trained first if it is not there."""
    path = args.work / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    sample = documents(args.corpus, TRAIN_FILES[0])[::2] + documents(args.corpus, TRAIN_FILES[1])[::8]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator((d[:CHUNK] for d in sample), trainer)
    assert tokenizer.get_vocab_size() == VOCAB and tokenizer.token_to_id(END) == 0
    tokenizer.save(str(path))
    return tokenizer


def encode(args, tokenizer, name):
    """Token ids of one corpus file, as a read-only memory map."""
    path = args.work / f"{name}.u16"
    if not path.exists():
        ids = []
        for document in documents(args.corpus, name):
            for at in range(0, len(document), CHUNK):
                ids.extend(tokenizer.encode(document[at:at + CHUNK]).ids)
            ids.append(0)
        np.asarray(ids, dtype=np.uint16).tofile(path)
    return np.memmap(path, dtype=np.uint16, mode="r")


def split_stories(stories):
    """(tales, books): the documents of at most TALE_TOKENS tokens, and the longer ones."""
    ends = np.flatnonzero(stories == 0) + 1
    lengths = np.diff(ends, prepend=0)
    short = np.repeat(lengths <= TALE_TOKENS, lengths)
    return stories[short], stories[~short]


def batches(sources, rows, tale_share, rng):
    """Endless (inputs, targets), each (rows, CONTEXT); sources = (stories, novels, novels).
    A share of the story rows comes from tales; without one every place of the stories is as likely."""
    stories, novels = sources[0], np.concatenate(sources[1:])
    tales, books = split_stories(stories)
    while True:
        block = []
        for _ in range(rows):
            source = stories if rng.random() < STORY_SHARE else novels
            if source is stories and tale_share is not None:
                source = tales if rng.random() < tale_share else books
            at = rng.integers(0, len(source) - CONTEXT - 1)
            block.append(source[at:at + CONTEXT + 1].astype(np.int64))
        block = torch.from_numpy(np.stack(block))
        yield block[:, :-1], block[:, 1:]


# ---- model ---------------------------------------------------------------------------------------


def rms(x, weight):
    return F.rms_norm(x, (DIM,), weight, EPS)


def rotate(x, cos, sin):
    """Rotary positions in the half-split layout of Hugging Face."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def linear(inputs, outputs):
    return torch.nn.Linear(inputs, outputs, bias=False)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm = torch.nn.Parameter(torch.ones(DIM))
        self.post_attention_layernorm = torch.nn.Parameter(torch.ones(DIM))
        self.q_proj, self.o_proj = linear(DIM, DIM), linear(DIM, DIM)
        self.k_proj = linear(DIM, KV_HEADS * HEAD_DIM)
        self.v_proj = linear(DIM, KV_HEADS * HEAD_DIM)
        self.gate_proj, self.up_proj = linear(DIM, INNER), linear(DIM, INNER)
        self.down_proj = linear(INNER, DIM)

    def forward(self, x, cos, sin):  # x (batch, tokens, DIM)
        b, t, _ = x.shape

        def split(y, heads):
            return y.view(b, t, heads, HEAD_DIM).transpose(1, 2)

        n = rms(x, self.input_layernorm)
        q = rotate(split(self.q_proj(n), HEADS), cos, sin)
        k = rotate(split(self.k_proj(n), KV_HEADS), cos, sin)
        v = split(self.v_proj(n), KV_HEADS)
        k, v = (y.repeat_interleave(HEADS // KV_HEADS, dim=1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(y.transpose(1, 2).reshape(b, t, DIM))
        n = rms(x, self.post_attention_layernorm)
        return x + self.down_proj(F.silu(self.gate_proj(n)) * self.up_proj(n))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, DIM)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = torch.nn.Parameter(torch.ones(DIM))
        for name, p in self.named_parameters():
            if p.dim() == 2:  # what writes into the residual stream starts smaller
                writes = "o_proj" in name or "down" in name
                torch.nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if writes else 0.02)
        frequency = THETA ** (torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        angle = torch.arange(CONTEXT)[:, None] / frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids):  # (batch, tokens) -> logits (batch, tokens, VOCAB)
        t = ids.shape[1]
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos[:t].to(x.dtype), self.sin[:t].to(x.dtype))
        return F.linear(rms(x, self.norm), self.embed.weight)


@torch.no_grad()
def evaluate(model, ids, windows=None):
    """(mean nats per scored token, scored tokens): windows of CONTEXT tokens that do not overlap,
    every token of a window but the first is scored."""
    ids = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    whole = len(ids) // CONTEXT
    parts = list(ids[:whole * CONTEXT].view(whole, CONTEXT)[:windows].split(8))
    if windows is None and len(ids) - whole * CONTEXT > 1:
        parts.append(ids[None, whole * CONTEXT:])
    total, count = 0.0, 0
    for part in parts:
        logits, target = model(part)[:, :-1].reshape(-1, VOCAB), part[:, 1:].reshape(-1)
        total += F.cross_entropy(logits, target, reduction="none").double().sum().item()
        count += target.numel()
    return total / count, count


# ---- training ------------------------------------------------------------------------------------


class Schedule:
    """Learning rate by wall time; `finish` turns the rest of the run into the decay."""

    def __init__(self, minutes):
        self.budget = minutes * 60.0
        self.stable_end = STABLE_SHARE * self.budget

    def finish(self, seconds):
        if seconds < self.stable_end:
            self.stable_end, self.budget = seconds, seconds / 0.9

    def scale(self, step, seconds):
        warm = min(1.0, (step + 1) / WARMUP_STEPS)
        if seconds <= self.stable_end:
            return warm
        return warm * max(0.0, 1 - (seconds - self.stable_end) / (self.budget - self.stable_end))


def make_optimizer(model, rate):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                              {"params": vectors, "weight_decay": 0.0}], lr=rate, betas=(0.9, 0.95))


def step_once(model, optimizer, x, y, precision):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(x)
    loss = F.cross_entropy(logits.float().view(-1, VOCAB), y.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def train(args, model, sources, valid):
    """Trains to the end of the schedule. Returns step and seconds over all resumed parts, and for
    each part its last step and tale share."""
    optimizer, path = make_optimizer(model, args.lr), args.work / "checkpoint.pt"
    state = {"step": 0, "seconds": 0.0, "parts": []}

    def save(seconds):
        state["seconds"] = seconds
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "state": state}, path)

    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]
    schedule, base, first = Schedule(args.minutes), state["seconds"], state["step"]
    rng = np.random.default_rng(args.seed + first)
    source = batches(sources, args.batch, args.tale_share, rng)
    start = saved_at = time.time()
    smooth = None
    while True:
        seconds = base + time.time() - start
        if (args.work / "FINISH").exists():
            schedule.finish(seconds)
        if seconds >= schedule.budget:
            break
        rate = args.lr * schedule.scale(state["step"], seconds)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = step_once(model, optimizer, *next(source), args.precision)
        smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
        state["step"] += 1
        if state["step"] % 50 == 0:
            tokens = state["step"] * args.batch * CONTEXT
            print(f"step {state['step']} tokens {tokens} seconds {seconds:.0f} loss {smooth:.4f} "
                  f"lr {rate:.2e}", flush=True)
        if time.time() - saved_at > SAVE_SECONDS:
            saved_at = time.time()
            save(seconds)
            print(f"valid {evaluate(model, valid, 40)[0]:.4f}", flush=True)
    if state["step"] > first:
        state["parts"] = state.get("parts", []) + [[state["step"], args.tale_share]]
        save(seconds)
        (args.work / "FINISH").unlink(missing_ok=True)
    return state


# ---- export --------------------------------------------------------------------------------------


def round_to_bf16(model):
    """What is measured and compared is what is written."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.bfloat16().float())


# ---- growing -------------------------------------------------------------------------------------


def split_inputs(w, rng):
    """(out, in) -> (out, 2 in): W x = A x + B x with A + B = W, drawn unlike so that both learn."""
    share = 0.5 + 0.1 * torch.randn(w.shape, generator=rng)
    return torch.cat((w * share, w * (1 - share)), dim=1)


def grow_heads(w, heads, zeros, rng):
    """Rows of q or k for heads twice as wide: frequency i of the small head is frequency 2 i of the
    large one, the odd frequencies begin near zero."""
    small = w.shape[0] // heads
    wide = torch.randn(heads, 2, small, w.shape[1], generator=rng) * zeros
    wide[:, :, ::2] = w.view(heads, 2, small // 2, w.shape[1])
    return wide.reshape(2 * w.shape[0], w.shape[1])


@torch.no_grad()
def grow(model, folder, seed):
    """Starts from a smaller trained model of half the widths, the same heads and at most as many
    layers: wide activations are the small ones twice, added layers add nothing at first (Net2Net,
    Chen, Goodfellow and Shlens 2016, arXiv:1511.05641)."""
    from safetensors.torch import load_file

    small = {k: v.float() for k, v in load_file(str(folder / "model.safetensors")).items()}
    config = json.loads((folder / "config.json").read_text())
    assert (config["hidden_size"], config["intermediate_size"]) == (DIM // 2, INNER // 2)
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (HEADS, KV_HEADS)
    rng = torch.Generator().manual_seed(seed)
    twice = lambda w: torch.cat((w, w), dim=0)
    model.embed.weight.copy_(twice(small["model.embed_tokens.weight"].T).T)
    model.norm.copy_(twice(small["model.norm.weight"]) / 2)  # the head adds up both halves
    for i, block in enumerate(model.blocks):
        if i >= config["num_hidden_layers"]:
            block.o_proj.weight.mul_(0.01)
            block.down_proj.weight.mul_(0.01)
            continue
        at = f"model.layers.{i}."
        block.input_layernorm.copy_(twice(small[at + "input_layernorm.weight"]))
        block.post_attention_layernorm.copy_(twice(small[at + "post_attention_layernorm.weight"]))
        part = {n: small[f"{at}self_attn.{n}.weight"] for n in ("q_proj", "k_proj", "v_proj", "o_proj")}
        # Scores are divided by the root of a head size twice as large.
        block.q_proj.weight.copy_(split_inputs(
            grow_heads(part["q_proj"], HEADS, 0.02, rng) * math.sqrt(2), rng))
        block.k_proj.weight.copy_(split_inputs(
            grow_heads(part["k_proj"], KV_HEADS, 0.02, rng), rng))
        v = part["v_proj"].view(KV_HEADS, HEAD_DIM // 2, -1)
        block.v_proj.weight.copy_(split_inputs(
            torch.cat((v, v), dim=1).reshape(KV_HEADS * HEAD_DIM, -1), rng))
        o = part["o_proj"].view(DIM // 2, HEADS, HEAD_DIM // 2)
        share = 0.5 + 0.1 * torch.randn(o.shape, generator=rng)
        wide = torch.cat((o * share, o * (1 - share)), dim=2).reshape(DIM // 2, DIM)
        block.o_proj.weight.copy_(twice(wide))
        for name in ("gate_proj", "up_proj"):
            w = twice(small[f"{at}mlp.{name}.weight"])
            getattr(block, name).weight.copy_(split_inputs(w, rng))
        w = split_inputs(small[f"{at}mlp.down_proj.weight"], rng)
        block.down_proj.weight.copy_(twice(w))


def tensors_of(model):
    tensors = {"model.embed_tokens.weight": model.embed.weight, "model.norm.weight": model.norm}
    for i, block in enumerate(model.blocks):
        at = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = getattr(block, name)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            tensors[f"{at}self_attn.{name}.weight"] = getattr(block, name).weight
        for name in ("gate_proj", "up_proj", "down_proj"):
            tensors[f"{at}mlp.{name}.weight"] = getattr(block, name).weight
    return {k: v.detach().to(torch.bfloat16).contiguous() for k, v in tensors.items()}


def export(args, model):
    """Hugging Face Llama checkpoint with its tokenizer; keys that 4.x and 5.x both read."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": DIM, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
        "vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "hidden_act": "silu",
        "rms_norm_eps": EPS, "rope_theta": THETA, "tie_word_embeddings": True,
        "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 0}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END,
        "clean_up_tokenization_spaces": False, "model_max_length": CONTEXT}
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors_of(model), str(args.out / "model.safetensors"), metadata={"format": "pt"})
    for name, value in (("config.json", config), ("tokenizer_config.json", tokenizer_config),
                        ("generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})):
        (args.out / name).write_text(json.dumps(value, indent=2) + "\n")
    (args.out / "tokenizer.json").write_bytes((args.work / "tokenizer.json").read_bytes())
    (args.out / "model.safetensors").chmod(0o644)


@torch.no_grad()
def verify(args, model, tokenizer, ids):
    """Transformers reads the export: same tokens, same logits in float32. Returns a greedy sample."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(args.out, dtype=torch.float32).eval()
    window = torch.from_numpy(np.asarray(ids[:CONTEXT], dtype=np.int64))[None]
    worst = (theirs(window).logits - model(window)).abs().max().item()
    assert worst < 1e-4, f"logits differ from Transformers by {worst}"
    prompt = "Once upon a time, there was a little"
    prompt_ids = AutoTokenizer.from_pretrained(args.out)(prompt)["input_ids"]
    assert prompt_ids == tokenizer.encode(prompt).ids
    print(f"largest difference of a logit from Transformers: {worst:.2e}", flush=True)
    out = theirs.generate(torch.tensor([prompt_ids]), max_new_tokens=120, do_sample=False,
                          attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long))
    return tokenizer.decode(out[0].tolist())


def measure(args, model, tokenizer):
    """{name: {tokens, nll, bits_per_byte}}; bytes are those of the documents without separators."""
    texts = {name: "".join(documents(args.corpus, name)) for name in ("valid", "test")}
    ids = {name: encode(args, tokenizer, name) for name in texts}
    if args.heldout:
        texts["heldout"] = args.heldout.read_text(encoding="utf-8")
        ids["heldout"] = np.asarray(tokenizer.encode(texts["heldout"]).ids, dtype=np.uint16)
    result = {}
    for name, text in texts.items():
        nll, scored = evaluate(model, ids[name])
        bits = nll * len(ids[name]) / math.log(2) / len(text.encode())
        result[name] = {"tokens": scored, "nll": nll, "bits_per_byte": bits}
    return result


# ---- model card ----------------------------------------------------------------------------------


def write_credits(args):
    """CREDITS.tsv: author, title, licence and source of every training document that has a title."""
    names = {f"{name}.txt" for name in TRAIN_FILES}
    with open(args.corpus / "manifest.tsv", encoding="utf-8", newline="") as f:
        rows = [r for r in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)
                if r["file"] in names and r["title"]]
    rows = sorted({(r["licence"], r["author"], r["title"], r["source_repo"]) for r in rows})
    lines = ["licence\tauthor\ttitle\tsource"] + ["\t".join(row) for row in rows]
    (args.out / "CREDITS.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


CARD = """# {name}

A small language model trained for Pare, so that every command has a really trained model to work on:
{parameters:,} parameters, Llama architecture, English children's stories and novels.

| | |
|---|---|
| layers, width, inner width | {layers}, {dim}, {inner} |
| query heads, key/value heads, head size | {heads}, {kv_heads}, {head_dim} |
| vocabulary | {vocab:,} tokens, byte-level BPE with the splitting of GPT-2; `{end}` (id 0) begins and ends |
| context | {context} tokens |
| embedding and head | one tied matrix |
| weights | bfloat16, one safetensors file |

## Data

| part | documents from | licence |
|---|---|---|
| stories (60 % of the tokens seen) | TinyStories (R. Eldan, Y. Li), head of the training split | [CDLA-Sharing-1.0](https://cdla.dev/sharing-1-0/) |
| | picture books of African Storybook and Pratham Books | CC BY 4.0, authors in `CREDITS.tsv` |
| | fairy tales of FairytaleQA (UCI School of Education and others) | Apache-2.0 (collection), texts in the public domain |
| | Oz books from llm-stylometry (Contextual Dynamics Laboratory) | MIT (collection), texts in the public domain |
| | children's books | public domain in the United States |
| novels (40 %) | English novels of the 19th and early 20th century | public domain in the United States |

`CREDITS.tsv` lists author, title, licence and source of every training document that has a title.
The texts were joined into plain paragraphs, markup was removed and duplicates were dropped; nothing
else was changed. TinyStories was itself written by a language model. Validation and test set are
whole documents of the same sources that the model has not seen. The text `models/heldout.txt` was
written for this project and is in no corpus.

## Training

    tools/train_embedded.py --corpus DIR --work DIR --out {out} --heldout models/heldout.txt --minutes {minutes:g}{shape}

{steps:,} steps of {batch} rows of {context} tokens: {seen:,} tokens seen, of {available:,} in the
corpus ({stories:,} in the stories), in {wall:.0f} minutes on two cores of a CPU shared with other
work. AdamW (0.9, 0.95), weight decay 0.1 on matrices, gradient norm at most 1, {precision} products
over float32 weights, peak rate {rate:g}: {warmup} steps of warm-up, constant for 80 % of the time,
then linear to zero. Seed {seed}. PyTorch {torch}.

Story rows, part by part of the run (it was resumed between them): {parts}. Tales are documents of at
most {tale_tokens:,} tokens.

## Losses

Weights as published (bfloat16, widened to float32). Windows of {context} tokens that do not overlap,
no token put in front; in each window every token but the first is scored. Bits per byte take the mean
over the scored tokens for all tokens, per byte of UTF-8 text.

| text | scored tokens | nats per token | perplexity | bits per byte |
|---|---|---|---|---|
{losses}

## A greedy sample

{sample}

## Intended use

Tests, demonstrations and measurements of model compression: small enough for a repository, trained
well enough that damage shows. It knows nothing, reasons about nothing, and repeats the views and
prejudices of old books; do not use it to inform or to entertain children.
"""


def write_card(args, model, state, counts, result, sample):
    losses = "\n".join(
        f"| {name} | {r['tokens']:,} | {r['nll']:.4f} | {math.exp(r['nll']):.2f} | "
        f"{r['bits_per_byte']:.4f} |" for name, r in result.items())
    parts, since = [], 0
    for step, share in state["parts"]:
        how = "evenly over all stories" if share is None else f"{share:.0%} from tales, rest from books"
        parts.append(f"steps {since + 1:,} to {step:,} {how}")
        since = step
    quoted = "\n".join(("> " + line).rstrip() for line in sample.replace(END, "").splitlines())
    card = CARD.format(
        name=args.out.name, out=args.out if args.shape is None else "OUT",
        shape=("" if args.shape is None else " --shape " + " ".join(map(str, args.shape)))
        + (f" --grow {args.grow}" if args.grow else ""),
        parameters=sum(p.numel() for p in model.parameters()), layers=LAYERS, dim=DIM, inner=INNER,
        heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, vocab=VOCAB, end=END, context=CONTEXT,
        minutes=args.minutes, steps=state["step"], batch=args.batch,
        seen=state["step"] * args.batch * CONTEXT, available=sum(counts), stories=counts[0],
        wall=state["seconds"] / 60, precision=args.precision, rate=args.lr, warmup=WARMUP_STEPS,
        seed=args.seed, torch=torch.__version__, losses=losses, sample=quoted,
        parts="; ".join(parts), tale_tokens=TALE_TOKENS)
    (args.out / "README.md").write_text(card, encoding="utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True, help="folder of the corpus")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="ids and checkpoint")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the model")
    parser.add_argument("--heldout", type=pathlib.Path, help="a text to measure as well")
    parser.add_argument("--minutes", type=float, default=75, help="wall time of the training")
    parser.add_argument("--shape", type=int, nargs=5, metavar=("DIM", "INNER", "LAYERS", "HEADS", "KV"),
                        help="another size of model; the default is that of the embedded one")
    parser.add_argument("--grow", type=pathlib.Path, metavar="MODEL",
                        help="start from a trained model of half the widths")
    parser.add_argument("--batch", type=int, default=16, help="rows of a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--tale-share", type=float,
                        help="share of the story rows that comes from short documents")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["bf16", "f32"], default="bf16")
    return parser.parse_args()


def main():
    global DIM, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM
    args = parse_arguments()
    if args.shape:
        DIM, INNER, LAYERS, HEADS, KV_HEADS = args.shape
        HEAD_DIM = DIM // HEADS
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args)
    sources = [encode(args, tokenizer, name) for name in TRAIN_FILES]
    valid = encode(args, tokenizer, "valid")
    model = Model()
    counts = [len(s) for s in sources]
    print(f"parameters {sum(p.numel() for p in model.parameters())}, training tokens {counts}, "
          f"valid {len(valid)}", flush=True)
    if args.grow:
        grow(model, args.grow, args.seed)
        print(f"grown from {args.grow}: valid {evaluate(model, valid, 40)[0]:.4f}", flush=True)
    state = train(args, model, sources, valid)
    model.eval()
    round_to_bf16(model)
    export(args, model)
    sample = verify(args, model, tokenizer, valid)
    result = measure(args, model, tokenizer)
    write_credits(args)
    write_card(args, model, state, counts, result, sample)
    print(json.dumps({**state, **result}), flush=True)


if __name__ == "__main__":
    main()
