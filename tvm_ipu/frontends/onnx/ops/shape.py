"""Operators that only move elements: reshape, transpose, join, cut, pad and repeat."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tvm_ipu.base.model import POSITIONS_ATTR
from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_bool,
    attr_text,
    broadcast_shape,
    full,
    ints,
    normal_axis,
    number,
    required,
)

R = relax.op


def axes_argument(ctx: Context, node: Node, rank: int, input_since: int) -> tuple[int, ...] | None:
    """Axes given as an attribute or, from opset ``input_since`` on, as input 1; None where not given."""
    if node.since < input_since:
        given = node.attrs.get("axes")
    else:
        given = ints(ctx.require_value(node, 1, "axes")) if node.input(1) is not None else None
    return None if given is None else tuple(normal_axis(int(a), rank) for a in given)


def reshape(ctx: Context, x: relax.Expr, shape: Sequence[int]) -> relax.Expr:
    """``x`` with another shape; nothing is emitted where it has that shape already."""
    if ctx.shape(x) == tuple(shape):
        return x
    return full(ctx, shape, 0, ctx.dtype(x)) if 0 in shape else ctx.emit(R.reshape(x, list(shape)))


def permute(ctx: Context, x: relax.Expr, order: Sequence[int]) -> relax.Expr:
    """``x`` with its axes in another order; nothing is emitted where that is the present one."""
    return x if list(order) == sorted(order) else ctx.emit(R.permute_dims(x, list(order)))


@converter("Reshape")
def reshape_op(ctx: Context, node: Node) -> relax.Expr:
    """The shape must be constant."""
    x = required(node, 0, "data")
    dims = ctx.shape(x)
    target = ints(ctx.require_value(node, 1, "shape"))
    if not attr_bool(node, "allowzero"):
        target = [dims[i] if t == 0 else t for i, t in enumerate(target)]
    if -1 in target:
        rest = math.prod(t for t in target if t != -1)
        target[target.index(-1)] = math.prod(dims) // rest if rest else 0
    if math.prod(target) != math.prod(dims):
        raise UnsupportedNode(f"a tensor of shape {list(dims)} cannot have the shape {target}")
    return reshape(ctx, x, target)


@converter("Flatten")
def flatten(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    x = required(node, 0, "input")
    dims = ctx.shape(x)
    axis = int(node.attrs.get("axis", 1))
    axis += len(dims) if axis < 0 else 0
    return reshape(ctx, x, (math.prod(dims[:axis]), math.prod(dims[axis:])))


@converter("Squeeze")
def squeeze(ctx: Context, node: Node) -> relax.Expr:
    """The axes must be constant."""
    x = required(node, 0, "data")
    dims = ctx.shape(x)
    axes = axes_argument(ctx, node, len(dims), 13)
    drop = [i for i, d in enumerate(dims) if d == 1] if axes is None else list(axes)
    wrong = [i for i in drop if dims[i] != 1]
    if wrong:
        raise UnsupportedNode(f"axis {wrong[0]} of extent {dims[wrong[0]]} cannot be squeezed")
    return reshape(ctx, x, [d for i, d in enumerate(dims) if i not in drop])


@converter("Unsqueeze")
def unsqueeze(ctx: Context, node: Node) -> relax.Expr:
    """The axes must be constant."""
    x = required(node, 0, "data")
    given = node.attrs.get("axes", ()) if node.since < 13 else ints(ctx.require_value(node, 1, "axes"))
    rank = len(ctx.shape(x)) + len(given)
    axes = {normal_axis(int(a), rank) for a in given}
    dims = iter(ctx.shape(x))
    return reshape(ctx, x, [1 if i in axes else next(dims) for i in range(rank)])


@converter("Transpose")
def transpose(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    x = required(node, 0, "data")
    rank = len(ctx.shape(x))
    return permute(ctx, x, [int(p) for p in node.attrs.get("perm", range(rank)[::-1])])


@converter("Concat")
def concat(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    parts = [x for x in node.inputs if x is not None]
    axis = normal_axis(int(node.attrs["axis"]), len(ctx.shape(parts[0])))
    solid = [x for x in parts if 0 not in ctx.shape(x)] or parts[:1]
    return solid[0] if len(solid) == 1 else ctx.emit(R.concat(solid, axis))


def cut(ctx: Context, x: relax.Expr, axis: int, begin: int, end: int) -> relax.Expr:
    """Elements ``[begin, end)`` of ``x`` along ``axis``."""
    dims = ctx.shape(x)
    if (begin, end) == (0, dims[axis]):
        return x
    if end <= begin:
        return full(ctx, [0 if i == axis else d for i, d in enumerate(dims)], 0, ctx.dtype(x))
    return ctx.emit(R.strided_slice(x, [axis], [begin], [end], assume_inbound=True))


@converter("Split")
def split(ctx: Context, node: Node) -> list[relax.Expr]:
    """The sizes of the parts must be constant."""
    x = required(node, 0, "input")
    dims = ctx.shape(x)
    axis = normal_axis(int(node.attrs.get("axis", 0)), len(dims))
    if node.since < 13 and "split" in node.attrs:
        sizes = [int(s) for s in node.attrs["split"]]
    elif node.since >= 13 and node.input(1) is not None:
        sizes = ints(ctx.require_value(node, 1, "split"))
    else:
        count = int(node.attrs.get("num_outputs", len(node.outputs)))
        size = -(-dims[axis] // count)
        sizes = [min(size, max(0, dims[axis] - i * size)) for i in range(count)]
    if sum(sizes) != dims[axis]:
        raise UnsupportedNode(f"the parts {sizes} do not make up axis {axis} of {dims[axis]} elements")
    starts = np.cumsum([0, *sizes]).tolist()
    return [cut(ctx, x, axis, a, b) for a, b in itertools.pairwise(starts)]


@converter("Slice")
def slice_op(ctx: Context, node: Node) -> relax.Expr:
    """Starts, ends, axes and steps must be constant."""
    x = required(node, 0, "data")
    dims = ctx.shape(x)
    if node.since < 10:
        starts, ends = (list(map(int, node.attrs[name])) for name in ("starts", "ends"))
        axes = list(map(int, node.attrs.get("axes", range(len(starts)))))
        steps = [1] * len(starts)
    else:
        starts, ends = ints(ctx.require_value(node, 1, "starts")), ints(ctx.require_value(node, 2, "ends"))
        axes, steps = list(range(len(starts))), [1] * len(starts)
        if node.input(3) is not None:
            axes = ints(ctx.require_value(node, 3, "axes"))
        if node.input(4) is not None:
            steps = ints(ctx.require_value(node, 4, "steps"))
    ranges = [range(d) for d in dims]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = normal_axis(axis, len(dims))
        ranges[axis] = _onnx_range(start, end, step, dims[axis])
    return take_ranges(ctx, x, ranges)


def _onnx_range(start: int, end: int, step: int, extent: int) -> range:
    """Positions that a slice takes; an end far below 0 with a negative step reaches element 0."""
    start, end = (v + extent if v < 0 else v for v in (start, end))
    if step > 0:
        return range(min(max(start, 0), extent), min(max(end, 0), extent), step)
    return range(min(max(start, 0), extent - 1), min(max(end, -1), extent - 1), step)


def take_ranges(ctx: Context, x: relax.Expr, ranges: Sequence[range]) -> relax.Expr:
    """The elements at the positions of ``ranges``, one range an axis."""
    dims = ctx.shape(x)
    shape = [len(r) for r in ranges]
    changed = [i for i, (r, d) in enumerate(zip(ranges, dims, strict=True)) if r != range(d)]
    if not changed:
        return x
    if 0 in shape:
        return full(ctx, shape, 0, ctx.dtype(x))
    if all(ranges[i].step > 0 for i in changed):
        bounds = [[getattr(ranges[i], part) for i in changed] for part in ("start", "stop", "step")]
        return ctx.emit(R.strided_slice(x, changed, *bounds, assume_inbound=True))

    def compute(tensor: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            return tensor(*(r.start + i * r.step for i, r in zip(index, ranges, strict=True)))

        return te.compute(shape, element, name="slice")

    return ctx.te(compute, x, name="slice", attrs=positions_attribute({i: ranges[i] for i in changed}))


def positions_attribute(positions: Mapping[int, Iterable[int]]) -> dict[str, str]:
    """Says that a function picks elements at positions along axes."""
    return {POSITIONS_ATTR: json.dumps({axis: [int(p) for p in at] for axis, at in positions.items()})}


@converter("Expand")
def expand(ctx: Context, node: Node) -> relax.Expr:
    """The shape must be constant."""
    x = required(node, 0, "input")
    shape = broadcast_shape(ctx.shape(x), ints(ctx.require_value(node, 1, "shape")))
    return x if shape == ctx.shape(x) else ctx.emit(R.broadcast_to(x, shape))


@converter("Tile")
def tile(ctx: Context, node: Node) -> relax.Expr:
    """The repeats must be constant."""
    x = required(node, 0, "input")
    dims, repeats = ctx.shape(x), ints(ctx.require_value(node, 1, "repeats"))
    if all(d == 1 or r == 1 for d, r in zip(dims, repeats, strict=True)):
        return ctx.emit(R.broadcast_to(x, [d * r for d, r in zip(dims, repeats, strict=True)]))
    return ctx.emit(R.tile(x, repeats))


_PAD_MODES: dict[str, Callable[[Any, int], Any]] = {
    "edge": lambda i, n: tirx.max(tirx.min(i, n - 1), 0),
    "wrap": lambda i, n: tirx.floormod(i, n),
    "reflect": lambda i, n: _reflect(i, n),
}


def _reflect(i: Any, extent: int) -> Any:
    """Position that ``i`` mirrors to, the border elements not repeated."""
    if extent == 1:
        return tirx.floormod(i, 1)
    period = tirx.floormod(i, 2 * extent - 2)
    return tirx.min(period, 2 * extent - 2 - period)


@converter("Pad")
def pad(ctx: Context, node: Node) -> relax.Expr:
    """The pads and axes must be constant; negative pads cut. Modes constant, reflect, edge and wrap."""
    x = required(node, 0, "data")
    dims = ctx.shape(x)
    mode = attr_text(node, "mode", "constant", ("constant", *_PAD_MODES))
    value = node.input(2) if node.since >= 11 else None
    if node.since < 11:
        pads, axes = [int(p) for p in node.attrs["pads"]], tuple(range(len(dims)))
    else:
        pads = ints(ctx.require_value(node, 1, "pads"))
        given = ints(ctx.require_value(node, 3, "axes")) if node.input(3) is not None else range(len(dims))
        axes = tuple(normal_axis(a, len(dims)) for a in given)
    begins, ends = [0] * len(dims), [0] * len(dims)
    for i, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[i], pads[i + len(axes)]
    if not any(begins) and not any(ends):
        return x
    if mode != "constant":
        return _pad_by_position(ctx, x, begins, ends, mode)
    if value is None:
        fill: float | relax.Expr = float(node.attrs.get("value", 0.0))
    else:
        known = ctx.value(value)
        fill = value if known is None else known.item()
    return pad_constant(ctx, x, begins, ends, fill)


def pad_constant(
    ctx: Context, x: relax.Expr, begins: Sequence[int], ends: Sequence[int], fill: Any
) -> relax.Expr:
    """``x`` with ``fill`` (a number, or a tensor of one element) around it; negative pads cut."""
    dims, dtype = ctx.shape(x), ctx.dtype(x)
    shape = [d + a + b for d, a, b in zip(dims, begins, ends, strict=True)]
    if not any(begins) and not any(ends):
        return x
    if 0 in dims and not isinstance(fill, relax.Expr):
        return full(ctx, shape, fill, dtype)
    if not isinstance(fill, relax.Expr) and min(*begins, *ends, 0) == 0 and dtype != "bool":
        widths = [p for pair in zip(begins, ends, strict=True) for p in pair]
        return ctx.emit(R.nn.pad(x, widths, pad_value=fill))

    def compute(tensor: te.Tensor, *filling: te.Tensor) -> te.Tensor:
        other = filling[0](*[0] * len(filling[0].shape)) if filling else number(fill, dtype)

        def element(*index: Any) -> Any:
            place = [i - a for i, a in zip(index, begins, strict=True)]
            inside = [tirx.all(p >= 0, p < d) for p, d in zip(place, dims, strict=True)]
            return tirx.if_then_else(tirx.all(*inside), tensor(*place), other)

        return te.compute(shape, element, name="pad")

    return ctx.te(compute, x, *([fill] if isinstance(fill, relax.Expr) else []), name="pad")


def _pad_by_position(
    ctx: Context, x: relax.Expr, begins: Sequence[int], ends: Sequence[int], mode: Any
) -> relax.Expr:
    dims, rule = ctx.shape(x), _PAD_MODES[mode]
    shape = [d + a + b for d, a, b in zip(dims, begins, ends, strict=True)]

    def compute(tensor: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            moved = [
                rule(i - a, d) if a or b else i for i, a, b, d in zip(index, begins, ends, dims, strict=True)
            ]
            return tensor(*moved)

        return te.compute(shape, element, name="pad")

    positions = {
        axis: np.pad(np.arange(d), (max(a, 0), max(b, 0)), mode=mode)[max(-a, 0) :][: d + a + b]
        for axis, (a, b, d) in enumerate(zip(begins, ends, dims, strict=True))
        if a or b
    }
    return ctx.te(compute, x, name="pad", attrs=positions_attribute(positions))


@converter("CenterCropPad")
def center_crop_pad(ctx: Context, node: Node) -> relax.Expr:
    """The shape must be constant."""
    x = required(node, 0, "input_data")
    dims = ctx.shape(x)
    target = ints(ctx.require_value(node, 1, "shape"))
    axes = [normal_axis(int(a), len(dims)) for a in node.attrs.get("axes", range(len(dims)))]
    begins, ends = [0] * len(dims), [0] * len(dims)
    for axis, extent in zip(axes, target, strict=True):
        missing = extent - dims[axis]
        # a cut starts at half of what is too much, rounded down, and an odd pad puts the larger half behind
        begins[axis] = missing // 2 if missing >= 0 else -(-missing // 2)
        ends[axis] = missing - begins[axis]
    return pad_constant(ctx, x, begins, ends, 0)


@converter("DepthToSpace", "SpaceToDepth")
def depth_and_space(ctx: Context, node: Node) -> relax.Expr:
    """All element types, modes DCR and CRD."""
    x = required(node, 0, "input")
    n, c, h, w = ctx.shape(x)
    b = int(node.attrs["blocksize"])
    depth_first = attr_text(node, "mode", "DCR", ("DCR", "CRD")) == "DCR"
    if node.op_type == "DepthToSpace":
        return depth_to_space(ctx, x, b, depth_first)
    blocks = reshape(ctx, x, (n, c, h // b, b, w // b, b))
    moved = permute(ctx, blocks, (0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4))
    return reshape(ctx, moved, (n, c * b * b, h // b, w // b))


def depth_to_space(ctx: Context, x: relax.Expr, block: int, depth_first: bool) -> relax.Expr:
    """Channels as blocks of pixels; ``depth_first``: the place in the block is a channel's outer part."""
    n, c, h, w = ctx.shape(x)
    inner = c // (block * block)
    if depth_first:
        moved = permute(ctx, reshape(ctx, x, (n, block, block, inner, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        moved = permute(ctx, reshape(ctx, x, (n, inner, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return reshape(ctx, moved, (n, inner, h * block, w * block))


@converter("ReverseSequence")
def reverse_sequence(ctx: Context, node: Node) -> relax.Expr:
    """All element types; lengths may be computed at run time and are clamped to the time axis."""
    x, lengths = required(node, 0, "input"), required(node, 1, "sequence_lens")
    batch, time = int(node.attrs.get("batch_axis", 1)), int(node.attrs.get("time_axis", 0))
    extent = ctx.shape(x)[time]

    def compute(tensor: te.Tensor, lens: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            length = tirx.max(tirx.min(lens(index[batch]), number(extent, "int64")), number(0, "int64"))
            t = index[time].astype("int64")
            place = list(index)
            place[time] = tirx.Select(t < length, length - 1 - t, t)
            return tensor(*place)

        return te.compute(tensor.shape, element, name="reverse_sequence")

    return ctx.te(compute, x, lengths, name="reverse_sequence")
