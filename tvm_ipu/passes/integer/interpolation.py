"""Resize by tables of positions and weights, in integers (docs/numerics.md, other resizes)."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ipu.base.model import INTERPOLATION_ATTR
from tvm_ipu.passes.integer import requantize as rq
from tvm_ipu.passes.integer.known import Known, operand
from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import NARROW_LIMIT, WIDE_LIMIT, Array, NoInteger, Quantized, Sum
from tvm_ipu.passes.rewrite import constant, make_constant

R = relax.op

WEIGHT_BITS, ALL_BITS = 15, 34
"""Fractional bits of a weight, and at most those of the weights along all axes together."""


def interpolated(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """Weighted sums along one axis after the other, exact, and requantised once.

    Raises:
        NoInteger: What is resized is not quantised, or the sums do not fit 53 bits.
    """
    found: list[tuple[int, Array, Array]] = []
    value: relax.Expr = call
    while (axis := known.rewriter.attribute(value, INTERPOLATION_ATTR)) != "":
        source, positions, weights = value.args[1].fields
        tables = constant(positions), constant(weights)
        if tables[0] is None or tables[1] is None:
            raise NoInteger("its weights are not constant")
        found.insert(0, (int(axis), tables[0], tables[1]))
        real, value = source, known.rewriter.value(source)
    q = operand(known, real)
    bits = min(WEIGHT_BITS, ALL_BITS // len(found))
    steps = [(axis, positions, whole_weights(weights, bits)) for axis, positions, weights in found]
    total = _sums(known, q, steps)
    return known.arithmetic.requantize(total.times(2.0 ** -(bits * len(steps))), result)


def whole_weights(weights: Array, bits: int) -> Array:
    """Weights [outputs, taps] in ``2**-bits``; the largest of each output takes what rounding leaves."""
    whole = np.rint(weights.astype(np.float64) * 2**bits).astype(np.int64)
    missing = np.rint(weights.sum(1, dtype=np.float64) * 2**bits).astype(np.int64) - whole.sum(1)
    whole[np.arange(len(whole)), weights.argmax(1)] += missing
    return np.asarray(whole)


def _sums(known: Known, q: Quantized, steps: list[tuple[int, Array, Array]]) -> Sum:
    reach = q.reach
    for _, _, weights in steps:
        reach *= int(np.abs(weights).sum(1).max())
    if reach >= WIDE_LIMIT:
        raise NoInteger("sums may overflow 53 bits")
    is_wide = reach >= NARROW_LIMIT
    dtype = "int64" if is_wide else "int32"
    total = R.astype(rq.centred_int(q), dtype)
    for axis, positions, weights in steps:
        total, source = None, known.rewriter.emit(total)
        rank = len(source.ty.shape)
        for tap in range(positions.shape[1]):
            shape = [len(weights) if a == axis else 1 for a in range(rank)]
            factor = make_constant(weights[:, tap].reshape(shape).astype(dtype))
            term = R.multiply(R.take(source, make_constant(positions[:, tap]), axis), factor)
            total = term if total is None else R.add(total, term)
    return Sum(known.rewriter.emit(total), np.asarray(q.scale), reach, is_wide=is_wide)
