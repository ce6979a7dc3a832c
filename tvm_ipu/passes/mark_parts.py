"""Mark concatenations and slices along the innermost dimension that shall be done without moving data.

    lv = R.concat((a, b), axis=3)    ->    lv = R.call_pure_packed("tvm_ipu.concat", a, b)
    lv = R.split(x, 2, axis=3)       ->    lv0 = R.call_pure_packed("tvm_ipu.slice", x, R.prim_value(0)) ...

Between layers with kernels of their own only: fusion stops at a mark, and elsewhere it gains more.
"""

from __future__ import annotations

import math
from collections import defaultdict

import tvm
from tvm import relax

from tvm_ipu.base.model import CONCAT, SLICE, VIEW_OPS
from tvm_ipu.passes.rewrite import Rewriter, bindings, op_name, rewrite, shape_of, used_vars

LAYERS = frozenset(
    f"relax.{name}"
    for name in ("nn.conv2d", "nn.max_pool2d", "nn.avg_pool2d", "image.resize2d", "matmul", "concat")
)
"""Operators for whose sake the result is marked: they have kernels of their own anyway."""

Users = dict[relax.Var, list[str]]


def mark_parts(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Replace concatenations and slices that have a layer's kernel on both sides."""
    users = _users(module["main"])

    def rule(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
        old = rewriter.current
        name = op_name(call)
        if name == "relax.concat":
            return _concat(rewriter, call, users[old])
        if name in ("relax.split", "relax.strided_slice"):
            return _slices(rewriter, call, users[old])
        return None

    return rewrite(module, rule)


def _users(main: relax.Function) -> Users:
    """Operators that use each variable or, of a tuple, one of its fields."""
    users: Users = defaultdict(list)
    fields: dict[relax.Var, relax.Var] = {}
    for binding in bindings(main):
        value = binding.value
        for var in used_vars(value):
            users[var].append(op_name(value))
            if var in fields:
                users[fields[var]].append(op_name(value))
        if isinstance(value, relax.TupleGetItem) and isinstance(value.tuple_value, relax.Var):
            fields[binding.var] = value.tuple_value
    return users


def _concat(rewriter: Rewriter, call: relax.Call, users: list[str]) -> relax.Expr | None:
    fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
    if len(fields) < 2 or not _is_innermost(call, int(call.attrs.axis)) or LAYERS.isdisjoint(users):
        return None
    if not any(_is_computed(rewriter, field) for field in fields):
        return None
    return relax.op.call_pure_packed(CONCAT, *fields, ty_args=[call.ty])


def _slices(rewriter: Rewriter, call: relax.Call, users: list[str]) -> relax.Expr | None:
    (source, *_), shape = call.args, shape_of(call.args[0])
    if LAYERS.isdisjoint(users) or not _is_computed(rewriter, source):
        return None
    if op_name(call) == "relax.split":
        if not _is_innermost(source, int(call.attrs.axis)):
            return None
        first, parts = 0, []
        for field in call.ty.fields:
            parts.append(rewriter.emit(_slice(source, first, field)))
            first += int(field.shape[-1])
        return relax.Tuple(parts)
    start = _slice_start(call)
    if start is None or shape_of(call)[:-1] != shape[:-1] or not _is_innermost(source, -1):
        return None
    return _slice(source, start, call.ty)


def _slice_start(call: relax.Call) -> int | None:
    """First element of a slice of the last axis by steps of 1; None for other slices."""
    _, axes, begin, _, *rest = call.args
    steps = [int(s.value) for s in rest[0].fields] if rest else [1] * len(axes.fields)
    rank = len(call.ty.shape)
    starts = {int(a.value) % rank: int(b.value) for a, b in zip(axes.fields, begin.fields, strict=True)}
    if any(step != 1 for step in steps) or rank - 1 not in starts:
        return None
    size = shape_of(call.args[0])[-1]
    start = starts[rank - 1]
    return min(start + size if start < 0 else start, size)


def _slice(source: relax.Expr, first: int, ty: relax.TensorType) -> relax.Expr:
    return relax.op.call_pure_packed(SLICE, source, relax.prim_value(first), ty_args=[ty])


def _is_innermost(expr: relax.Expr, axis: int) -> bool:
    """Whether an axis is the last of several, and there is more than one row."""
    shape = shape_of(expr)
    return len(shape) > 1 and axis % len(shape) == len(shape) - 1 and math.prod(shape[:-1]) > 1


def _is_computed(rewriter: Rewriter, expr: relax.Expr) -> bool:
    """Whether a kernel makes a value, as opposed to inputs, constants and other shapes of something."""
    value = rewriter.value(expr)
    return isinstance(value, relax.Call) and op_name(value) not in VIEW_OPS
