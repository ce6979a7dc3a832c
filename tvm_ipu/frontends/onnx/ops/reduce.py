"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_bool,
    full,
    in_float32,
    ints,
    is_float,
    normal_axis,
    number,
    required,
    scalar,
    value_limits,
)
from tvm_ipu.frontends.onnx.ops.types import convert

R = relax.op


def reduction_axes(ctx: Context, node: Node, rank: int, input_since: int) -> tuple[int, ...] | None:
    """Axes of a reduction, ascending; None where nothing is to be reduced.

    Args:
        rank: Rank of the operand.
        input_since: Opset in which the axes became an input.
    """
    if node.since < input_since:
        given = [int(a) for a in node.attrs.get("axes", ())]
    else:
        given = ints(ctx.require_value(node, 1, "axes")) if node.input(1) is not None else []
    if not given:
        return None if attr_bool(node, "noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted({normal_axis(a, rank) for a in given}))


Reducer = Callable[[relax.Expr, tuple[int, ...], bool], relax.Expr]


def _log_sum_exp(ctx: Context) -> Reducer:
    def reduce(x: relax.Expr, axes: tuple[int, ...], keepdims: bool) -> relax.Expr:
        zero = scalar(ctx, 0.0, ctx.dtype(x))
        peak = ctx.emit(R.max(x, list(axes), True))
        peak = ctx.emit(R.where(R.isinf(peak), zero, peak))
        total = R.sum(R.exp(R.subtract(x, peak)), list(axes), True)
        result = ctx.emit(R.add(R.log(total), peak))
        return result if keepdims else ctx.emit(R.squeeze(result, list(axes)))

    return reduce


_REDUCERS: dict[str, Reducer] = {
    "ReduceSum": lambda x, axes, keep: R.sum(x, list(axes), keep),
    "ReduceMean": lambda x, axes, keep: R.mean(x, list(axes), keep),
    "ReduceMax": lambda x, axes, keep: R.max(x, list(axes), keep),
    "ReduceMin": lambda x, axes, keep: R.min(x, list(axes), keep),
    "ReduceProd": lambda x, axes, keep: R.prod(x, list(axes), keep),
    "ReduceL1": lambda x, axes, keep: R.sum(R.abs(x), list(axes), keep),
    "ReduceL2": lambda x, axes, keep: R.sqrt(R.sum(R.multiply(x, x), list(axes), keep)),
    "ReduceSumSquare": lambda x, axes, keep: R.sum(R.multiply(x, x), list(axes), keep),
    "ReduceLogSum": lambda x, axes, keep: R.log(R.sum(x, list(axes), keep)),
}
_OF_NOTHING = {
    "ReduceProd": 1.0,
    "ReduceMean": math.nan,
    "ReduceLogSum": -math.inf,
    "ReduceLogSumExp": -math.inf,
}
_THROUGH_FLOAT = ("ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")


@converter(*_REDUCERS, "ReduceLogSumExp")
def reduce_op(ctx: Context, node: Node) -> relax.Expr:
    """All element types of the operator; the axes must be constant. Half precision is computed in float32."""
    op, x = node.op_type, required(node, 0, "data")
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    axes = reduction_axes(ctx, node, len(shape), 13 if op == "ReduceSum" else 18)
    keepdims = bool(node.attrs.get("keepdims", 1))
    axes = () if axes is None else axes
    if any(shape[a] == 0 for a in axes) or 0 in shape:
        return _reduce_nothing(ctx, op, shape, dtype, axes, keepdims)
    reducer = _REDUCERS.get(op) or _log_sum_exp(ctx)
    if not axes:  # an axis of extent 1 makes reducing it the identity
        widened = ctx.emit(R.reshape(x, (*shape, 1)))
        return _typed(ctx, op, widened, dtype, lambda v: reducer(v, (len(shape),), False))
    return _typed(ctx, op, x, dtype, lambda v: reducer(v, axes, keepdims))


def _typed(
    ctx: Context, op: str, x: relax.Expr, dtype: str, fn: Callable[[relax.Expr], relax.Expr]
) -> relax.Expr:
    """Apply a reduction in the type that it is computed in."""
    if dtype == "bool":
        return convert(ctx, ctx.emit(fn(convert(ctx, x, "int8"))), "bool")
    if not is_float(dtype) and op in _THROUGH_FLOAT:
        return convert(ctx, ctx.emit(fn(convert(ctx, x, "float64"))), dtype)
    return in_float32(ctx, fn, x)


def _reduce_nothing(
    ctx: Context, op: str, shape: tuple[int, ...], dtype: str, axes: tuple[int, ...], keepdims: bool
) -> relax.Expr:
    """What a reduction of an empty tensor gives."""
    lowest, highest = value_limits(dtype)
    value = {"ReduceMax": lowest, "ReduceMin": highest}.get(op, _OF_NOTHING.get(op, 0.0))
    kept = [1 if i in axes else e for i, e in enumerate(shape) if keepdims or i not in axes]
    if not is_float(dtype) and not math.isfinite(value):
        value = lowest
    return full(ctx, kept, value, dtype)


def arg_extremum(x: te.Tensor, axis: int, maximum: bool, last: bool) -> te.Tensor:
    """Index as int32 of the largest or smallest element along ``axis``, which is removed from the shape.

    Args:
        last: Of equal elements take the last one, else the first.
    """
    extent = int(x.shape[axis])
    shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
    k, j = (te.reduce_axis((0, extent), name=n) for n in "kj")
    find, pick = te.max if maximum else te.min, te.max if last else te.min
    none = number(0 if last else extent - 1, "int32")

    def at(index: Any, position: Any) -> Any:
        return x(*index[:axis], position, *index[axis:])

    best = te.compute(shape, lambda *i: find(at(i, k.var), axis=k), name="extremum")

    def position(*index: Any) -> Any:
        hit = at(index, j.var) == best(*index)
        return pick(tirx.Select(hit, j.var.astype("int32"), none), axis=j)

    return te.compute(shape, position, name="arg_index")


@converter("ArgMax", "ArgMin")
def arg_op(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types."""
    x = required(node, 0, "data")
    shape = ctx.shape(x)
    axis = normal_axis(int(node.attrs.get("axis", 0)), len(shape))
    maximum, last = node.op_type == "ArgMax", attr_bool(node, "select_last_index")

    def compute(tensor: te.Tensor) -> te.Tensor:
        index = arg_extremum(tensor, axis, maximum, last)
        return te.compute(index.shape, lambda *i: index(*i).astype("int64"), name="arg")

    result = ctx.te(compute, x, name=node.op_type.lower())
    if not node.attrs.get("keepdims", 1):
        return result
    return ctx.emit(R.reshape(result, [1 if i == axis else e for i, e in enumerate(shape)]))
