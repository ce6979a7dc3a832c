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
from tvm import relax, te, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import algorithms, computes, nibbles, packing
from tvm_ipu.kernels.dot import Dot, accumulator
from tvm_ipu.kernels.isa import find_dot, storage_for, widens_slowly
from tvm_ipu.kernels.mathlib.lower import native_functions
from tvm_ipu.kernels.mathlib.piecewise import fit
from tvm_ipu.kernels.templates import conv2d
from tvm_ipu.kernels.window import Window
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, rewrite, shape_of
from tvm_ipu.passes.simplify_transposes import permutation

MAX_ROW_CHANNELS = 4
"""With more channels, groups that end with each tap waste little."""

WIDE_ROWS = 192
"""Rows of a product from which on weights of 8 bits are stored in 16. On Zen 5, that saves 0.004 cycles a
multiply-add; another byte from memory costs an eighth of a cycle, and the image grows."""

LARGEST = {"uint8": 255, "int8": 128, "int16": 2**15}
"""Largest absolute value of a left operand's elements, by their type."""

ANCHOR = 4
"""TVM's pattern ``kOutEWiseFusable``: elementwise operators that follow are fused into the kernel."""

ELEMENTWISE = 0
"""TVM's pattern ``kElemWise``."""

INJECTIVE = 2
"""TVM's pattern ``kInjective``."""


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
        "relax.take": _take,
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
    weight = call.args[1]
    x, padding, pad_value = _with_padding(rewriter, call)
    channels, in_channels, groups = shape_of(weight)[0], shape_of(x)[3], int(attrs.groups)
    window: dict[str, Any] = {
        "stride": _pair(attrs.strides),
        "padding": padding,
        "dilation": _pair(attrs.dilation),
        "out_dtype": str(call.ty.dtype),
        "pad_value": pad_value,
    }
    if computes.is_depthwise(in_channels, channels, groups):
        return _depthwise_conv2d(rewriter, x, weight, window, target)
    x = _stored(rewriter, x, weight, target)
    acc = accumulator(str(x.ty.dtype), str(call.ty.dtype))
    value = constant(weight)
    if value is not None:
        value = _wide(value, x, math.prod(shape_of(call)[:3]), acc, target)
        weight = make_constant(value)
    right = str(weight.ty.dtype)
    if value is not None and in_channels // groups > MAX_ROW_CHANNELS:
        right = _right_type(value.reshape(channels, -1).T, x, acc)
    dot = find_dot(str(x.ty.dtype), right, target, acc)
    problem = _problem(call, x, padding, pad_value, dot)
    outputs = 0
    if winograd and value is not None and not pad_value:
        outputs = algorithms.space(problem, target)[0].outputs
    if value is not None and outputs:
        packed = make_constant(packing.pack_winograd(value, dot.lanes, outputs))
        options = {"channels": channels, "padding": padding, "out_dtype": window["out_dtype"]}
        return call_te(rewriter, "winograd_conv2d", partial(computes.winograd_conv2d, **options), [x, packed])
    on_vectors = algorithms.direct(problem, target)[0] is conv2d
    if value is not None and on_vectors and _prefers_whole_rows(call, dot):
        packed = make_constant(packing.pack_conv2d(value, dot, whole_rows=True))
        window["row_columns"] = shape_of(weight)[2]
        if any(padding):
            above, left, below, right = window.pop("padding")
            around = relax.op.nn.pad(x, [0, 0, above, below, left, right, 0, 0], pad_value=pad_value)
            x = rewriter.emit(around)
        compute = partial(computes.conv2d, channels=channels, right=dot.stored and dot.right, **window)
        return call_te(rewriter, "conv2d", compute, [x, packed])
    if on_vectors and any(padding[1::2]) and _is_wide(problem, target):
        above, left, below, after = padding
        x = rewriter.emit(relax.op.nn.pad(x, [0, 0, 0, 0, left, after, 0, 0], pad_value=pad_value))
        window["padding"] = (above, 0, below, 0)
    pack = partial(packing.pack_conv2d, dot=dot, groups=groups)
    pack_te = partial(packing.pack_conv2d_te, dot=dot, groups=groups)
    compute = partial(computes.conv2d, channels=channels, right=dot.stored and dot.right, **window)
    return call_te(rewriter, "conv2d", compute, [x, _packed(rewriter, weight, pack, pack_te)])


