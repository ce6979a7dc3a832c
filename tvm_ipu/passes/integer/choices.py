"""Comparisons, and choices among elements of several tensors, in integers (docs/numerics.md, choices)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer import requantize as rq, tables
from tvm_ipu.passes.integer.known import Known, not_quantised
from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import Array, NoInteger, Quantized, int32_constant, real_constant
from tvm_ipu.passes.rewrite import make_constant, op_name

R = relax.op

COMPARISONS: dict[str, Callable[[relax.Expr, relax.Expr], relax.Expr]] = {
    "relax.equal": R.equal,
    "relax.not_equal": R.not_equal,
    "relax.greater": R.greater,
    "relax.greater_equal": R.greater_equal,
    "relax.less": R.less,
    "relax.less_equal": R.less_equal,
}
_SWAPPED = {
    "relax.greater": "relax.less",
    "relax.greater_equal": "relax.less_equal",
    "relax.less": "relax.greater",
    "relax.less_equal": "relax.greater_equal",
}
SCALE_BITS = 24
"""Significant bits of a float32 scale."""
MAX_DISTANCE = 20
"""Most powers of 2 between two scales: with 24 bits of a scale and 17 of an integer they fit int64."""


def extremum(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """The largest or smallest of several tensors: all in steps of the result first."""
    name, args = tables.elements(known.rewriter, call)
    best = R.maximum if name == "relax.maximum" else R.minimum
    return functools.reduce(lambda a, b: known.rewriter.emit(best(a, b)), in_steps(known, args, result))


def chosen(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """One of two tensors where a condition holds, else the other."""
    condition, *args = call.args
    return R.where(condition, *in_steps(known, args, result))


def in_steps(known: Known, args: Sequence[relax.Expr], result: Result) -> list[relax.Expr]:
    """Tensors and constants as integers of the result.

    Raises:
        NoInteger: One has no integer form.
    """
    found = []
    for arg in args:
        number = real_constant(known.rewriter, arg)
        if number is not None:
            found.append(make_constant(tables.to_table(number, result).astype(result.dtype)))
            continue
        form = known.integer_form(arg, result)
        if form is None:
            raise not_quantised(arg)
        found.append(known.rewriter.emit(form))
    return found


def compared(known: Known, call: relax.Call) -> relax.Expr | None:
    """A comparison of quantised tensors, or of one with constants; None for other tensors.

    Raises:
        NoInteger: The scales are too far apart.
    """
    name, (a, b) = op_name(call), call.args
    if known.quantized(a) is None:
        name, a, b = _SWAPPED.get(name, name), b, a
    left = known.quantized(a)
    if left is None:
        return None
    number, right = real_constant(known.rewriter, b), known.quantized(b)
    if number is not None:
        return _with_numbers(name, left, number)
    if right is None:
        raise not_quantised(b)
    mantissas, exponents = zip(*(math.frexp(np.float32(q.scale)) for q in (left, right)), strict=True)
    distance = exponents[0] - exponents[1]
    if abs(distance) > MAX_DISTANCE:
        raise NoInteger("scales of its operands are too far apart")
    factors = [
        round(m * 2**SCALE_BITS) << max(d, 0) for m, d in zip(mantissas, (distance, -distance), strict=True)
    ]
    if factors[0] == factors[1]:
        return COMPARISONS[name](rq.centred_int(left), rq.centred_int(right))
    wide = [
        R.multiply(R.astype(rq.centred_int(q), "int64"), make_constant(np.array(factor, np.int64)))
        for q, factor in zip((left, right), factors, strict=True)
    ]
    return COMPARISONS[name](*wide)


def _with_numbers(name: str, q: Quantized, number: Array) -> relax.Expr:
    """A comparison with numbers: with the whole number of steps that has the same answers."""
    steps: Any = np.asarray(number) / q.scale
    if name in ("relax.equal", "relax.not_equal"):  # half a step off the integers, nothing is equal
        steps = np.where(steps == np.rint(steps), steps, 2.0**30)
    elif name in ("relax.greater", "relax.less_equal"):
        steps = np.floor(steps)
    else:
        steps = np.ceil(steps)
    whole = np.clip(np.nan_to_num(steps, nan=2.0**30), -(2.0**30), 2.0**30)
    return COMPARISONS[name](rq.centred_int(q), int32_constant(whole))
