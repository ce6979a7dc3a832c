"""Convolutions. One spatial axis becomes two, the first of extent 1; transposed ones become plain ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_ints,
    attr_text,
    choose,
    ints,
    number,
    required,
)
from tvm_ipu.frontends.onnx.ops.shape import cut, pad_constant, permute, reshape
from tvm_ipu.frontends.onnx.ops.window import AUTO_PADS, Window, read_window

R = relax.op


@converter("Conv")
def conv(ctx: Context, node: Node) -> relax.Expr:
    """One to three spatial axes, groups, dilations, any padding; floating-point types."""
    x, weight = required(node, 0, "X"), required(node, 1, "W")
    kernel = ctx.shape(weight)[2:]
    window = read_window(node, ctx.shape(x)[2:], kernel)
    y = convolve(ctx, x, weight, window, int(node.attrs.get("group", 1)))
    return add_bias(ctx, y, node.input(2))


def convolve(
    ctx: Context, x: relax.Expr, weight: relax.Expr, window: Window, groups: int, out_dtype: str = ""
) -> relax.Expr:
    """Cross-correlation of ``x`` [N, C, *spatial] with ``weight`` [O, C / groups, *kernel].

    Args:
        out_dtype: Type of the sums; that of the operands where empty.
    """
    if min(*window.begins, *window.ends) < 0:
        cuts = [min(p, 0) for p in window.padding]
        x = pad_constant(ctx, x, (0, 0, *cuts[: window.rank]), (0, 0, *cuts[window.rank :]), 0)
        begins, ends = (tuple(max(p, 0) for p in side) for side in (window.begins, window.ends))
        window = replace(window, begins=begins, ends=ends)
    options = {"groups": groups, "out_dtype": out_dtype or None}
    if window.rank == 3:
        return ctx.emit(R.nn.conv3d(x, weight, window.strides, window.padding, window.dilations, **options))
    if window.rank == 2:
        return ctx.emit(R.nn.conv2d(x, weight, window.strides, window.padding, window.dilations, **options))
    if window.rank != 1:
        raise UnsupportedNode(f"there are {window.rank} spatial axes; allowed are 1 to 3")
    (n, c, w), (o, i, k) = ctx.shape(x), ctx.shape(weight)
    y = R.nn.conv2d(
        reshape(ctx, x, (n, c, 1, w)),
        reshape_weight(ctx, weight, (o, i, 1, k)),
        (1, *window.strides),
        (0, *window.begins, 0, *window.ends),
        (1, *window.dilations),
        **options,
    )
    return reshape(ctx, ctx.emit(y), (n, o, *window.outputs))


def reshape_weight(ctx: Context, weight: relax.Expr, shape: Sequence[int]) -> relax.Expr:
    """``weight`` with another shape; a constant stays one."""
    value = ctx.value(weight)
    return reshape(ctx, weight, shape) if value is None else ctx.const(value.reshape(shape))


def add_bias(ctx: Context, y: relax.Expr, bias: relax.Expr | None) -> relax.Expr:
    """``y`` [N, C, *spatial] plus a bias for each channel."""
    if bias is None:
        return y
    shape = (1, ctx.shape(y)[1], *[1] * (len(ctx.shape(y)) - 2))
    return ctx.emit(R.add(y, reshape_weight(ctx, bias, shape)))


@converter("ConvTranspose")
def conv_transpose(ctx: Context, node: Node) -> relax.Expr:
    """One to three spatial axes, groups, dilations, any padding; floating-point types."""
    x, weight = required(node, 0, "X"), required(node, 1, "W")
    spatial, kernel = ctx.shape(x)[2:], ctx.shape(weight)[2:]
    strides = attr_ints(node, "strides", [1] * len(spatial))
    dilations = attr_ints(node, "dilations", [1] * len(spatial))
    begins, outputs = _transposed_extents(node, spatial, kernel, strides, dilations)
    groups = int(node.attrs.get("group", 1))
    y = transposed(ctx, x, weight, groups, strides, dilations, begins, outputs)
    return add_bias(ctx, y, node.input(2))


def _transposed_extents(
    node: Node,
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Elements cut off before the first output, and the number of outputs, for each axis."""
    rank = len(spatial)
    auto = attr_text(node, "auto_pad", "NOTSET", AUTO_PADS)
    extra = attr_ints(node, "output_padding", [0] * rank)
    whole = [
        s * (n - 1) + e + (k - 1) * d + 1
        for n, k, s, d, e in zip(spatial, kernel, strides, dilations, extra, strict=True)
    ]
    if "output_shape" in node.attrs or auto.startswith("SAME"):
        same = [n * s for n, s in zip(spatial, strides, strict=True)]
        outputs = list(attr_ints(node, "output_shape", same))
        surplus = [w - o for w, o in zip(whole, outputs, strict=True)]
        begins = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in surplus]
        if auto == "NOTSET" and "pads" in node.attrs:
            begins = list(attr_ints(node, "pads", [0] * 2 * rank)[:rank])
        return begins, outputs
    pads = attr_ints(node, "pads", [0] * 2 * rank) if auto == "NOTSET" else (0,) * 2 * rank
    outputs = [w - a - b for w, a, b in zip(whole, pads[:rank], pads[rank:], strict=True)]
    return list(pads[:rank]), outputs


