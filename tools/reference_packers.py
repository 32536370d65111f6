"""The packers of other programs, run from their published sources.

GPTQModel and AutoAWQ need a long list of packages (and often a GPU) to be imported, but their packing
and unpacking are a few functions of PyTorch. They are taken out of the unpacked source distributions
by name and run as they are:

    pip download --no-deps --no-binary :all: gptqmodel autoawq      (then unpack)
    pip download --no-deps bitsandbytes                             (a wheel; unzip)

Needs PyTorch and NumPy. Used by make_packed_fixtures.py and check_exports.py; never by a test.
"""
import ast
import math
import sys
import types

import numpy as np
import torch


def functions_from(path, names, **namespace):
    """The functions of these names from a source file, methods included, decorators left out."""
    tree = ast.parse(open(path).read())
    wanted = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in names]
    first = {}
    for node in wanted:
        first.setdefault(node.name, node)
        node.decorator_list = []
        node.returns = None
        for a in node.args.args + node.args.kwonlyargs:
            a.annotation = None
    module = ast.Module(body=[first[n] for n in names], type_ignores=[])
    space = {"torch": torch, "t": torch, "np": np, "math": math, **namespace}
    exec(compile(module, path, "exec"), space)
    return space


class Module(types.SimpleNamespace):
    """Stands in for the packers' layer: a place for buffers."""

    def register_buffer(self, name, value, persistent=True):
        setattr(self, name, value)


class _NoLimits:
    def threadpool_limits(self, n):
        import contextlib
        return contextlib.nullcontext()


class _Conv:
    pass


class Gptq:
    def __init__(self, source):
        nn = types.SimpleNamespace(Embedding=_Conv, Module=object)
        fake = types.SimpleNamespace(pytorch_utils=types.SimpleNamespace(Conv1D=_Conv))
        layer = source + "/gptqmodel/nn_modules/qlinear/__init__.py"
        self.layer = functions_from(
            layer, ["_torch_right_shift", "_torch_left_shift", "pack_original", "dequantize_weight",
                    "_dequantize_from_codes"],
            nn=nn, transformers=fake, _ConvNd=_Conv, THREADPOOLCTL=_NoLimits())
        self.dequant = functions_from(source + "/gptqmodel/utils/model_dequant.py",
                                      ["unpack_cols", "pack_cols", "_shift_gptq_qzeros", "_unpack_cols_3bit",
                                       "_pack_cols_3bit", "_require_int32_words_for_3bit"],
                                      PLANAR_BITS=(5, 6, 7))

    def _layer(self, bits, **buffers):
        shifts = {3: [[0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0],
                      [0, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31],
                      [0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0]]}.get(bits)
        wf = (torch.tensor(shifts, dtype=torch.int32).reshape(1, 3, 12) if shifts else
              torch.tensor(list(range(0, 32, bits)), dtype=torch.int32).unsqueeze(0))
        m = Module(bits=bits, maxq=2**bits - 1, pack_factor=32 // bits, pack_dtype_bits=32,
                   pack_dtype=torch.int32, pack_np_math_dtype=np.uint32, pack_np_dtype=np.int32,
                   planar=False, dequant_dtype=torch.int16 if bits == 8 else torch.int8, bias=None,
                   wf_unsqueeze_zero=wf.unsqueeze(0), wf_unsqueeze_neg_one=wf.unsqueeze(-1),
                   _init_wf_unsqueeze_buffers=lambda: None, **buffers)
        m._dequantize_from_codes = lambda w, z, num_itr: self.layer["_dequantize_from_codes"](
            m, w, z, num_itr)
        return m

    def pack(self, weight, scales, zeros, g_idx, bits):
        """weight (out, in), scales and zeros (out, groups) -> qweight, qzeros (v2), scales, g_idx."""
        m = self._layer(bits, g_idx=g_idx)
        self.layer["pack_original"](m, types.SimpleNamespace(weight=types.SimpleNamespace(data=weight),
                                                             bias=None), scales, zeros, g_idx)
        return m.qweight, m.qzeros, m.scales, m.g_idx.to(torch.int32)

    def v1(self, qzeros, bits):
        if bits == 3:
            return self.dequant["_shift_gptq_qzeros"](qzeros, 3, delta=-1)
        one = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}[bits]
        return qzeros - one  # wraps, as the packer's own subtraction does

    def v2(self, qzeros, bits):
        if bits == 3:
            return self.dequant["_shift_gptq_qzeros"](qzeros, 3, delta=1)
        return qzeros + {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}[bits]

    def values(self, qweight, qzeros_v2, scales, g_idx, bits):
        """(out, in) in f32."""
        m = self._layer(bits, qweight=qweight, qzeros=qzeros_v2, scales=scales.float(), g_idx=g_idx,
                        in_features=g_idx.numel())
        return self.layer["dequantize_weight"](m).T.contiguous()


class Awq:
    def __init__(self, source):
        self.packing = functions_from(source + "/awq/utils/packing_utils.py",
                                      ["unpack_awq", "reverse_awq_order", "dequantize_gemm"],
                                      AWQ_REVERSE_ORDER=[0, 4, 1, 5, 2, 6, 3, 7])
        self.linear = functions_from(source + "/awq/modules/linear/gemm.py", ["from_linear"],
                                     get_best_device=lambda: "cpu")

    def pack(self, weight, scales, zeros, group):
        """weight (out, in), scales and zeros (groups, out) -> qweight, qzeros, scales."""
        linear = types.SimpleNamespace(in_features=weight.shape[1], out_features=weight.shape[0],
                                       bias=None, weight=types.SimpleNamespace(data=weight,
                                                                               device="cpu"))
        make = lambda w_bit, group_size, *rest: Module(w_bit=w_bit, group_size=group_size,
                                                       in_features=linear.in_features)
        m = self.linear["from_linear"](make, linear, 4, group, False, scales, zeros)
        return m.qweight, m.qzeros, m.scales

    def values(self, qweight, qzeros, scales, group):
        """(out, in) in f32."""
        return self.packing["dequantize_gemm"](qweight, qzeros, scales.float(), 4,
                                               group).T.contiguous()


class Bitsandbytes:
    def __init__(self, folder):
        sys.path.insert(0, folder)
        import bitsandbytes.functional
        from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
        self.f = bitsandbytes.functional
        self.generic = _dequantize_4bit_compute

    def pack(self, weight, block, kind, nested):
        """The planes by suffix, and the values (out, in) in f32."""
        codes, state = self.f.quantize_4bit(weight, blocksize=block, compress_statistics=nested,
                                            quant_type=kind)
        planes = {"weight": codes}
        for key, value in state.as_dict(packed=True).items():
            planes["weight." + key] = value
        return planes, self._decode(codes, state)

    # The generic implementation, which is also what the CUDA kernels compute. The CPU kernel of
    # release 0.50.2 takes a wrong absmax where a block crosses the end of a row.
    def _decode(self, codes, state):
        absmax = state.absmax
        if state.nested:
            absmax = self.f.dequantize_blockwise(absmax, state.state2) + state.offset
        return self.generic(codes.reshape(-1), absmax.float(), state.code, state.blocksize,
                            state.shape, torch.float32)

    def values(self, planes):
        """From planes by suffix ("weight", "weight.absmax", ...)."""
        stats = {k.removeprefix("weight."): v.clone() for k, v in planes.items() if k != "weight"}
        return self._decode(planes["weight"], self.f.QuantState.from_dict(stats, device="cpu"))
