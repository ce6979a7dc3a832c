"""Put attention into one kernel: scores, what is done to them, softmax and context.

lv0 = R.permute_dims(q, axes=[0, 2, 1, 3])       lv0 = R.call_tir(attention, (q, k, v, mask))
lv1 = R.permute_dims(k, axes=[0, 2, 3, 1])       lv1 = R.permute_dims(lv0, axes=[0, 2, 1, 3])
lv2 = R.matmul(lv0, lv1)
lv3 = R.add(R.multiply(lv2, scale), mask)   ->
lv4 = R.nn.softmax(lv3)
lv5 = R.permute_dims(v, axes=[0, 2, 1, 3])
lv6 = R.matmul(lv4, lv5)

The kernel reads queries, keys and values where they lie, whatever order their dimensions are in; where a
transpose follows, it writes the result in that order, and the two transposes cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import tvm
from tvm import relax, te, tirx, topi

from tvm_ipu.kernels.attention import Axes, attention, where
from tvm_ipu.passes.lower_operators import call_te
from tvm_ipu.passes.rewrite import Rewriter, constant, op_name, rewrite, shape_of
from tvm_ipu.passes.simplify_transposes import permutation

ELEMENTWISE: dict[str, Callable[..., te.Tensor]] = {
    "relax.add": topi.add,
    "relax.subtract": topi.subtract,
    "relax.multiply": topi.multiply,
    "relax.divide": topi.divide,
    "relax.maximum": topi.maximum,
    "relax.minimum": topi.minimum,
    "relax.where": where,
    "relax.tanh": topi.tanh,
}
"""Operators that may lie between the scores and softmax, beside ``astype``."""

FLOATS = ("float32", "float16", "bfloat16")
"""Types of values."""


@dataclass(frozen=True)
class _Step:
    """One of these operators; ``args`` are its operands, with None for the result of the step before."""

    apply: Callable[..., te.Tensor]
    args: tuple[relax.Expr | None, ...]


def fuse_attention(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Replace products whose left operand is a softmax of scores."""
    return rewrite(module, _fuse)


def _fuse(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) != "relax.matmul" or str(call.ty.dtype) != "float32":
        return None
    weights, value = call.args
    dtype = str(weights.ty.dtype)
    inner = rewriter.value(weights)
    if op_name(inner) == "relax.astype" and rewriter.single_use(weights):
        weights = inner.args[0]
    softmax = rewriter.value(weights)
    rank = len(shape_of(call))
    if op_name(softmax) != "relax.nn.softmax" or not rewriter.single_use(weights) or rank < 3:
        return None
    if int(softmax.attrs.axis) % rank != rank - 1:
        return None
    found = _find_scores(rewriter, softmax.args[0], shape_of(softmax))
    if found is None:
        return None
    scores, steps = found
    query, key = scores.args
    if not _fits(call, query, key, value):
        return None
    to_heads = [*range(rank - 3), rank - 2, rank - 3, rank - 1]
    written = set(rewriter.uses[rewriter.current]) if rewriter.current is not None else set()
    result = to_heads if written <= {"relax.permute_dims", "relax.astype"} else list(range(rank))
    query, query_axes = _stored(rewriter, query, swapped=False)
    key, key_axes = _stored(rewriter, key, swapped=True)
    value, value_axes = _stored(rewriter, value, swapped=False)
    axes = Axes(query_axes, key_axes, value_axes, tuple(result))
    extras = [a for step in steps for a in step.args if a is not None and _immediate(a) is None]

    def compute(q: te.Tensor, k: te.Tensor, v: te.Tensor, *given: te.Tensor) -> te.Tensor:
        return attention(q, k, v, axes, lambda x: _transform(x, steps, list(given)), dtype)

    fused = call_te(rewriter, "attention", compute, [query, key, value, *extras])
    if result == list(range(rank)):
        return fused
    name = rewriter.current.name if rewriter.current is not None else ""
    return relax.op.permute_dims(rewriter.emit(fused, name), result)


def _fits(call: relax.Call, query: relax.Expr, key: relax.Expr, value: relax.Expr) -> bool:
    """Queries of every head; keys and values of as many heads, or of one that all share."""
    batch = shape_of(call)[:-2]
    shared = [shape_of(operand)[:-2] for operand in (key, value)]
    return (
        shape_of(query)[:-2] == batch
        and 0 not in (*shape_of(call), *shape_of(key))
        and all(len(own) == len(batch) for own in shared)
        and all(mine in (1, size) for own in shared for mine, size in zip(own, batch, strict=True))
        and str(value.ty.dtype) in FLOATS
    )


def _find_scores(
    rewriter: Rewriter, expr: relax.Expr, shape: tuple[int, ...]
) -> tuple[relax.Call, list[_Step]] | None:
    """The product that a softmax's operand is made from, and the elementwise steps after it."""
    call = rewriter.value(expr)
    if not rewriter.single_use(expr) or shape_of(expr) != shape:
        return None
    name = op_name(call)
    if name == "relax.matmul":
        return (call, []) if str(call.ty.dtype) in ("float32", "int32") else None
    apply = ELEMENTWISE.get(name)
    if name == "relax.astype":
        apply = partial(topi.cast, dtype=str(call.ty.dtype))
    if apply is None:
        return None
    for number, arg in enumerate(call.args):
        found = _find_scores(rewriter, arg, shape)
        if found is not None:
            product, steps = found
            args = tuple(None if i == number else other for i, other in enumerate(call.args))
            return product, [*steps, _Step(apply, args)]
    return None


def _transform(x: te.Tensor, steps: Sequence[_Step], given: list[te.Tensor]) -> te.Tensor:
    """The steps applied to the scores; ``given`` are their operands but for constants of one element."""
    for step in steps:
        operands = []
        for arg in step.args:
            number = None if arg is None else _immediate(arg)
            operands.append(x if arg is None else given.pop(0) if number is None else number)
        x = step.apply(*operands)
    return x


def _immediate(expr: relax.Expr) -> tirx.Expr | None:
    """A constant of one element as a number."""
    value = constant(expr)
    return tirx.const(value.item(), str(value.dtype)) if value is not None and value.size == 1 else None


def _stored(rewriter: Rewriter, expr: relax.Expr, swapped: bool) -> tuple[relax.Expr, tuple[int, ...]]:
    """A tensor with its elements last in memory, and the permutation that makes ``expr`` of it.

    Args:
        rewriter: What knows the bindings.
        expr: ``[..., rows, elements]``, or ``[..., elements, rows]`` with ``swapped``.
        swapped: Whether the last two dimensions are to be swapped.
    """
    rank = len(shape_of(expr))
    swap = [*range(rank - 2), rank - 1, rank - 2] if swapped else list(range(rank))
    inner = rewriter.value(expr)
    if op_name(inner) == "relax.permute_dims":
        own = permutation(inner)
        axes = tuple(own[axis] for axis in swap)
        if axes[-1] == rank - 1:
            return inner.args[0], axes
    if swapped:
        return rewriter.emit(relax.op.permute_dims(expr, swap)), tuple(range(rank))
    return expr, tuple(range(rank))