def _depthwise_conv2d(
    rewriter: Rewriter, x: relax.Expr, weight: relax.Expr, window: dict[str, Any], target: Target
) -> relax.Expr:
    """Convolution of each channel by itself."""
    lanes = packing.weight_lanes(str(x.ty.dtype), target, window["out_dtype"])
    pack = partial(packing.pack_depthwise, lanes=lanes)
    pack_te = partial(packing.pack_depthwise_te, lanes=lanes)
    compute = partial(computes.depthwise_conv2d, **window)
    return call_te(rewriter, "depthwise_conv2d", compute, [x, _packed(rewriter, weight, pack, pack_te)])


def _stored(rewriter: Rewriter, x: relax.Expr, weight: relax.Expr, target: Target) -> relax.Expr:
    """The left operand of a product in the type that the target's instructions want it in memory.

    The conversion joins the kernel that computes the operand, so that it is done once for all products.
    """
    dtype = str(x.ty.dtype)
    wanted = storage_for(dtype, str(weight.ty.dtype), target)
    return x if wanted == dtype else rewriter.emit(relax.op.astype(x, wanted))


def _wide(weights: np.ndarray, x: relax.Expr, rows: int, acc: str, target: Target) -> np.ndarray:
    """Constant weights in 16 bits, where to extend them from 8 at each use costs more than the memory.

    Args:
        weights: The weights.
        x: The left operand.
        rows: Rows of the product, each of which takes all weights.
        acc: Type of the sums.
        target: Chip to compile for.
    """
    left, right = str(x.ty.dtype), str(weights.dtype)
    is_reused = weights.size > 0 and rows >= WIDE_ROWS
    if not is_reused or acc != "int32" or not widens_slowly(left, right, target):
        return weights
    has_nibbles = weights.min() >= nibbles.LOW and weights.max() <= nibbles.HIGH
    return weights if has_nibbles else weights.astype(left)


def _right_type(matrix: np.ndarray, x: relax.Expr, acc: str) -> str:
    """Type of a product's right operand: 4 bits where that is enough for constant weights of 8.

    Args:
        matrix: The weights, [products, results].
        x: The left operand.
        acc: Type of the sums.
    """
    largest = 0 if acc == "int64" else LARGEST.get(str(x.ty.dtype))
    fits = largest is not None and nibbles.fits(matrix, largest)
    return nibbles.INT4 if fits else str(matrix.dtype)


def _problem(
    call: relax.Call, x: relax.Expr, padding: computes.Padding, pad_value: float, dot: Dot
) -> conv2d.Problem:
    """A convolution as the template sees it."""
    weight = call.args[1]
    batch, height, width, _ = shape_of(x)
    channels, *kernel, depth = shape_of(weight)
    window = Window(
        batch,
        (height, width),
        _pair(kernel),
        _pair(call.attrs.strides),
        padding,
        _pair(call.attrs.dilation),
    )
    groups = int(call.attrs.groups)
    dtypes = dot.left, dot.right, dot.acc
    sizes = groups, depth, channels // groups, dot.lanes
    return conv2d.Problem(window, *sizes, *dtypes, pad_value=pad_value)


def _with_padding(rewriter: Rewriter, call: relax.Call) -> tuple[relax.Expr, computes.Padding, float]:
    """The image of a convolution, its padding and what that holds, with a padding operator before it."""
    x = call.args[0]
    above, left, below, right = (int(size) for size in call.attrs.padding)
    pad = rewriter.value(x)
    if op_name(pad) == "relax.nn.pad" and str(pad.attrs.pad_mode) == "constant":
        n0, n1, top, bottom, first, last, c0, c1 = (int(size) for size in pad.attrs.pad_width)
        value = float(pad.attrs.pad_value)
        is_filled = value and (above or left or below or right or str(x.ty.dtype) == "bfloat16")
        if not (n0 or n1 or c0 or c1 or is_filled) and min(top, bottom, first, last) >= 0:
            return pad.args[0], (above + top, left + first, below + bottom, right + last), value
    return x, (above, left, below, right), 0.0


def _is_wide(problem: conv2d.Problem, target: Target) -> bool:
    """True where a window has so many columns that those outside the image cost more than storing zeros."""
    return problem.window.loops_over_taps(conv2d.space(problem, target)[0].columns)


