"""Gather and scatter. Indices come from data: negative ones count from the end, all are clamped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.base.model import GATHER_ATTR
from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_text,
    choose,
    ints,
    loops,
    normal_axis,
    number,
    required,
    wrap_index,
)
from tvm_ipu.frontends.onnx.ops.shape import reshape, take_ranges
from tvm_ipu.frontends.onnx.ops.types import convert

_REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": tirx.max,
    "min": tirx.min,
}


@converter("Gather")
def gather(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    x, indices = required(node, 0, "data"), required(node, 1, "indices")
    axis = normal_axis(int(node.attrs.get("axis", 0)), len(ctx.shape(x)))
    return gather_axis(ctx, x, indices, axis)


def gather_axis(ctx: Context, x: relax.Expr, indices: relax.Expr, axis: int) -> relax.Expr:
    """``x`` with ``axis`` replaced by the positions ``indices`` along it."""
    dims, shape = ctx.shape(x), ctx.shape(indices)
    out = (*dims[:axis], *shape, *dims[axis + 1 :])
    known = ctx.value(indices)
    if known is not None and known.size and dims[axis]:
        positions = np.where(known < 0, known + dims[axis], known).clip(0, dims[axis] - 1)
        run = _as_range(positions)
        if run is not None:
            ranges = [range(d) for d in dims]
            ranges[axis] = run
            return reshape(ctx, take_ranges(ctx, x, ranges), out)
        indices = ctx.const(positions.astype(np.int32))

    def compute(tensor: te.Tensor, index: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            place = wrap_index(index(*i[axis : axis + len(shape)]), dims[axis])
            return tensor(*i[:axis], place, *i[axis + len(shape) :])

        return te.compute(out, element, name="gather")

    return ctx.te(compute, x, indices, name="gather", attrs={GATHER_ATTR: str(axis)})


def _as_range(positions: NDArray[Any]) -> range | None:
    """The positions as an evenly stepped run, or None."""
    flat = ints(positions)
    step = flat[1] - flat[0] if len(flat) > 1 else 1
    run = range(flat[0], flat[0] + step * len(flat), step) if step else None
    return run if run is not None and list(run) == flat else None


@converter("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types."""
    x, indices = required(node, 0, "X"), required(node, 1, "Y")
    dims = ctx.shape(x)
    flat = reshape(ctx, indices, (math.prod(ctx.shape(indices)),))
    picked = gather_axis(ctx, x, flat, len(dims) - 1)
    return picked if len(dims) > 1 else reshape(ctx, picked, (1, *ctx.shape(picked)))


