#!/usr/bin/env python3
"""Encoding speed and ids of Hugging Face tokenizers beside Pare's, on the same text, one thread.

    tokenizers_with_huggingface.py TEXT --data FOLDER [--pare BINARY] [--seconds S]

FOLDER holds gpt2/ (vocab.json, merges.txt), tiktoken/cl100k_base.tiktoken and llama2/tokenizer.json. The Unigram
vocabulary, 4,000 pieces, is trained on the front of TEXT here. Needs the package tokenizers; no test of the
repository needs it.

Hugging Face's figure is the best of its ways to encode without special ids: the whole text at once, and its
lines (as one batch) with and without offsets, after a first round that fills its cache. Pare's is `pare tokenize
--speed`: the median over whole texts. Both count processor time, of one thread. Exits with 1 when ids of the whole
text differ.
"""
import argparse
import base64
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from tokenizers import (Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers)  # noqa: E402

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def gpt2(folder):
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_letters():
    """The printable letter that stands for each byte in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {}, 256
    for byte in range(256):
        letters[byte] = chr(byte) if byte in plain else chr(extra)
        extra += byte not in plain
    return letters


def two_parts(token, ranks):
    """The merge that makes a token: what is left of it when every merge of lower rank is done."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 1 << 30))
        parts[best:best + 2] = [parts[best] + parts[best + 1]]
    return parts


def tiktoken(path):
    """A rank file as the vocabulary and merge list of a byte-level BPE."""
    ranks = {}
    for line in path.read_text().splitlines():
        text, rank = line.split()
        ranks[base64.b64decode(text)] = int(rank)
    letters = byte_letters()

    def spelled(token):
        return "".join(letters[b] for b in token)

    vocab = {spelled(token): rank for token, rank in ranks.items()}
    merges = [tuple(map(spelled, two_parts(token, ranks))) for token, _ in sorted(ranks.items(), key=lambda x: x[1])
              if len(token) > 1]
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(CL100K), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tokenizer_json(path):
    """The file, with merges as pairs: its lines are ambiguous where a token is or holds a space, and refused."""
    document = json.loads(path.read_text())
    vocab = document["model"]["vocab"]

    def pair(line):
        cuts = [i for i, c in enumerate(line) if c == " " and line[:i] in vocab and line[i + 1:] in vocab]
        return [line[:cuts[0]], line[cuts[0] + 1:]]

    document["model"]["merges"] = [pair(m) if isinstance(m, str) else m for m in document["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(document))


def unigram(text):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(text[:300_000].splitlines(), trainers.UnigramTrainer(
        vocab_size=4000, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False))
    return tokenizer


def huggingface_speed(tokenizer, text, seconds):
    """Bytes a second of the fastest way, and its name."""
    lines = text.splitlines(keepends=True)
    ways = {"whole": lambda: tokenizer.encode(text, add_special_tokens=False),
            "lines": lambda: tokenizer.encode_batch(lines, add_special_tokens=False),
            "lines, no offsets": lambda: tokenizer.encode_batch_fast(lines, add_special_tokens=False)}
    best = (0.0, "")
    for name, way in ways.items():
        way()
        took = []
        while len(took) < 3 or sum(took) < seconds:
            begin = time.process_time()
            way()
            took.append(time.process_time() - begin)
        best = max(best, (len(text.encode()) / statistics.median(took), name))
    return best


def pare(binary, tokenizer, text, *flags):
    command = [binary, "tokenize", str(tokenizer), "--file", str(text), "--no-special", "--json", "--quiet", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--pare", default="build/release/pare")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement of Hugging Face's")
    args = parser.parse_args()
    text = pathlib.Path(args.text).read_bytes().decode("utf-8")
    different = 0
    print(f"{args.text}: {len(text.encode()) / 1e6:.2f} MB")
    print("| vocabulary | Hugging Face MB/s | Pare MB/s | times | ids |")
    with tempfile.TemporaryDirectory() as folder:
        trained = pathlib.Path(folder) / "tokenizer.json"
        unigram(text).save(str(trained))
        rows = [("gpt2, byte-level BPE", gpt2(args.data / "gpt2"), args.data / "gpt2"),
                ("cl100k, byte-level BPE", tiktoken(args.data / "tiktoken/cl100k_base.tiktoken"),
                 args.data / "tiktoken/cl100k_base.tiktoken"),
                ("llama2, SentencePiece BPE", tokenizer_json(args.data / "llama2/tokenizer.json"),
                 args.data / "llama2/tokenizer.json"),
                ("trained, Unigram", Tokenizer.from_file(str(trained)), trained)]
        for name, tokenizer, path in rows:
            theirs, way = huggingface_speed(tokenizer, text, args.seconds)
            ours = pare(args.pare, path, args.text, "--speed")["bytes_per_second"]
            same = pare(args.pare, path, args.text)["ids"] == tokenizer.encode(text, add_special_tokens=False).ids
            different += not same
            print(f"| {name} | {theirs / 1e6:.2f} ({way}) | {ours / 1e6:.1f} | {ours / theirs:.0f} | "
                  f"{'equal' if same else 'DIFFERENT'} |", flush=True)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