def _prefers_whole_rows(call: relax.Call, dot: Dot) -> bool:
    """True where channels are so few that groups of the reduction should run through a row of the window."""
    x, weight = call.args
    depth, columns = shape_of(x)[3], shape_of(weight)[2]
    return (
        int(call.attrs.groups) == 1
        and columns > 1
        and _pair(call.attrs.dilation)[1] == 1
        and depth % dot.unit != 0
        and depth <= MAX_ROW_CHANNELS
    )


def _matmul(rewriter: Rewriter, call: relax.Call, target: Target) -> relax.Expr | None:
    """Product with a constant matrix, or of two tensors of rank 2 or more."""
    a, b = call.args
    out_dtype = str(call.ty.dtype)
    if min(len(shape_of(a)), len(shape_of(b))) < 2:
        return None
    matrix = constant(b)
    if matrix is not None and matrix.size == math.prod(matrix.shape[-2:]) and matrix.ndim <= len(shape_of(a)):
        depth, units = shape_of(b)[-2:]
        a = _stored(rewriter, a, b, target)
        acc = accumulator(str(a.ty.dtype), out_dtype)
        matrix = _wide(matrix, a, math.prod(shape_of(a)[:-1]), acc, target)
        right = _right_type(matrix.reshape(depth, units), a, acc)
        dot = find_dot(str(a.ty.dtype), right, target, acc)
        packed = make_constant(packing.pack_dense(matrix.reshape(depth, units), dot))
        compute = partial(computes.dense, units=units, out_dtype=out_dtype, right=dot.stored and dot.right)
        return call_te(rewriter, "dense", compute, [a, packed])
    transposed = rewriter.value(b)
    if op_name(transposed) == "relax.permute_dims" and _swaps_last_two(transposed):
        compute = partial(computes.matmul, transpose_b=True, out_dtype=out_dtype)
        return call_te(rewriter, "matmul", compute, [a, transposed.args[0]])
    return call_te(rewriter, "matmul", partial(computes.matmul, out_dtype=out_dtype), [a, b])


def _take(rewriter: Rewriter, call: relax.Call, target: Target) -> relax.Expr | None:
    """Slices of a tensor; the indices are in its range, as whoever wrote the call has seen to."""
    function = _function_of_sums(rewriter, call, target)
    if function is not None:
        return function
    data, indices = call.args
    axis = call.attrs.axis
    if axis is None:
        return None
    first = int(axis) % len(shape_of(data))
    last = first + len(shape_of(indices))

    def compute(x: te.Tensor, at: te.Tensor) -> te.Tensor:
        shape = [*x.shape[:first], *at.shape, *x.shape[first + 1 :]]
        return te.compute(
            shape, lambda *i: x(*i[:first], at(*i[first:last]).astype("int64"), *i[last:]), name="take"
        )

    return call_te(rewriter, "take", compute, [data, indices], INJECTIVE)


def _function_of_sums(rewriter: Rewriter, call: relax.Call, target: Target) -> relax.Expr | None:
    """A look-up in a large table of bytes as polynomials, where the target looks up their coefficients.

    Such are elementwise and join the kernel that computes the positions, which need no clip then.
    """
    table, positions = constant(call.args[0]), call.args[1]
    if table is None or table.ndim != 1 or table.size <= 256 or table.dtype not in (np.uint8, np.int8):
        return None
    if "look_up" not in native_functions(target) or str(positions.ty.dtype) != "int32":
        return None
    pieces = fit(table)
    if pieces is None:
        return None
    inner = rewriter.value(positions)
    if op_name(inner) == "relax.clip" and rewriter.single_use(positions):
        positions = inner.args[0]
    low, high = (
        tirx.const(int(limit), "int32") for limit in (np.iinfo(table.dtype).min, np.iinfo(table.dtype).max)
    )

    def entry(x: te.Tensor, *at: Any) -> tirx.Expr:
        rounded = tirx.round(pieces.at(x(*at).astype("float32"))).astype("int32")
        return tirx.max(tirx.min(rounded, high), low).astype(table.dtype.name)

    def compute(x: te.Tensor) -> te.Tensor:
        return te.compute(x.shape, lambda *at: entry(x, *at), name="function")

    return call_te(rewriter, "function", compute, [positions], ELEMENTWISE)


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