def transposed(
    ctx: Context,
    x: relax.Expr,
    weight: relax.Expr,
    groups: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    begins: Sequence[int],
    outputs: Sequence[int],
) -> relax.Expr:
    """Transposed convolution as a plain one that computes all phases of the stride as channels.

    Output position ``q * stride + r`` is the sum over m of ``x[q - m] * w[m * stride + r]``, with the dilated
    kernel ``w``: for each phase r a convolution with every stride-th tap. The phases then interleave
    as blocks of pixels.

    Args:
        weight: [C, O / groups, *kernel].
        begins: Outputs cut off before the first one that is wanted; may be negative.
        outputs: Outputs wanted along each axis.
    """
    spatial = ctx.shape(x)[2:]
    phased = phase_weight(ctx, weight, groups, strides, dilations)
    taps = ctx.shape(phased)[2:]
    first = [b // s for b, s in zip(begins, strides, strict=True)]
    last = [(b + o - 1) // s for b, o, s in zip(begins, outputs, strides, strict=True)]
    pads_begin = [m - 1 - q for m, q in zip(taps, first, strict=True)]
    pads_end = [q - n + 1 for q, n in zip(last, spatial, strict=True)]
    count = [b - a + 1 for a, b in zip(first, last, strict=True)]
    ones = (1,) * len(taps)
    window = Window(taps, ones, ones, tuple(pads_begin), tuple(pads_end), tuple(pads_end), tuple(count))
    y = convolve(ctx, x, phased, window, groups)
    y = _interleave(ctx, y, strides)
    for axis, (begin, stride, wanted) in enumerate(zip(begins, strides, outputs, strict=True)):
        start = begin % stride
        y = cut(ctx, y, axis + 2, start, start + wanted)
    return y


def phase_weight(
    ctx: Context, weight: relax.Expr, groups: int, strides: Sequence[int], dilations: Sequence[int]
) -> relax.Expr:
    """Weights [C, O / groups, *kernel] of a transposed convolution as [O * prod(strides), C / groups, *taps].

    The phases of one output channel follow each other, row-major in the strides; the taps are reversed.
    """
    channels, out, *kernel = ctx.shape(weight)
    taps = [-(-((k - 1) * d + 1) // s) for k, d, s in zip(kernel, dilations, strides, strict=True)]
    value = ctx.value(weight)
    if value is not None:
        wide = np.zeros((channels, out, *(m * s for m, s in zip(taps, strides, strict=True))), value.dtype)
        steps = tuple(slice(0, (k - 1) * d + 1, d) for k, d in zip(kernel, dilations, strict=True))
        wide[(slice(None), slice(None), *steps)] = value
        spread: relax.Expr = ctx.const(wide)
    else:
        spread = _spread(ctx, weight, strides, dilations, taps)
    rank, inner = len(kernel), channels // groups
    split = [v for m, s in zip(taps, strides, strict=True) for v in (m, s)]
    order = [0, 2, *(4 + 2 * i for i in range(rank)), 1, *(3 + 2 * i for i in range(rank))]
    shape = (groups * out * math.prod(strides), inner, *taps)
    if value is not None:
        blocks = ctx.value(spread)
        assert blocks is not None
        blocks = blocks.reshape(groups, inner, out, *split).transpose(order).reshape(shape)
        return ctx.const(np.flip(blocks, tuple(range(2, 2 + rank))))
    moved = permute(ctx, reshape(ctx, spread, (groups, inner, out, *split)), order)
    result = reshape(ctx, moved, shape)
    for axis in range(rank):
        result = ctx.emit(R.flip(result, axis + 2))
    return result


def _spread(
    ctx: Context,
    weight: relax.Expr,
    strides: Sequence[int],
    dilations: Sequence[int],
    taps: Sequence[int],
) -> relax.Expr:
    """Weights computed at run time with zeros between the taps and behind the last."""
    channels, out, *kernel = ctx.shape(weight)
    dtype = ctx.dtype(weight)
    if set(dilations) == {1}:
        rest = [m * s - k for m, s, k in zip(taps, strides, kernel, strict=True)]
        return pad_constant(ctx, weight, [0] * (2 + len(kernel)), [0, 0, *rest], 0)

    def compute(tensor: te.Tensor) -> te.Tensor:
        def element(c: Any, o: Any, *place: Any) -> Any:
            hits = [
                tirx.all(tirx.floormod(p, d) == 0, p < k * d)
                for p, d, k in zip(place, dilations, kernel, strict=True)
            ]
            source = [
                tirx.min(tirx.floordiv(p, d), k - 1) for p, d, k in zip(place, dilations, kernel, strict=True)
            ]
            return choose(tirx.all(*hits), tensor(c, o, *source), number(0, dtype))

        shape = (channels, out, *(m * s for m, s in zip(taps, strides, strict=True)))
        return te.compute(shape, element, name="spread_weight")

    return ctx.te(compute, weight, name="spread_weight")


def _interleave(ctx: Context, y: relax.Expr, strides: Sequence[int]) -> relax.Expr:
    """Phases, the innermost part of the channels, as blocks of pixels."""
    if math.prod(strides) == 1:
        return y
    n, c, *spatial = ctx.shape(y)
    rank, out = len(spatial), c // math.prod(strides)
    order = [0, 1, *(v for i in range(rank) for v in (2 + rank + i, 2 + i))]
    blocks = permute(ctx, reshape(ctx, y, (n, out, *strides, *spatial)), order)
    return reshape(ctx, blocks, (n, out, *(e * s for e, s in zip(spatial, strides, strict=True))))


@converter("DeformConv")
def deform_conv(ctx: Context, node: Node) -> relax.Expr:
    """Two spatial axes, groups and offset groups; floating-point types."""
    x, weight, offset = required(node, 0, "X"), required(node, 1, "W"), required(node, 2, "offset")
    bias, mask = node.input(3), node.input(4)
    n, channels, *spatial = ctx.shape(x)
    out, per_group, *kernel = ctx.shape(weight)
    if len(spatial) != 2:
        raise UnsupportedNode(f"there are {len(spatial)} spatial axes; only 2 are supported")
    window = read_window(node, spatial, kernel)
    groups, offset_groups = int(node.attrs.get("group", 1)), int(node.attrs.get("offset_group", 1))
    taps = math.prod(kernel)
    dtype = ctx.dtype(x)

    def compute(image: te.Tensor, shift: te.Tensor, *weights: te.Tensor) -> te.Tensor:
        def element(b: Any, c: Any, k: Any, *at: Any) -> Any:
            group = tirx.floordiv(c, channels // offset_groups)
            tap = (tirx.floordiv(k, kernel[1]), tirx.floormod(k, kernel[1]))
            place = []
            for axis in range(2):
                start = (
                    at[axis] * window.strides[axis] - window.begins[axis] + tap[axis] * window.dilations[axis]
                )
                moved = shift(b, (group * taps + k) * 2 + axis, *at)
                place.append(start.astype("float32") + moved.astype("float32"))
            value = bilinear(lambda i, j: image(b, c, i, j), place, spatial)
            if weights:
                value = value * weights[0](b, group * taps + k, *at).astype("float32")
            return value.astype(dtype)

        return te.compute((n, channels, taps, *window.outputs), element, name="deform_columns")

    columns = ctx.te(compute, x, offset, *([mask] if mask is not None else []), name="deform_columns")
    flat = reshape(ctx, columns, (n, channels * taps, *window.outputs))
    ones = Window((1, 1), (1, 1), (1, 1), (0, 0), (0, 0), (0, 0), window.outputs)
    matrix = reshape_weight(ctx, weight, (out, per_group * taps, 1, 1))
    return add_bias(ctx, convolve(ctx, flat, matrix, ones, groups), bias)


def bilinear(read: Any, place: Sequence[Any], extents: Sequence[int]) -> Any:
    """Value between pixels in float32; pixels outside the image are 0.

    Args:
        read: Gives the pixel at two int32 positions inside the image.
        place: Position along both axes, float32.
        extents: Size of the image.
    """
    corners, weights = [], []
    for position, extent in zip(place, extents, strict=True):
        # far outside nothing is seen; the clamp keeps the conversion to an integer defined
        inside = tirx.max(tirx.min(position, number(extent + 1.0, "float32")), number(-2.0, "float32"))
        base = tirx.floor(inside)
        fraction = inside - base
        low = base.astype("int32")
        corners.append((low, low + 1))
        weights.append((number(1.0, "float32") - fraction, fraction))
    total: Any = number(0.0, "float32")
    for a in range(2):
        for b in range(2):
            at = (corners[0][a], corners[1][b])
            seen = tirx.all(*(tirx.all(p >= 0, p < e) for p, e in zip(at, extents, strict=True)))
            safe = [tirx.max(tirx.min(p, e - 1), 0) for p, e in zip(at, extents, strict=True)]
            value = choose(seen, read(*safe).astype("float32"), number(0.0, "float32"))
            total = total + value * weights[0][a] * weights[1][b]
    return total


@converter("Col2Im")
def col2im(ctx: Context, node: Node) -> relax.Expr:
    """Any number of spatial axes; image and block shape must be constant."""
    x = required(node, 0, "input")
    image = ints(ctx.require_value(node, 1, "image_shape"))
    block = ints(ctx.require_value(node, 2, "block_shape"))
    window = read_window(node, image, block)
    n, depth, _ = ctx.shape(x)
    channels, dtype = depth // math.prod(block), ctx.dtype(x)
    columns = reshape(ctx, x, (n, channels, *block, *window.outputs))

    def compute(tensor: te.Tensor) -> te.Tensor:
        taps = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(block)]

        def element(b: Any, c: Any, *at: Any) -> Any:
            hits, blocks = [], []
            for i, p in enumerate(at):
                distance = p + window.begins[i] - taps[i].var * window.dilations[i]
                q = tirx.floordiv(distance, window.strides[i])
                exact = tirx.floormod(distance, window.strides[i]) == 0
                hits.append(tirx.all(exact, q >= 0, q < window.outputs[i]))
                blocks.append(tirx.max(tirx.min(q, window.outputs[i] - 1), 0))
            value = tensor(b, c, *(t.var for t in taps), *blocks)
            return te.sum(choose(tirx.all(*hits), value, number(0, dtype)), axis=taps)

        return te.compute((n, channels, *image), element, name="col2im")

    return ctx.te(compute, columns, name="col2im")


@converter("CausalConvWithState")
def causal_conv(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types; activations none, silu and swish."""
    from tvm_ipu.frontends.onnx.ops.activation import gated

    x, weight = required(node, 0, "input"), required(node, 1, "weight")
    past = node.input(3)
    activation = attr_text(node, "activation", "none", ("none", "silu", "swish"))
    (_, c, length), taps = ctx.shape(x), ctx.shape(weight)[2]
    if past is None or taps == 1:
        whole = pad_constant(ctx, x, (0, 0, taps - 1), (0, 0, 0), 0)
    else:
        whole = ctx.emit(R.concat([past, x], 2))
    window = Window((taps,), (1,), (1,), (0,), (0,), (0,), (length,))
    y = add_bias(ctx, convolve(ctx, whole, weight, window, c), node.input(2))
    y = y if activation == "none" else gated(ctx, y)
    return [y, cut(ctx, whole, 2, length, length + taps - 1)]
