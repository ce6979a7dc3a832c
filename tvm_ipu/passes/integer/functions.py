"""Elementwise functions of one tensor, computed once at compile time (docs/numerics.md, tables)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer import tables
from tvm_ipu.passes.integer.known import Known
from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import Array, NoInteger, Quantized, Sum, real_constant
from tvm_ipu.passes.rewrite import Rewriter, make_constant, shape_of

R = relax.op

MAX_ENTRIES = {"int8": 4096, "uint8": 4096, "int16": 2**17}
"""Entries of a table for a function of sums, by the type of its result."""
FINE_STEPS = 8
"""Entries of such a table for each step of the result, where that many fit."""
MAX_SAMPLES = 2**20
"""Arguments that are tried to find out where a function saturates."""


def of_tensor(known: Known, real: relax.Expr, result: Result) -> relax.Expr | None:
    """A function of one tensor as a table of an entry for each of its integers."""
    leaves: dict[relax.Expr, Quantized] = {}

    def leaf(expr: relax.Expr) -> Array | None:
        q = known.quantized(expr)
        if q is None:
            return None
        found = known.tables.get(q.expr) if isinstance(q.expr, relax.Var) else None
        root, integers = found or (q, tables.integers(q))
        leaves[root.expr] = root
        return (integers - q.zero) * q.scale if len(leaves) == 1 else None

    values = _evaluate(known.rewriter, real, leaf)
    if values is None or len(leaves) != 1:
        return None
    (root,) = leaves.values()
    if shape_of(root.expr) != shape_of(real):
        return None
    table = tables.to_table(np.broadcast_to(values, tables.integers(root).shape), result)
    var = known.rewriter.emit(tables.look_up(root, table, result.dtype), known.rewriter.layer)
    known.tables[var] = (root, table)
    return var


def of_sum(known: Known, real: relax.Expr, result: Result) -> relax.Expr | None:
    """A function of sums: they are requantised to positions in a table.

    Outside the table the function has reached the end of the result's range, or no longer changes.

    Raises:
        NoInteger: The function changes over a range too wide for a table.
    """
    sums: list[Sum] = []

    def collect(expr: relax.Expr) -> Array | None:
        total = known.total(expr)
        if total is not None:
            sums.append(total)
        return None if total is None else np.ones(1)

    if _evaluate(known.rewriter, real, collect) is None or not sums:
        return None
    base = sums[0]
    if any(_factor(s, base) is None for s in sums) or shape_of(base.expr) != shape_of(real):
        return None

    def integers(x: Array) -> Array:
        def leaf(expr: relax.Expr) -> Array | None:
            total = known.total(expr)
            return None if total is None else x * (_factor(total, base) or 0.0)

        values = _evaluate(known.rewriter, real, leaf)
        return tables.to_table(np.broadcast_to(np.zeros(1) if values is None else values, x.shape), result)

    step, first, entries = _grid(base, result, integers)
    table = integers((first + np.arange(entries)) * step)
    position = known.arithmetic.requantize(base, Result("int32", step, -first, 0, entries - 1))
    inside = R.clip(position, 0, entries - 1)  # whatever a damaged multiplier gives
    return R.take(make_constant(table.astype(result.dtype)), inside, axis=0)


def _factor(total: Sum, base: Sum) -> float | None:
    """The number by which one value is another one's multiple, both being the same sums."""
    if not (isinstance(total.expr, relax.Var) and total.expr.same_as(base.expr)):
        return None
    if total.offset.any() or base.offset.any() or not base.scale.all():
        return None
    ratio = np.asarray(total.scale / base.scale)
    return float(ratio.flat[0]) if np.allclose(ratio, ratio.flat[0], rtol=1e-12, atol=0) else None


def _grid(base: Sum, result: Result, integers: Callable[[Array], Array]) -> tuple[float, int, int]:
    """Step between the arguments in the table, number of the first of them, and how many there are."""
    reach = base.reach * float(np.abs(base.scale).max())
    step = result.single_scale / FINE_STEPS
    count = int(min(np.ceil(reach / step), MAX_SAMPLES / 2))
    samples = np.linspace(-reach, reach, 2 * count + 1)
    values = integers(samples)
    changes = np.flatnonzero(np.diff(values))
    low, high = (samples[changes[0]], samples[changes[-1] + 1]) if changes.size else (0.0, 0.0)
    entries = MAX_ENTRIES[result.dtype]
    step = max(step, (high - low) / (entries - 3))
    if step > result.single_scale:
        raise NoInteger(f"a function of sums that does not saturate within {entries} steps")
    first = int(np.floor(low / step)) - 1
    return step, first, int(np.ceil(high / step)) + 2 - first


def _evaluate(
    rewriter: Rewriter, real: relax.Expr, leaf: Callable[[relax.Expr], Array | None]
) -> Array | None:
    """Numbers of an elementwise expression of constants and leaves; None where it is none."""
    value = real_constant(rewriter, real)
    if value is not None:
        return value.reshape(()) if value.size == 1 else None
    value = leaf(real)
    if value is not None:
        return value
    name, args = tables.elements(rewriter, real)
    if not name:
        return None
    operands = [_evaluate(rewriter, arg, leaf) for arg in args]
    known = [operand for operand in operands if operand is not None]
    return tables.apply(name, rewriter.value(real), known) if len(known) == len(operands) else None
