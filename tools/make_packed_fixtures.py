#!/usr/bin/env python3
"""tests/fixtures/packed: small matrices packed by GPTQModel, AutoAWQ and bitsandbytes.

    tools/make_packed_fixtures.py GPTQMODEL_SOURCE AUTOAWQ_SOURCE BITSANDBYTES_FOLDER OUT

Each file holds the planes of one module named "m" and "expected", the values (out, in) in f32 as the
packers' own code decodes them. Sources and how to get them: tools/reference_packers.py.
"""
import sys

import torch
from safetensors.torch import save_file

from reference_packers import Awq, Bitsandbytes, Gptq


def grouped(rows, cols, group, bits, seed, symmetric=False):
    """Weights on a grid of f16 scales and integer zero points, so that packing is exact."""
    g = torch.Generator().manual_seed(seed)
    groups = cols // group
    scales = (torch.rand(rows, groups, generator=g) * 0.02 + 0.001).half().float()
    zeros = torch.randint(1, 2**bits, (rows, groups), generator=g).float()
    if symmetric:
        zeros[:] = 2**(bits - 1)
    codes = torch.randint(0, 2**bits, (rows, cols), generator=g).float()
    return codes, scales, zeros


def gptq_cases(gptq, out):
    for name, bits, group, order, v2, symmetric in [
            ("gptq2", 2, 32, False, True, False), ("gptq3", 3, 32, False, True, False),
            ("gptq4", 4, 32, False, False, True), ("gptq8", 8, 64, False, True, False),
            ("gptq3_v1", 3, 32, False, False, False), ("gptq4_order", 4, 16, True, False, False)]:
        rows, cols = 32, 64
        codes, scales, zeros = grouped(rows, cols, group, bits, len(name) + bits, symmetric)
        if name == "gptq4_order":
            zeros[3, 1] = 0  # in version 1 this borrows from its neighbours
        g_idx = torch.arange(cols, dtype=torch.int64) // group
        if order:
            g_idx = g_idx[torch.randperm(cols, generator=torch.Generator().manual_seed(5))]
        weight = (codes - zeros[:, g_idx]) * scales[:, g_idx]
        qweight, qzeros, s, index = gptq.pack(weight, scales, zeros, g_idx, bits)
        expected = gptq.values(qweight, qzeros, s, g_idx, bits)
        assert torch.equal(expected, weight), name
        stored = qzeros if v2 else gptq.v1(qzeros, bits)
        save_file({"m.qweight": qweight, "m.qzeros": stored, "m.scales": s, "m.g_idx": index,
                   "expected": expected}, f"{out}/{name}.safetensors")


def awq_case(awq, out):
    codes, scales, zeros = grouped(32, 64, 32, 4, 11)
    index = torch.arange(64) // 32
    weight = (codes - zeros[:, index]) * scales[:, index]
    qweight, qzeros, s = awq.pack(weight, scales.T.contiguous(), zeros.T.contiguous(), 32)
    expected = awq.values(qweight, qzeros, s, 32)
    assert torch.equal(expected, weight)
    save_file({"m.qweight": qweight, "m.qzeros": qzeros, "m.scales": s, "expected": expected},
              f"{out}/awq.safetensors")


def bitsandbytes_cases(bnb, out):
    for name, kind, block, nested, shape in [("nf4", "nf4", 64, False, (16, 64)),
                                             ("nf4_nested", "nf4", 64, True, (16, 64)),
                                             ("nf4_across", "nf4", 64, True, (10, 96)),
                                             ("fp4", "fp4", 64, False, (16, 64))]:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(len(name)))
        planes, expected = bnb.pack(weight, block, kind, nested)
        save_file({**{"m." + k: v.contiguous() for k, v in planes.items()}, "expected": expected},
                  f"{out}/{name}.safetensors")
    weight = torch.randn((16, 64), generator=torch.Generator().manual_seed(8))
    codes, scb, _ = bnb.f.int8_vectorwise_quant(weight.half())
    save_file({"m.weight": codes, "m.SCB": scb, "m.weight_format": torch.tensor(0, dtype=torch.uint8),
               "expected": codes.float() * (scb / 127).unsqueeze(1)}, f"{out}/int8.safetensors")


def main():
    gptqmodel, autoawq, bitsandbytes, out = sys.argv[1:]
    gptq_cases(Gptq(gptqmodel), out)
    awq_case(Awq(autoawq), out)
    bitsandbytes_cases(Bitsandbytes(bitsandbytes), out)


if __name__ == "__main__":
    main()
