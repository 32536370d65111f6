#!/usr/bin/env python3
"""Write tests/fixtures/solver/gptq.safetensors: small matrices and what a plain GPTQ in double makes of them.

    tools/make_solver_fixtures.py [--out tests/fixtures/solver/gptq.safetensors]

The reference follows the definition (optimal brain quantization in a fixed column order): before each column the
damped Gram matrix of the columns that are left is inverted anew, the column is rounded, and the others move by
-(w - q) / inv[0, 0] * inv[0, :]. No Cholesky factor, no blocks, no floats. Groups are fitted to their extent
(--range absmax), scales rounded to bf16. Needs numpy and safetensors.
"""
import argparse
import pathlib

import numpy as np
from safetensors.numpy import save_file

ROWS, COLS, TOKENS, DAMPING = 10, 96, 300, 0.01
CASES = [  # scheme, order
    ("int4:g32", "fixed"),
    ("int4:g32", "none"),
    ("int4:channel", "fixed"),
    ("int3:g48", "none"),
    ("int2:g16", "fixed"),
    ("int4:g24:asym", "none"),
    ("int4:g32:asym", "fixed"),
    ("int3:g32:min", "fixed"),
    ("int3:g32:min", "none"),
]


def bf16(x):
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


class Grid:
    """The stored values of one group of each row: fit to an extent, then round."""

    def __init__(self, bits, offset, values):
        self.low, self.high, self.offset = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, offset
        low, high = np.minimum(values.min(1), 0), np.maximum(values.max(1), 0)
        if offset == "none":
            scale = np.maximum(-low, high) / self.high
        else:
            scale = (high - low) / (self.high - self.low)
        self.scale = bf16(scale.astype(np.float32))
        self.zero = np.zeros_like(scale)
        if offset == "asym":
            self.zero = np.clip(np.rint(self.low - low / self.scale), self.low, self.high)
        if offset == "min":
            self.minimum = bf16((-low).astype(np.float32))

    def round(self, w):
        if self.offset == "min":
            q = np.clip(np.rint((w + self.minimum) / self.scale), 0, self.high - self.low)
            return self.scale * q - self.minimum
        return self.scale * np.clip(np.rint(w / self.scale), self.low - self.zero, self.high - self.zero)


def gptq(weights, gram, scheme, order):
    words = scheme.split(":")
    bits = int(words[0][3:])
    group = COLS if words[1] == "channel" else int(words[1][1:])
    offset = words[2] if len(words) > 2 else "none"
    w = weights.astype(np.float64)
    h = gram.astype(np.float64) + DAMPING * np.mean(np.diag(gram).astype(np.float64)) * np.eye(COLS)
    columns = np.argsort(-np.diag(gram), kind="stable") if order == "fixed" else np.arange(COLS)
    grids = [Grid(bits, offset, w[:, g : g + group]) for g in range(0, COLS, group)]
    out = np.zeros_like(w)
    for step, j in enumerate(columns):
        if order == "none" and j % group == 0:
            grids[j // group] = Grid(bits, offset, w[:, j : j + group])
        left = columns[step:]
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        out[:, j] = grids[j // group].round(w[:, j])
        w[:, left] -= np.outer((w[:, j] - out[:, j]) / inverse[0, 0], inverse[0])
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/fixtures/solver/gptq.safetensors"))
    args = parser.parse_args()
    rng = np.random.default_rng(20)
    weights = (rng.standard_normal((ROWS, COLS)) * 0.05).astype(np.float32)
    mix = rng.standard_normal((COLS, COLS)) * (rng.random((COLS, 1)) ** 4 * 3)
    inputs = (rng.standard_normal((TOKENS, COLS)) @ mix + 0.3 * rng.standard_normal((TOKENS, COLS))).astype(np.float32)
    inputs[:, 7] *= 20  # an outlier channel
    gram = ((inputs.T.astype(np.float64) @ inputs.astype(np.float64)) / TOKENS).astype(np.float32)
    tensors = {"weights": weights, "gram": gram}
    for scheme, order in CASES:
        tensors[f"{scheme} {order}"] = gptq(weights, gram, scheme, order).astype(np.float32)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.out)
    print(f"{args.out}: {len(CASES)} cases, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
