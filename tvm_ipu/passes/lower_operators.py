"""Lower the operators that have a kernel template to that template's computation, weights packed.

lv = R.nn.conv2d(x, w, ...)      ->      lv = R.call_tir(conv2d, (x, packed_w), ...)
lv = R.matmul(x, w)              ->      lv = R.call_tir(dense, (x, packed_w), ...)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax, te

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import algorithms, computes
from tvm_ipu.kernels.dot import accumulator
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.templates import conv2d
from tvm_ipu.kernels.window import Window
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, rewrite, shape_of
from tvm_ipu.passes.simplify_transposes import permutation

ANCHOR = 4
"""TVM's pattern ``kOutEWiseFusable``: elementwise operators that follow are fused into the kernel."""

ELEMENTWISE = 0
"""TVM's pattern ``kElemWise``."""


def lower_operators(module: tvm.ir.IRModule, target: Target, winograd: bool = True) -> tvm.ir.IRModule:
    """Replace convolutions and matrix products by calls of packed kernels.

    Args:
        module: Module to rewrite.
        target: Chip to compile for.
        winograd: Whether convolutions may be computed by Winograd's minimal filtering.
    """
    rules: dict[str, Callable[[Rewriter, relax.Call, Target], relax.Expr | None]] = {
        "relax.nn.conv2d": partial(_conv2d, winograd=winograd),
        "relax.matmul": _matmul,
    }

    def rule(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
        lower = rules.get(op_name(call))
        return lower(rewriter, call, target) if lower else None

    return rewrite(module, rule)


def _conv2d(rewriter: Rewriter, call: relax.Call, target: Target, winograd: bool) -> relax.Expr | None:
    """Convolution in NHWC with OHWI weights, constant or not."""
    attrs = call.attrs
    if attrs.data_layout != "NHWC" or attrs.kernel_layout != "OHWI" or attrs.out_layout != "NHWC":
        return None
    x, weight = call.args
    channels, in_channels, groups = shape_of(weight)[0], shape_of(x)[3], int(attrs.groups)
    window: dict[str, Any] = {
        "stride": _pair(attrs.strides),
        "padding": tuple(int(p) for p in attrs.padding),
        "dilation": _pair(attrs.dilation),
        "out_dtype": str(call.ty.dtype),
    }
    if computes.is_depthwise(in_channels, channels, groups):
        lanes = computes.weight_lanes(str(x.ty.dtype), target)
        pack = partial(computes.pack_depthwise, lanes=lanes)
        pack_te = partial(computes.pack_depthwise_te, lanes=lanes)
        compute = partial(computes.depthwise_conv2d, **window)
        return call_te(rewriter, "depthwise_conv2d", compute, [x, _packed(rewriter, weight, pack, pack_te)])
    dot = find_dot(str(x.ty.dtype), str(weight.ty.dtype), target)
    filters = constant(weight) if winograd else None
    outputs = 0 if filters is None else _winograd_outputs(call, target, dot.lanes)
    if filters is not None and outputs:
        packed = make_constant(computes.pack_winograd(filters, dot.lanes, outputs))
        compute = partial(
            computes.winograd_conv2d,
            channels=channels,
            padding=window["padding"],
            out_dtype=window["out_dtype"],
        )
        return call_te(rewriter, "winograd_conv2d", compute, [x, packed])
    pack = partial(computes.pack_conv2d, dot=dot, groups=groups)
    pack_te = partial(computes.pack_conv2d_te, dot=dot, groups=groups)
    compute = partial(computes.conv2d, channels=channels, **window)
    return call_te(rewriter, "conv2d", compute, [x, _packed(rewriter, weight, pack, pack_te)])


def _winograd_outputs(call: relax.Call, target: Target, lanes: int) -> int:
    """Outputs, along each dimension, of the fastest algorithm for a convolution; 0 for the direct sum."""
    x, weight = call.args
    batch, height, width, _ = shape_of(x)
    channels, *kernel, depth = shape_of(weight)
    above, left, below, right = (int(p) for p in call.attrs.padding)
    window = Window(
        batch,
        (height, width),
        _pair(kernel),
        _pair(call.attrs.strides),
        (above, left, below, right),
        _pair(call.attrs.dilation),
    )
    groups, dtype = int(call.attrs.groups), str(x.ty.dtype)
    dtypes = dtype, str(weight.ty.dtype), accumulator(dtype)
    problem = conv2d.Problem(window, groups, depth, channels // groups, lanes, *dtypes)
    return algorithms.space(problem, target)[0].outputs


def _matmul(rewriter: Rewriter, call: relax.Call, target: Target) -> relax.Expr | None:
    """Product with a constant matrix, or of two tensors of rank 2 or more."""
    a, b = call.args
    out_dtype = str(call.ty.dtype)
    if min(len(shape_of(a)), len(shape_of(b))) < 2:
        return None
    matrix = constant(b)
    if matrix is not None and matrix.size == math.prod(matrix.shape[-2:]) and matrix.ndim <= len(shape_of(a)):
        depth, units = shape_of(b)[-2:]
        dot = find_dot(str(a.ty.dtype), str(b.ty.dtype), target)
        packed = make_constant(computes.pack_dense(matrix.reshape(depth, units), dot))
        compute = partial(computes.dense, units=units, out_dtype=out_dtype)
        return call_te(rewriter, "dense", compute, [a, packed])
    transposed = rewriter.value(b)
    if op_name(transposed) == "relax.permute_dims" and _swaps_last_two(transposed):
        compute = partial(computes.matmul, transpose_b=True, out_dtype=out_dtype)
        return call_te(rewriter, "matmul", compute, [a, transposed.args[0]])
    return call_te(rewriter, "matmul", partial(computes.matmul, out_dtype=out_dtype), [a, b])


def _packed(
    rewriter: Rewriter, weight: relax.Expr, pack: Callable[..., np.ndarray], pack_te: Callable[..., te.Tensor]
) -> relax.Expr:
    """Weights in a template's layout: packed now where they are constant, at run time otherwise."""
    value = constant(weight)
    if value is not None:
        return make_constant(pack(value))
    return rewriter.emit(call_te(rewriter, "pack_weights", pack_te, [weight]))


def call_te(
    rewriter: Rewriter,
    name: str,
    compute: Callable[..., te.Tensor],
    args: Sequence[relax.Expr],
    pattern: int = ANCHOR,
) -> relax.Expr:
    """A ``call_tir`` of the computation on ``args``; ``pattern`` says how TVM may fuse it."""
    tensors = [te.placeholder(shape_of(arg), str(arg.ty.dtype), name=f"a{i}") for i, arg in enumerate(args)]
    result = compute(*tensors)
    func = (
        te.create_prim_func([*tensors, result], index_dtype_override="int64")
        .with_attr("op_pattern", pattern)
        .with_attr("tirx.noalias", True)
    )
    func = func.without_attr("global_symbol")
    var = rewriter.builder.add_func(func, name)
    return relax.call_tir(var, list(args), relax.TensorType(computes.shape_of(result), result.dtype))


def _swaps_last_two(transpose: relax.Call) -> bool:
    axes = permutation(transpose)
    return axes[-2:] == [len(axes) - 1, len(axes) - 2] and axes[:-2] == list(range(len(axes) - 2))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