@converter("GatherElements")
def gather_elements(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    x, indices = required(node, 0, "data"), required(node, 1, "indices")
    dims = ctx.shape(x)
    axis = normal_axis(int(node.attrs.get("axis", 0)), len(dims))

    def compute(tensor: te.Tensor, index: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            return tensor(*i[:axis], wrap_index(index(*i), dims[axis]), *i[axis + 1 :])

        return te.compute(index.shape, element, name="gather_elements")

    return ctx.te(compute, x, indices, name="gather_elements")


@converter("GatherND")
def gather_nd(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    x, indices = required(node, 0, "data"), required(node, 1, "indices")
    dims, (*outer, depth) = ctx.shape(x), ctx.shape(indices)
    batch = int(node.attrs.get("batch_dims", 0))
    out = (*outer, *dims[batch + depth :])

    def compute(tensor: te.Tensor, index: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            place = [wrap_index(index(*i[: len(outer)], k), dims[batch + k]) for k in range(depth)]
            return tensor(*i[:batch], *place, *i[len(outer) :])

        return te.compute(out, element, name="gather_nd")

    return ctx.te(compute, x, indices, name="gather_nd")


@converter("ScatterElements", "Scatter")
def scatter_elements(ctx: Context, node: Node) -> relax.Expr:
    """All element types and reductions."""
    x, indices, updates = (required(node, i, n) for i, n in enumerate(("data", "indices", "updates")))
    dims, shape = ctx.shape(x), ctx.shape(indices)
    axis = normal_axis(int(node.attrs.get("axis", 0)), len(dims))
    reduction = attr_text(node, "reduction", "none", tuple(_REDUCTIONS))
    known = ctx.value(indices)
    if known is not None and reduction == "none" and known.size:
        place = list(np.indices(shape))
        place[axis] = np.where(known < 0, known + dims[axis], known).clip(0, dims[axis] - 1)
        return _scatter_known(ctx, x, tuple(place), updates, 0)

    def place_of(index: Any, at: Sequence[Any]) -> list[Any]:
        return [*at[:axis], wrap_index(index[tuple(at)], dims[axis]), *at[axis + 1 :]]

    return _scatter(ctx, x, indices, updates, shape, place_of, reduction)


@converter("ScatterND")
def scatter_nd(ctx: Context, node: Node) -> relax.Expr:
    """All element types and reductions."""
    x, indices, updates = (required(node, i, n) for i, n in enumerate(("data", "indices", "updates")))
    dims, (*outer, depth) = ctx.shape(x), ctx.shape(indices)
    reduction = attr_text(node, "reduction", "none", tuple(_REDUCTIONS))
    known = ctx.value(indices)
    if known is not None and reduction == "none" and known.size:
        extents = np.array(dims[:depth])
        wrapped = np.where(known < 0, known + extents, known).clip(0, extents - 1)
        return _scatter_known(ctx, x, tuple(np.moveaxis(wrapped, -1, 0)), updates, len(dims) - depth)

    def place_of(index: Any, at: Sequence[Any]) -> list[Any]:
        head = [wrap_index(index[(*at[: len(outer)], k)], dims[k]) for k in range(depth)]
        return [*head, *at[len(outer) :]]

    return _scatter(ctx, x, indices, updates, (*outer, *dims[depth:]), place_of, reduction)


def _scatter_known(
    ctx: Context, x: relax.Expr, place: tuple[NDArray[Any], ...], updates: relax.Expr, tail: int
) -> relax.Expr:
    """Scatter to constant places, read the other way round: each element knows which update it takes, if any.

    Args:
        place: Index of every update along each of the leading axes of ``x``.
        tail: Axes of ``x`` behind those, which are copied whole.
    """
    dims = ctx.shape(x)
    head = len(dims) - tail
    source = np.full(dims[:head], -1, dtype=np.int32)
    for update, target in enumerate(zip(*(p.ravel() for p in place), strict=True)):
        source[target] = update
    count = place[0].size
    flat = reshape(ctx, updates, (count, *dims[head:]))

    def compute(tensor: te.Tensor, new: te.Tensor, origin: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            k = origin(*i[:head])
            inside = tirx.max(tirx.min(k, number(count - 1, "int32")), number(0, "int32"))
            return choose(k >= 0, new(inside, *i[head:]), tensor(*i))

        return te.compute(dims, element, name="scatter")

    return ctx.te(compute, x, flat, ctx.const(source), name="scatter")


def _scatter(
    ctx: Context,
    x: relax.Expr,
    indices: relax.Expr,
    updates: relax.Expr,
    shape: Sequence[int],
    place_of: Callable[[Any, Sequence[Any]], list[Any]],
    reduction: str,
) -> relax.Expr:
    """Copy ``x``, then apply the updates of ``shape`` one after the other."""
    dims, dtype = ctx.shape(x), ctx.dtype(x)
    combine = _REDUCTIONS[reduction]

    def body(source: Any, index: Any, new: Any, target: Any) -> None:
        with T.grid(*dims) as at:
            at = _as_tuple(at)
            target[at] = source[at]
        if 0 not in shape:
            with T.grid(*shape) as at:
                at = _as_tuple(at)
                place = tuple(place_of(index, at))
                target[place] = combine(target[place], new[at])

    if not dims or not shape:
        raise UnsupportedNode("scattering into a scalar is not supported")
    return loops(ctx, "scatter", [x, indices, updates], [(dims, dtype)], body)[0]


def _as_tuple(at: Any) -> tuple[Any, ...]:
    return tuple(at) if isinstance(at, Sequence) else (at,)


@converter("TensorScatter")
def tensor_scatter(ctx: Context, node: Node) -> relax.Expr:
    """All element types, both modes; in mode linear, updates beyond the end are dropped."""
    cache, update = required(node, 0, "past_cache"), required(node, 1, "update")
    starts = node.input(2)
    dims = ctx.shape(cache)
    axis = normal_axis(int(node.attrs.get("axis", -2)), len(dims))
    circular = attr_text(node, "mode", "linear", ("linear", "circular")) == "circular"
    extent, length = dims[axis], ctx.shape(update)[axis]

    def compute(old: te.Tensor, new: te.Tensor, *writes: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            start = writes[0](i[0]) if writes else number(0, "int64")
            offset = i[axis].astype("int64") - start
            if circular:
                offset = tirx.floormod(offset, number(extent, "int64"))
            hit = tirx.all(offset >= number(0, "int64"), offset < number(length, "int64"))
            safe = tirx.max(tirx.min(offset, number(length - 1, "int64")), number(0, "int64"))
            return choose(hit, new(*i[:axis], safe, *i[axis + 1 :]), old(*i))

        return te.compute(dims, element, name="tensor_scatter")

    return ctx.te(compute, cache, update, *([starts] if starts is not None else []), name="tensor_scatter")


@converter("OneHot")
def one_hot(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; the depth must be constant."""
    indices, values = required(node, 0, "indices"), required(node, 2, "values")
    depth = int(ctx.require_value(node, 1, "depth").ravel()[0])
    shape = ctx.shape(indices)
    axis = normal_axis(int(node.attrs.get("axis", -1)), len(shape) + 1)
    whole = convert(ctx, indices, "int64")

    def compute(index: te.Tensor, value: te.Tensor) -> te.Tensor:
        def element(*i: Any) -> Any:
            k = index(*i[:axis], *i[axis + 1 :])
            k = tirx.Select(k < number(0, "int64"), k + number(depth, "int64"), k)
            return tirx.Select(k == i[axis].astype("int64"), value(1), value(0))

        return te.compute((*shape[:axis], depth, *shape[axis:]), element, name="one_hot")

    return ctx.te(compute, whole, values, name="one_hot")


@converter("Compress")
def compress(ctx: Context, node: Node) -> relax.Expr:
    """The condition must be constant: it decides the output's shape."""
    x, condition = required(node, 0, "input"), ctx.require_value(node, 1, "condition")
    axis = node.attrs.get("axis")
    if axis is None:
        x, axis = reshape(ctx, x, (math.prod(ctx.shape(x)),)), 0
    kept = np.flatnonzero(condition)
    return gather_axis(ctx, x, ctx.const(kept.astype(np.int64)), normal_axis(int(axis), len(ctx.shape(x))))


@converter("NonZero", "Unique")
def data_dependent(ctx: Context, node: Node) -> relax.Expr:
    """Only where the input is constant: the data decide the output's shape."""
    raise UnsupportedNode("its input must be a constant: the data decide the shape of the output")
