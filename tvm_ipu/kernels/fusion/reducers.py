"""How partial results of a reduction are combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import substitute, variables

_SIMPLE = (tirx.Add, tirx.Mul, tirx.Max, tirx.Min, tirx.And, tirx.Or)

Combine = Callable[[Sequence[Expr], Sequence[Expr]], list[Expr]]


@dataclass(frozen=True)
class Reducer:
    """A reduction whose order does not matter.

    Attributes:
        combine: Partial results of two sets of elements to that of both.
        operands: What is reduced, one expression for each accumulator.
        is_simple: One accumulator and one instruction.
    """

    combine: Combine
    operands: tuple[Expr, ...]
    is_simple: bool


def reducer_of(accumulators: Sequence[tirx.Var], values: Sequence[Expr]) -> Reducer | None:
    """The reducer that sets accumulators to new values; None where there is none, or of no known form."""
    if len(accumulators) == 1:
        (so_far,), (value,) = accumulators, values
        if not isinstance(value, _SIMPLE):
            return None
        kind = type(value)
        for own, other in ((value.a, value.b), (value.b, value.a)):
            if isinstance(own, ir.Var) and own.same_as(so_far) and so_far not in variables(other):
                return Reducer(lambda a, b: [kind(a[0], b[0])], (other,), True)
        return None
    return _of_tuple(accumulators, values) if accumulators else None


def _of_tuple(accumulators: Sequence[tirx.Var], values: Sequence[Expr]) -> Reducer | None:
    """A reducer of tuples; the operand of each accumulator is what is added to it or chosen instead of it.

    The accumulators are reduced each alone (sum and sum of squares), or a comparison chooses all (argmax).
    """
    operands: list[Expr] = []
    for so_far, value in zip(accumulators, values, strict=True):
        if isinstance(value, _SIMPLE):
            own, other = (value.a, value.b) if _is(value.a, so_far) else (value.b, value.a)
        elif isinstance(value, tirx.Select):
            own, other = value.true_value, value.false_value
            own, other = (own, other) if _is(own, so_far) else (other, own)
        else:
            return None
        if not _is(own, so_far) or variables(other) & set(accumulators):
            return None
        operands.append(other)
    stand_ins = [tirx.Var("other", so_far.ty) for so_far in accumulators]

    def stand_in(node: Expr) -> Expr:
        for operand, var in zip(operands, stand_ins, strict=True):
            if tvm_ffi.structural_equal(node, operand):
                return var
        return node

    def combine(a: Sequence[Expr], b: Sequence[Expr]) -> list[Expr]:
        both = {**dict(zip(accumulators, a, strict=True)), **dict(zip(stand_ins, b, strict=True))}
        return [substitute(form, both) for form in forms]

    forms = [tvm_ffi.structural_map(value, (tirx.Expr, stand_in), order="pre") for value in values]
    known = {*accumulators, *stand_ins}
    if any(not variables(form) <= known or _loads_any(form) for form in forms):
        return None
    return Reducer(combine, tuple(operands), False)


def _is(value: Expr, var: tirx.Var) -> bool:
    return isinstance(value, ir.Var) and value.same_as(var)


def _loads_any(value: Expr) -> bool:
    found: list[ir.TensorLoad] = []
    tvm_ffi.structural_walk(value, (ir.TensorLoad, found.append))
    return bool(found)
