"""Functions of whole rows, softmax and normalisations, in integers (docs/numerics.md, functions of rows)."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.base.model import NORMALISATION_ATTR
from tvm_ipu.kernels import fixed_functions as fixed
from tvm_ipu.passes.integer.known import Known, operand
from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import (
    LIMITS,
    Array,
    NoInteger,
    Quantized,
    int32_constant,
    real_constant,
)
from tvm_ipu.passes.lower_operators import call_te
from tvm_ipu.passes.rewrite import make_constant, shape_of

OPAQUE = 8
"""TVM's pattern ``kOpaque``: such a function is fused with nothing."""

MAX_EXPONENT = 31.0
"""Exponentials of 2 to minus this or less are 0."""


def softmax(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """Exponentials by a polynomial, divided by their sum.

    Raises:
        NoInteger: Its operand is not quantised.
    """
    q = operand(known, call.args[0])
    step = result.single_scale
    if not 2.0**-40 < step < 2.0**4:
        raise NoInteger(f"a step of its result is {step:g}")
    shift = 57 - math.floor(math.log2(1 / step))
    plan = fixed.Softmax(_powers(call, q), round(2.0**shift / step), result.steps(shift))
    return call_te(known.rewriter, "fixed_softmax", partial(fixed.softmax, plan=plan), [q.expr], OPAQUE)


def log_softmax(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """The logarithm of the same quotients.

    Raises:
        NoInteger: Its operand is not quantised, or a step of its result is next to nothing.
    """
    q = operand(known, call.args[0])
    ratio, unit = q.scale / result.single_scale, math.log(2) / 2.0**fixed.LOG_BITS / result.single_scale
    shift = min(60, 45 - math.frexp(ratio)[1], 24 - math.frexp(unit)[1])
    if shift < 8:
        raise NoInteger(f"a step of its result is {result.single_scale:g}")
    factors = round(ratio * 2.0**shift), round(unit * 2.0**shift)
    plan = fixed.LogSoftmax(_powers(call, q), *factors, result.steps(shift))
    compute = partial(fixed.log_softmax, plan=plan)
    return call_te(known.rewriter, "fixed_log_softmax", compute, [q.expr], OPAQUE)


def _powers(call: relax.Call, q: Quantized) -> fixed.Powers:
    """Exponentials of the distances from a row's peak."""
    low, high = LIMITS[q.dtype]
    rate = min(q.scale * math.log2(math.e), MAX_EXPONENT)
    limit = min(high - low, math.ceil(MAX_EXPONENT / rate))
    bits = min(30, math.floor(math.log2((2**31 - 1) / (limit * rate + 0.5))))
    return fixed.Powers(int(call.attrs.axis) % len(shape_of(call)), limit, round(rate * 2**bits), bits)


def normalise(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """Layer, instance and RMS normalisation, as the frontends write them.

    Raises:
        NoInteger: It is no such function, its operand is not quantised, its factors are not constant, or its
            sums do not fit 64 bits.
    """
    facts = _facts(known, call)
    x, *parameters = call.args[1].fields
    q, shape = operand(known, x), shape_of(x)
    axes, centred = tuple(int(a) for a in facts["axes"]), bool(facts["centred"])
    count = math.prod(shape[a] for a in axes)
    epsilon = round(count**2 * float(facts["epsilon"]) / q.scale**2)
    if count * (LIMITS[q.dtype][1] - LIMITS[q.dtype][0]) > 2**31 or (count * q.reach) ** 2 + epsilon >= 2**62:
        raise NoInteger(f"sums of squares of {count} elements do not fit 64 bits")
    values = [real_constant(known.rewriter, p) for p in parameters]
    gamma = values.pop(0) if facts["scale"] else np.ones(1)
    beta = values.pop(0) if facts["bias"] else np.zeros(1)
    if gamma is None or beta is None:
        raise NoInteger("its factors are not constant")
    bits = 30 - math.ceil(math.log2(count) / 2)
    factor, added = gamma / result.single_scale / 2.0**bits, beta / result.single_scale
    shift = _affine_shift(factor, added)
    constants = [
        int32_constant(np.rint(factor * 2.0**shift)),
        make_constant(np.rint(added * 2.0**shift).astype(np.int64)),
    ]
    plan = fixed.Normalise(axes, centred, q.zero, epsilon, bits, result.steps(shift))
    compute = partial(fixed.normalise, plan=plan)
    return call_te(known.rewriter, "fixed_norm", compute, [q.expr, *constants], OPAQUE)


def _affine_shift(factor: Array, added: Array) -> int:
    """Fractional bits: the factor gets 30 bits at most, the addend 60."""
    largest = (float(np.abs(values).max(initial=0)) for values in (factor, added))
    shift = min(62, *(bits - math.frexp(v)[1] for v, bits in zip(largest, (30, 60), strict=True)))
    if shift < 1:
        raise NoInteger("its factors are too large for the step of its result")
    return shift


def _facts(known: Known, call: relax.Call) -> dict[str, Any]:
    """What the frontend wrote down of a normalisation."""
    written = known.rewriter.attribute(call, NORMALISATION_ATTR)
    if not written:
        raise NoInteger(f"no integer form of '{call.args[0].name_hint}'")
    facts: dict[str, Any] = json.loads(written)
    return facts
