"""Pooling over windows and over whole images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, te, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.context import Context, Node, converter
from tvm_ipu.frontends.onnx.ops.common import (
    HALF_TYPES,
    attr_bool,
    in_float32,
    ints,
    is_float,
    loops,
    number,
    required,
    value_limits,
)
from tvm_ipu.frontends.onnx.ops.shape import pad_constant, reshape
from tvm_ipu.frontends.onnx.ops.window import Window, read_window

R = relax.op


def _window(ctx: Context, node: Node, x: relax.Expr) -> Window:
    return read_window(node, ctx.shape(x)[2:], [int(k) for k in node.attrs["kernel_shape"]])


@converter("MaxPool")
def max_pool(ctx: Context, node: Node) -> list[relax.Expr]:
    """All element types of the operator; any number of spatial axes, dilations, ceiling mode, indices."""
    x = required(node, 0, "X")
    window = _window(ctx, node, x)
    results = [_max_values(ctx, x, window)]
    if len(node.outputs) > 1 and node.outputs[1]:
        results.append(_max_indices(ctx, x, window, attr_bool(node, "storage_order")))
    return results


def _max_values(ctx: Context, x: relax.Expr, window: Window) -> relax.Expr:
    if window.rank == 2 and min(window.padding) >= 0:
        return ctx.emit(R.nn.max_pool2d(x, window.kernel, window.strides, window.padding, window.dilations))
    if window.rank == 1 and min(window.padding) >= 0:
        n, c, w = ctx.shape(x)
        pads = (0, window.begins[0], 0, window.ends[0])
        flat = reshape(ctx, x, (n, c, 1, w))
        size, step, gap = ((1, v[0]) for v in (window.kernel, window.strides, window.dilations))
        return reshape(ctx, ctx.emit(R.nn.max_pool2d(flat, size, step, pads, gap)), (n, c, *window.outputs))
    dtype = ctx.dtype(x)
    lowest = value_limits(dtype)[0]

    def compute(tensor: te.Tensor) -> te.Tensor:
        return _reduce_windows(
            tensor, window, lambda read, axes: te.max(read(number(lowest, dtype)), axis=axes), "max_pool"
        )

    return ctx.te(compute, x, name="max_pool")


def _reduce_windows(
    x: te.Tensor, window: Window, reduce: Callable[[Callable[[Any], Any], list[Any]], Any], name: str
) -> te.Tensor:
    """A tensor [N, C, *outputs] with one reduction for each window.

    Args:
        reduce: Gets a function that reads the tap (its argument stands for padding) and the window's axes.
    """
    taps = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(window.kernel)]

    def element(n: Any, c: Any, *at: Any) -> Any:
        place, inside = window_place(window, x.shape[2:], at, [t.var for t in taps])

        def read(padding: Any) -> Any:
            return tirx.if_then_else(inside, x(n, c, *place), padding)

        return reduce(read, taps)

    return te.compute((*x.shape[:2], *window.outputs), element, name=name)


def window_place(
    window: Window, extents: Sequence[Any], at: Sequence[Any], taps: Sequence[Any]
) -> tuple[list[Any], Any]:
    """Position in the tensor of a tap of the window at ``at``, and whether it lies inside."""
    place = [
        a * s + t * d - b
        for a, t, s, d, b in zip(at, taps, window.strides, window.dilations, window.begins, strict=True)
    ]
    return place, tirx.all(*(tirx.all(p >= 0, p < e) for p, e in zip(place, extents, strict=True)))


def _max_indices(ctx: Context, x: relax.Expr, window: Window, column_major: bool) -> relax.Expr:
    """Position in the flattened tensor of the largest element of each window, the first one of several."""
    dtype, dims = ctx.dtype(x), ctx.shape(x)
    spatial = math.prod(dims[2:])
    lowest = number(value_limits(dtype)[0], dtype)

    def compute(tensor: te.Tensor) -> te.Tensor:
        best = _reduce_windows(
            tensor, window, lambda read, axes: te.max(read(lowest), axis=axes), "window_max"
        )
        taps = [te.reduce_axis((0, k), name=f"k{i}") for i, k in enumerate(window.kernel)]

        def first(n: Any, c: Any, *at: Any) -> Any:
            place, inside = window_place(window, dims[2:], at, [t.var for t in taps])
            value = tirx.if_then_else(inside, tensor(n, c, *place), lowest)
            linear: Any = number(0, "int64")
            for p, e in zip(place, dims[2:], strict=True):
                linear = linear * number(e, "int64") + p.astype("int64")
            hit = tirx.all(inside, value == best(n, c, *at))
            return te.min(tirx.Select(hit, linear, number(spatial - 1, "int64")), axis=taps)

        position = te.compute((*dims[:2], *window.outputs), first, name="first_max")

        def flatten(n: Any, c: Any, *at: Any) -> Any:
            index = position(n, c, *at)
            if column_major:
                index = _column_major(index, dims[2:])
            plane = n.astype("int64") * number(dims[1], "int64") + c.astype("int64")
            return plane * number(spatial, "int64") + index

        return te.compute(position.shape, flatten, name="max_pool_index")

    return ctx.te(compute, x, name="max_pool_index")


def _column_major(index: Any, extents: Sequence[int]) -> Any:
    """A row-major position in an image as a column-major one."""
    result: Any = number(0, "int64")
    step = math.prod(extents)
    for extent in reversed(extents):
        step //= extent
        result = result + tirx.floormod(index, number(extent, "int64")) * number(step, "int64")
        index = tirx.floordiv(index, number(extent, "int64"))
    return result


@converter("AveragePool")
def average_pool(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; any number of spatial axes, dilations, ceiling mode, padding counted or not."""
    x = required(node, 0, "X")
    window = _window(ctx, node, x)
    counted = attr_bool(node, "count_include_pad")
    plain = window.ends == window.declared_ends or not any((*window.begins, *window.ends)) or not counted
    if window.rank == 2 and plain and min(window.padding) >= 0:
        return in_float32(
            ctx,
            lambda v: R.nn.avg_pool2d(
                v, window.kernel, window.strides, window.padding, window.dilations, count_include_pad=counted
            ),
            x,
        )
    dtype = ctx.dtype(x)
    work = "float32" if dtype in HALF_TYPES else dtype
    extents = ctx.shape(x)[2:]

    def compute(tensor: te.Tensor) -> te.Tensor:
        zero = number(0.0, dtype)
        total = _reduce_windows(
            tensor, window, lambda read, axes: te.sum(read(zero).astype(work), axis=axes), "window_sum"
        )

        def element(n: Any, c: Any, *at: Any) -> Any:
            count: Any = number(1, "int32")
            for i, a in enumerate(at):
                count = count * _taps_inside(window, i, a.astype("int32"), extents[i], counted)
            return (total(n, c, *at) / tirx.max(count, number(1, "int32")).astype(work)).astype(dtype)

        return te.compute(total.shape, element, name="average_pool")

    return ctx.te(compute, x, name="average_pool")


