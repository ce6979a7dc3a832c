"""The family ``integer-requant``: a multiplication and a shift in place of float32 (docs/numerics.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer.requantize import (
    PARTIAL_STEPS,
    Result,
    Term,
    centred_int,
    constant_parts,
    is_wide_addition,
)
from tvm_ipu.passes.integer.tensors import Array, NoInteger, Quantized, Sum, int32_constant
from tvm_ipu.passes.rewrite import make_constant

R = relax.op

MULTIPLIER_BITS, MAX_SHIFT = 31, 62
"""Significant bits of a multiplier, and the furthest shift of a product with a sum of 31 bits."""
OPERAND_BITS = 22
"""Significant bits of an 8-bit operand's multiplier: the product fits int32."""
LOW_BITS = 24
"""Bits of a wide sum's lower part; what is above them has 29 at most, so both products fit int64."""
PART_SHIFT = PARTIAL_STEPS.bit_length() - 1
PART_LIMIT, WIDE_PART_LIMIT = 2**23, 2**27
"""Bound that operands of an addition are clipped to, in parts of a step; with 16-bit operands."""
INT32_REACH = 2**30


class FixedPoint:
    """Sums times a multiplier of 31 significant bits, shifted right, halves up."""

    def requantize(self, total: Sum, result: Result) -> relax.Expr:
        """Sums in steps of the result."""
        if total.offset.any():
            return self.add([total], result)
        ratio = np.asarray(total.scale / result.scale)
        return _stored(_scaled(total, ratio), total.reach * float(np.abs(ratio).max()) + 1, result)

    def add(self, parts: Sequence[Term], result: Result) -> relax.Expr:
        """Operands in 256ths of a step, added and rounded half up."""
        limit = WIDE_PART_LIMIT if is_wide_addition(parts) else PART_LIMIT
        total: Any = None
        for part in parts:
            fine = _parts(part, result, limit)
            total = fine if total is None else R.add(total, fine)
        whole = R.right_shift(R.add(total, int32_constant(PARTIAL_STEPS // 2)), int32_constant(PART_SHIFT))
        return _stored(whole, 0, result)


def fixed_point(ratio: Array, max_shift: int) -> tuple[Array, Array]:
    """A ratio as ``multiplier / 2**shift`` with 31 significant bits, int64; 0 where the shift is longer.

    Raises:
        NoInteger: A ratio is 2**30 or more.
    """
    fraction, exponent = np.frexp(np.asarray(ratio, np.float64))
    multiplier = np.rint(fraction * 2.0**MULTIPLIER_BITS).astype(np.int64)
    shift = MULTIPLIER_BITS - exponent.astype(np.int64)
    carry = np.abs(multiplier) == 2**MULTIPLIER_BITS
    multiplier, shift = np.where(carry, multiplier >> 1, multiplier), np.where(carry, shift - 1, shift)
    if (shift < 1).any():
        raise NoInteger("a step of its operands is 2^30 steps of its result or more")
    return np.where(shift > max_shift, 0, multiplier), np.minimum(shift, max_shift)


def _scaled(total: Sum, ratio: Array) -> relax.Expr:
    """``round(sum * ratio)``, halves up, in int64."""
    if total.is_wide:
        return _scaled_wide(total.expr, ratio)
    multiplier, shift = fixed_point(ratio, MAX_SHIFT)
    product = R.multiply(R.astype(total.expr, "int64"), make_constant(multiplier))
    return R.right_shift(R.add(product, make_constant(np.int64(1) << (shift - 1))), make_constant(shift))


def _scaled_wide(sums: relax.Expr, ratio: Array) -> relax.Expr:
    """The same of int64 sums below 2**52: the product of the low 24 bits carries into that of the others.

    ``(high * 2**24 + low) * M >> s`` is ``high * M + (low * M >> 24) >> s - 24``.
    """
    multiplier, shift = fixed_point(ratio, MAX_SHIFT + LOW_BITS)
    if (shift <= LOW_BITS).any():
        raise NoInteger("a step of its 64-bit sums is 2^6 steps of its result or more")
    factor, bits = make_constant(multiplier), make_constant(np.array(LOW_BITS))
    low = R.bitwise_and(sums, make_constant(np.array(2**LOW_BITS - 1)))
    carried = R.right_shift(R.multiply(low, factor), bits)
    product = R.add(R.multiply(R.right_shift(sums, bits), factor), carried)
    rest = shift - LOW_BITS
    return R.right_shift(R.add(product, make_constant(np.int64(1) << (rest - 1))), make_constant(rest))


def _parts(part: Term, result: Result, limit: int) -> relax.Expr:
    """An operand of an addition in 256ths of a step of the result, int32."""
    if isinstance(part, np.ndarray):
        return int32_constant(constant_parts(part, result, limit))
    ratio = np.asarray(part.scale / np.asarray(result.scale) * PARTIAL_STEPS)
    if isinstance(part, Quantized) and not part.is_short:
        return _short_parts(part, float(ratio))
    total = part if isinstance(part, Sum) else Sum(centred_int(part), np.asarray(part.scale), part.reach)
    fine = R.astype(R.clip(_scaled(total, ratio), -limit, limit), "int32")
    if not total.offset.any():
        return fine
    return R.add(fine, int32_constant(constant_parts(total.offset, result, limit)))


def _short_parts(part: Quantized, ratio: float) -> relax.Expr:
    """An 8-bit operand times a multiplier of 22 bits, in int32."""
    fraction, exponent = np.frexp(ratio)
    shift = OPERAND_BITS - int(exponent)
    multiplier = int(np.rint(fraction * 2.0**OPERAND_BITS))
    if shift < 1:
        raise NoInteger("a step of its operands is 2^14 steps of its result or more")
    if shift > 31:
        multiplier, shift = 0, 31
    product = R.multiply(centred_int(part), int32_constant(multiplier))
    return R.right_shift(R.add(product, int32_constant(1 << (shift - 1))), int32_constant(shift))


def _stored(steps: relax.Expr, reach: float, result: Result) -> relax.Expr:
    """Whole steps in the result's type: shifted by the zero point, clipped.

    Args:
        steps: int32, or int64 of the magnitude ``reach`` at most.
        reach: 0 for int32.
        result: What they become.
    """
    low, high = np.asarray(result.low), np.asarray(result.high)
    zero = np.asarray(result.zero, np.int64)
    if reach and reach + np.abs(zero).max() > INT32_REACH:
        bounds = low.astype(np.int64) - zero, high.astype(np.int64) - zero
        steps = R.minimum(R.maximum(steps, make_constant(bounds[0])), make_constant(bounds[1]))
    whole = R.astype(steps, "int32") if reach else steps
    if zero.any():
        whole = R.add(whole, int32_constant(zero))
    if low.size == high.size == 1:
        whole = R.clip(whole, int(low), int(high))
    else:
        whole = R.minimum(R.maximum(whole, int32_constant(low)), int32_constant(high))
    return whole if result.dtype == "int32" else R.astype(whole, result.dtype)
