"""Cut an operation where the conditions of its branches change, so that loops need not test them.

for c in range(53): y[c] = if_then_else(c < 32, a[c], b[c - 32])
->
for c in range(32): y[c] = a[c]
for c in range(21): y[c + 32] = b[c]
"""

from __future__ import annotations

import itertools
import math

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import bind_range, i32, is_branch, variables
from tvm_ipu.kernels.fusion.ops import Axis, Op

MOST_REGIONS = 4
"""More regions are not worth their code; the last axes are still cut, for vectors run along them."""

MOST_LAST = 64

_COMPARE = (tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE)


def split_regions(op: Op) -> list[Op]:
    """The operation in parts within which branches are decided; itself alone where that gains nothing."""
    if op.is_reduction:
        return [op]
    comparisons = _branch_comparisons(op)
    if not comparisons:
        return [op]
    cuts = [_cuts(axis, comparisons) for axis in op.axes]
    regions = len(cuts[-1])
    for number in reversed(range(len(cuts) - 1)):
        if regions * len(cuts[number]) > MOST_REGIONS:
            cuts[number] = [0]
        regions *= len(cuts[number])
    if math.prod(len(cut) for cut in cuts) == 1 or len(cuts[-1]) > MOST_LAST:
        return [op]
    return [_region(op, starts, cuts) for starts in itertools.product(*cuts)]


def _branch_comparisons(op: Op) -> list[Expr]:
    """Comparisons that decide branches."""
    found: list[Expr] = []

    def branch(call: ir.Call) -> None:
        if is_branch(call):
            tvm_ffi.structural_walk(call.args[0], (_COMPARE, found.append))

    for value in op.values:
        tvm_ffi.structural_walk(value, (ir.Call, branch))
    return found


def _cuts(axis: Axis, comparisons: list[Expr]) -> list[int]:
    """Starts of the segments of an axis within which comparisons of it alone do not change."""
    own = []
    points = {0}
    for comparison in comparisons:
        if str(comparison.a.ty) not in ("int32", "int64") or variables(comparison) != {axis.var}:
            continue
        linear = sym.detect_linear_equation(comparison.a - comparison.b, [axis.var])
        if not linear or not all(isinstance(c, tirx.IntImm) for c in linear) or int(linear[0]) == 0:
            continue
        slope, start = int(linear[0]), int(linear[1])
        own.append((type(comparison), slope, start))
        zero = math.floor(-start / slope)
        points.update(p for p in range(zero - 1, zero + 3) if 0 < p < axis.extent)
    segments: list[int] = []
    before: tuple[bool, ...] | None = None
    for point in sorted(points):
        truth = tuple(_holds(kind, slope * point + start) for kind, slope, start in own)
        if truth != before:
            segments.append(point)
        before = truth
    return segments


def _holds(kind: type, difference: int) -> bool:
    return {
        tirx.EQ: difference == 0,
        tirx.NE: difference != 0,
        tirx.LT: difference < 0,
        tirx.LE: difference <= 0,
        tirx.GT: difference > 0,
        tirx.GE: difference >= 0,
    }[kind]


def _region(op: Op, starts: tuple[int, ...], cuts: list[list[int]]) -> Op:
    axes = []
    values: dict[tirx.Var, Expr] = {}
    analyzer = sym.Analyzer()
    for axis, start, cut in zip(op.axes, starts, cuts, strict=True):
        end = next((c for c in cut if c > start), axis.extent)
        if end - start == axis.extent:
            axes.append(axis)
            bind_range(analyzer, axis.var, axis.extent)
            continue
        var = tirx.Var(axis.var.name, "int32")
        values[axis.var] = var + i32(start) if start else var
        if end - start == 1:
            values[axis.var] = i32(start)
        else:
            axes.append(Axis(var, end - start))
            bind_range(analyzer, var, end - start)
    moved = op.substituted(values)
    decided = tuple(decide_branches(value, analyzer) for value in moved.values)
    indices = tuple(analyzer.simplify(at) for at in moved.indices)
    return Op(op.targets, tuple(axes), indices, decided)


def decide_branches(value: Expr, analyzer: sym.Analyzer) -> Expr:
    """``value`` without the branches whose conditions the analyzer can decide."""

    def branch(call: ir.Call) -> Expr:
        if not is_branch(call):
            return call
        condition = analyzer.simplify(call.args[0])
        if isinstance(condition, tirx.IntImm):
            return call.args[1] if int(condition) else call.args[2]
        return tirx.if_then_else(condition, call.args[1], call.args[2])

    return tvm_ffi.structural_map(value, (ir.Call, branch))
