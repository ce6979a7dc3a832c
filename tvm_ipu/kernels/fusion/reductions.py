"""Rewrites of reductions: parts of a long one for threads to share, and infinite initial values."""

from __future__ import annotations

import math
from dataclasses import replace

from tvm import ir, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.core_model import MIN_CYCLES_PER_THREAD
from tvm_ipu.kernels.expressions import dtype_of, i32, shape_of, substitute
from tvm_ipu.kernels.fusion.ops import Axis, Op
from tvm_ipu.kernels.fusion.reducers import reducer_of
from tvm_ipu.kernels.split import cycles

FEW_RESULTS = 16
"""Fewer results than this leave threads without work."""

PARTS = range(64, 7, -1)
"""Into how many parts a reduction may be cut, the best number first."""


def in_parts(op: Op, target: Target) -> list[Op]:
    """A long reduction to few results as partial reductions and one over their results.

    s[j] = sum_k x[j, k]      ->      p[i, j] = sum_k x[j, 64 i + k]      s[j] = sum_i p[i, j]
    """
    reducer = reducer_of(op.accumulators, op.values)
    results = math.prod(axis.extent for axis in op.axes)
    if reducer is None or not reducer.is_simple or target.cores == 1 or results > FEW_RESULTS:
        return [op]
    if cycles(op) < 4 * MIN_CYCLES_PER_THREAD:
        return [op]
    choices = [(axis, parts) for axis in op.reduce for parts in PARTS if axis.extent % parts == 0]
    if not choices:
        return [op]
    axis, parts = choices[0]
    (target_buffer,), (so_far,) = op.targets, op.accumulators
    outer = Axis(tirx.Var("part", "int32"), parts)
    partial = tirx.decl_buffer((parts, *shape_of(target_buffer)), dtype_of(target_buffer), "partial")
    reduce = []
    values = op.values
    for own in op.reduce:
        if own != axis:
            reduce.append(own)
            continue
        inner = Axis(tirx.Var(own.var.name, "int32"), own.extent // parts)
        at = outer.var * i32(inner.extent) + inner.var if inner.extent > 1 else outer.var
        values = tuple(substitute(value, {own.var: at}) for value in values)
        if inner.extent > 1:
            reduce.append(inner)
    first = Op(
        (partial,), (outer, *op.axes), (outer.var, *op.indices), values, tuple(reduce), (so_far,), op.inits
    )
    whole = Axis(tirx.Var("part", "int32"), parts)
    total = reducer.combine([so_far], [tirx.BufferLoad(partial, [whole.var, *op.indices])])
    second = replace(op, values=tuple(total), reduce=(whole,))
    return [first, second]


def from_infinity(op: Op) -> Op:
    """A maximum that starts from minus infinity, not from the lowest number, and a minimum likewise."""
    if len(op.values) != 1 or not isinstance(op.values[0], tirx.Max | tirx.Min) or not op.inits:
        return op
    dtype = op.accumulators[0].ty.dtype
    if "float" not in dtype:
        return op
    infinity = -math.inf if isinstance(op.values[0], tirx.Max) else math.inf
    return replace(op, inits=(tirx.const(infinity, str(dtype)),)) if _is_extreme(op.inits[0]) else op


def _is_extreme(value: ir.Expr) -> bool:
    return isinstance(value, tirx.FloatImm) and abs(value.value) >= 6e4