def _taps_inside(window: Window, axis: int, at: Any, extent: int, counted: bool) -> Any:
    """Taps along one axis that lie in the tensor, or with ``counted`` in its declared padding as well."""
    start = at * window.strides[axis] - window.begins[axis]
    low = -window.begins[axis] if counted else 0
    high = extent + window.declared_ends[axis] if counted else extent
    gap = window.dilations[axis]
    first = tirx.floordiv(tirx.max(low - start, 0) + gap - 1, gap)
    behind = tirx.floordiv(tirx.max(high - start, 0) + gap - 1, gap)
    return tirx.max(tirx.min(behind, window.kernel[axis]) - first, 0)


@converter("LpPool")
def lp_pool(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; any number of spatial axes, dilations, ceiling mode."""
    x = required(node, 0, "X")
    window = _window(ctx, node, x)
    order, dtype = int(node.attrs.get("p", 2)), ctx.dtype(x)
    work = "float32" if dtype in HALF_TYPES else dtype

    def compute(tensor: te.Tensor) -> te.Tensor:
        def powers(read: Callable[[Any], Any], axes: list[Any]) -> Any:
            return te.sum(_power(read(number(0.0, dtype)).astype(work), order), axis=axes)

        total = _reduce_windows(tensor, window, powers, "power_sum")
        return te.compute(total.shape, lambda *i: _root(total(*i), order).astype(dtype), name="lp_pool")

    return ctx.te(compute, x, name="lp_pool")


def _power(value: Any, order: int) -> Any:
    """``|value| ** order`` by multiplications."""
    size = tirx.abs(value)
    result = size
    for _ in range(order - 1):
        result = result * size
    return result


def _root(value: Any, order: int) -> Any:
    if order == 1:
        return value
    dtype = str(value.ty.dtype)
    if order == 2:
        return tirx.sqrt(value)
    return tirx.Select(
        value > number(0.0, dtype), tirx.power(value, number(1.0 / order, dtype)), number(0.0, dtype)
    )


@converter("GlobalAveragePool", "GlobalMaxPool")
def global_pool(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any number of spatial axes."""
    x = required(node, 0, "X")
    axes = list(range(2, len(ctx.shape(x))))
    if node.op_type == "GlobalMaxPool":
        return ctx.emit(R.max(x, axes, True))
    return in_float32(ctx, lambda v: R.mean(v, axes, True), x)


@converter("GlobalLpPool")
def global_lp_pool(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any number of spatial axes."""
    x = required(node, 0, "X")
    dims, dtype, order = ctx.shape(x), ctx.dtype(x), int(node.attrs.get("p", 2))
    work = "float32" if dtype in HALF_TYPES else dtype

    def compute(tensor: te.Tensor) -> te.Tensor:
        axes = [te.reduce_axis((0, d), name=f"k{i}") for i, d in enumerate(dims[2:])]
        total = te.compute(
            dims[:2],
            lambda n, c: te.sum(_power(tensor(n, c, *axes).astype(work), order), axis=axes),
            name="power_sum",
        )
        shape = (*dims[:2], *[1] * (len(dims) - 2))
        return te.compute(shape, lambda n, c, *_: _root(total(n, c), order).astype(dtype), name="lp_pool")

    return ctx.te(compute, x, name="global_lp_pool")


@converter("MaxUnpool")
def max_unpool(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; the output shape, if given, must be constant. Indices are clamped."""
    x, indices = required(node, 0, "X"), required(node, 1, "I")
    dims, dtype = ctx.shape(x), ctx.dtype(x)
    rank = len(dims) - 2
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    strides = [int(s) for s in node.attrs.get("strides", [1] * rank)]
    pads = [int(p) for p in node.attrs.get("pads", [0] * 2 * rank)]
    spatial = [(dims[i + 2] - 1) * strides[i] + kernel[i] - pads[i] - pads[i + rank] for i in range(rank)]
    inferred = [*dims[:2], *spatial]
    size, count = math.prod(inferred), math.prod(dims)

    def body(source: Any, index: Any, target: Any) -> None:
        with T.serial(size) as i:
            target[i] = number(0, dtype)
        with T.serial(count) as i:
            place = tirx.max(tirx.min(index[i], number(size - 1, "int64")), number(0, "int64"))
            target[place] = source[i]

    flat = [reshape(ctx, e, (count,)) for e in (x, indices)]
    (result,) = loops(ctx, "max_unpool", flat, [((size,), dtype)], body)
    result = reshape(ctx, result, inferred)
    if node.input(2) is None:
        return result
    target = ints(ctx.require_value(node, 2, "output_shape"))
    ends = [t - s for t, s in zip(target, inferred, strict=True)]
    return pad_constant(ctx, result, [0] * len(dims), ends, 0 if not is_float(dtype) else 0.0)
