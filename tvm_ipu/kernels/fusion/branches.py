"""Branches of expressions: ``if_then_else`` computes one side only, ``Select`` both."""

from __future__ import annotations

from dataclasses import replace

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import (
    contains,
    cost,
    flat_offset,
    is_branch,
    loads,
    op_name,
    replace_loads,
    variables,
)
from tvm_ipu.kernels.fusion.layout import make_analyzer
from tvm_ipu.kernels.fusion.ops import Op
from tvm_ipu.kernels.memory import memory_shape, memory_size

EXPENSIVE = 8.0
"""A function of so many instructions becomes a polynomial; its bound values must not lie in a branch."""


def with_safe_branches(op: Op) -> Op:
    """The operation with only loads in its branches where functions were, and no branches that need not be.

    if_then_else(c, exp(x[i]), 0)        ->      Select(c, exp(if_then_else(c, x[i], 0)), 0)
    if_then_else(c, x[i], 0)             ->      Select(c, x[i], 0)      where i lies within x in any case
    """
    analyzer = make_analyzer([*op.axes, *op.reduce])
    return replace(op, values=tuple(_safe(_guarded(value), analyzer) for value in op.values))


def _guarded(value: Expr) -> Expr:
    def branch(call: ir.Call) -> Expr:
        if not is_branch(call) or not any(_has_function(side) for side in call.args[1:]):
            return call
        condition, then, otherwise = call.args
        return tirx.Select(condition, _guard(then, condition), _guard(otherwise, tirx.Not(condition)))

    return tvm_ffi.structural_map(value, (ir.Call, branch))


def _guard(value: Expr, condition: Expr) -> Expr:
    """``value`` with its loads made only if the condition holds."""
    return replace_loads(value, lambda load: tirx.if_then_else(condition, load, tirx.const(0, str(load.ty))))


def _has_function(value: Expr) -> bool:
    return contains(
        value, (ir.Call,), lambda call: op_name(call) != "if_then_else" and cost(call) >= EXPENSIVE
    )


def _safe(value: Expr, analyzer: sym.Analyzer) -> Expr:
    def branch(call: ir.Call) -> Expr:
        if not is_branch(call) or not all(
            _is_inside(load, analyzer) for side in call.args[1:] for load in loads(side)
        ):
            return call
        return tirx.Select(*call.args)

    if not contains(value, (ir.Call,), is_branch):
        return value
    return tvm_ffi.structural_map(value, (ir.Call, branch))


def _is_inside(load: ir.TensorLoad, analyzer: sym.Analyzer) -> bool:
    """Whether a load lies within its buffer whatever the axes are."""
    offset = flat_offset(load.indices, memory_shape(load.source))
    if loads(offset) or not variables(offset):
        return not loads(offset)
    bound = analyzer.const_int_bound(analyzer.simplify(offset))
    return int(bound.min_value) >= 0 and int(bound.max_value) < memory_size(load.source)
