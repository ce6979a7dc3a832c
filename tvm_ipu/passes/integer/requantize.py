"""From sums and products of integers back to 8 and 16 bits (docs/numerics.md, requantise)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from tvm import relax

from tvm_ipu.kernels.fixed_functions import Steps
from tvm_ipu.passes.integer.tensors import (
    LIMITS,
    Array,
    NoInteger,
    Quantized,
    Sum,
    float32_constant,
    float64_constant,
    int32_constant,
)

R = relax.op

RATIO_BITS = 16
"""Significant bits of the ratio between an 8-bit operand's step and the result's: 8 more make 24, what a
float32 holds, so that the product is exact and a fused multiply-add cannot change the result."""

WIDE_RATIO_BITS = 24
"""The same for operands of float64 additions: integers of 16 bits less a zero point have 17."""

PARTIAL_STEPS = 256
"""A sum that is an operand of an addition is rounded to this share of the result's step."""
PARTIAL_REACH = 2.0**15
"""Bound, in the result's steps, that a sum is clipped to before it is added: 2**15 * 256 fits float32."""

WIDE_REACH = 2.0**28
"""Bound, in the result's steps, that a sum is clipped to before it is added in float64."""

INT32_STEPS = 2.0**30
"""Numbers below this, and half as many again, are int32 when rounded."""

FAR = 2.0**20
"""More steps than any integer type here has."""


@dataclass(frozen=True)
class Result:
    """What a requantised tensor has to be.

    Attributes:
        dtype: Type of the integers.
        scale: What one step means; a float64 array [channels, 1, 1 ...] where it differs between channels.
        zero: Zero point.
        low: Lowest integer wanted; a ReLU or a clip raises it above the type's own. As many as scales.
        high: Highest integer wanted.
    """

    dtype: str
    scale: float | Array
    zero: int | Array
    low: int | Array
    high: int | Array

    @classmethod
    def of(cls, dtype: str, scale: float | Array, zero: int) -> Result:
        """The whole range of a type."""
        return cls(dtype, scale, zero, *LIMITS[dtype])

    def clipped(self, low: float, high: float) -> Result:
        """The integers of the numbers between two bounds, which may be infinite."""
        bottom, top = (
            np.clip(np.rint(np.clip(v / self.scale, -FAR, FAR)) + self.zero, self.low, self.high)
            for v in (low, high)
        )
        if np.ndim(bottom) == 0:
            return replace(self, low=int(bottom), high=int(top))
        return replace(self, low=bottom, high=top)

    @property
    def single_scale(self) -> float:
        """The scale.

        Raises:
            NoInteger: It differs between channels.
        """
        if isinstance(self.scale, np.ndarray):
            raise NoInteger("scales of its result differ between channels")
        return self.scale

    def steps(self, shift: int) -> Steps:
        """What fixed-point numbers with ``shift`` fractional bits, in steps of the result, become."""
        return Steps(self.dtype, int(self.zero), int(self.low), int(self.high), shift)


Term = Quantized | Sum | Array
"""An operand of an addition; an array holds numbers."""


class Arithmetic(Protocol):
    """How a family of numerics gets from sums to integers of a result (docs/numerics.md, rounding)."""

    def requantize(self, total: Sum, result: Result) -> relax.Expr:
        """Sums times one multiplier a channel, rounded and clipped."""

    def add(self, parts: Sequence[Term], result: Result) -> relax.Expr:
        """The sum of one or more tensors and constants, from left to right."""


class FloatRequant:
    """The family ``float-requant``: multiplications in float32, in float64 for wide operands."""

    def requantize(self, total: Sum, result: Result) -> relax.Expr:
        """Sums times one multiplier a channel."""
        if total.offset.any():
            return self.add([total], result)
        multiplier = total.scale / result.scale
        reach = total.reach * float(np.abs(multiplier).max())
        return finish(scaled_sum(total, multiplier), result, reach, total.is_wide)

    def add(self, parts: Sequence[Term], result: Result) -> relax.Expr:
        """Every operand in steps of the result, exactly; every addition is rounded."""
        wide = is_wide_addition(parts)
        steps, reach = (wide_operand, wide_operand_reach) if wide else (operand, operand_reach)
        total = steps(parts[0], result)
        for part in parts[1:]:
            total = R.add(total, steps(part, result))
        return finish(total, result, sum(reach(part, result) for part in parts), wide)


def finish(steps: relax.Expr, result: Result, reach: float = np.inf, is_wide: bool = False) -> relax.Expr:
    """Numbers in steps of the result as integers: clipped, rounded to even, shifted.

    Args:
        steps: The numbers, float32, or float64 where ``is_wide`` says so.
        result: What they become.
        reach: A bound of their magnitude. Small ones are clipped as integers, after all else: processors clip
            while they narrow.
        is_wide: Whether the numbers are float64.
    """
    low, high = np.asarray(result.low - result.zero), np.asarray(result.high - result.zero)
    if reach < INT32_STEPS and low.size == high.size == 1 and result.dtype != "int32":
        whole = R.astype(R.round(steps), "int32")
        if result.zero:
            whole = R.add(whole, int32_constant(result.zero))
        return R.astype(R.clip(whole, int(result.low), int(result.high)), result.dtype)
    if np.unique(low).size == np.unique(high).size == 1:
        inside = R.clip(steps, float(low.flat[0]), float(high.flat[0]))
    else:
        bound = float64_constant if is_wide else float32_constant
        inside = R.minimum(R.maximum(steps, bound(low)), bound(high))
    whole = R.astype(R.round(inside), "int32")
    if result.zero:
        whole = R.add(whole, int32_constant(result.zero))
    return whole if result.dtype == "int32" else R.astype(whole, result.dtype)


def quantize(real: relax.Expr, result: Result) -> relax.Expr:
    """float32 numbers times the reciprocal of the step."""
    return finish(R.multiply(real, float32_constant(1 / result.scale)), result)


def dequantize(q: Quantized) -> relax.Expr:
    """The numbers, in float32: exact differences times the step."""
    return R.multiply(centred(q), float32_constant(q.scale))


def dequantize_sum(total: Sum) -> relax.Expr:
    """The numbers that sums mean, in float32."""
    real = scaled_sum(total, total.scale)
    real = R.astype(real, "float32") if total.is_wide else real
    return R.add(real, float32_constant(total.offset)) if total.offset.any() else real


def centred(q: Quantized) -> relax.Expr:
    """Integers minus their zero point, in float32."""
    return R.astype(centred_int(q), "float32")


def centred_int(q: Quantized) -> relax.Expr:
    """Integers minus their zero point, in int32."""
    wide = R.astype(q.expr, "int32")
    return R.subtract(wide, int32_constant(q.zero)) if q.zero else wide


def is_wide_addition(parts: Sequence[Term]) -> bool:
    """Whether an addition has a 16-bit tensor or a wide sum among its operands."""
    return any(
        part.is_wide if isinstance(part, Sum) else isinstance(part, Quantized) and part.is_short
        for part in parts
    )


def operand(part: Term, result: Result) -> relax.Expr:
    """An operand of an addition in steps of the result: a float32 number that the addition reads exactly."""
    if isinstance(part, np.ndarray):
        return float32_constant(constant_parts(part, result) / PARTIAL_STEPS)
    if isinstance(part, Quantized):
        return R.multiply(centred(part), float32_constant(ratio(part.scale / result.single_scale)))
    fine = scaled_sum(part, part.scale * PARTIAL_STEPS / result.scale)
    bound = PARTIAL_REACH * PARTIAL_STEPS
    whole = R.round(R.clip(fine, -bound, bound))
    if part.offset.any():
        steps = np.rint(part.offset * PARTIAL_STEPS / result.scale)
        whole = R.add(whole, float32_constant(np.clip(steps, -bound, bound)))
    return R.multiply(whole, float32_constant(1 / PARTIAL_STEPS))


def constant_parts(numbers: Array, result: Result, bound: float = PARTIAL_REACH * PARTIAL_STEPS) -> Array:
    """Numbers in 256ths of a step of the result, rounded to even."""
    return np.asarray(np.rint(np.clip(numbers * PARTIAL_STEPS / result.scale, -bound, bound)))


def operand_reach(part: Term, result: Result) -> float:
    """A bound on the magnitude of ``operand``'s numbers."""
    if isinstance(part, np.ndarray):
        return float(np.abs(constant_parts(part, result)).max(initial=0) / PARTIAL_STEPS)
    if isinstance(part, Quantized):
        return part.reach * abs(ratio(part.scale / result.single_scale))
    return 2 * PARTIAL_REACH


def wide_operand(part: Term, result: Result) -> relax.Expr:
    """An operand of an addition in float64, in steps of the result.

    A product of a tensor is exact, and a clip stands between that of a sum and the addition.
    """
    if isinstance(part, np.ndarray):
        return float64_constant(np.clip(part / result.scale, -WIDE_REACH, WIDE_REACH))
    if isinstance(part, Quantized):
        step = ratio(part.scale / result.single_scale, WIDE_RATIO_BITS)
        return R.multiply(R.astype(centred_int(part), "float64"), float64_constant(step))
    product = R.multiply(R.astype(part.expr, "float64"), float64_constant(part.scale / result.scale))
    steps = R.clip(product, -WIDE_REACH, WIDE_REACH)
    if part.offset.any():
        offset = np.clip(part.offset / result.scale, -WIDE_REACH, WIDE_REACH)
        steps = R.add(steps, float64_constant(offset))
    return steps


def wide_operand_reach(part: Term, result: Result) -> float:
    """A bound on the magnitude of ``wide_operand``'s numbers."""
    if isinstance(part, Quantized):
        return part.reach * abs(ratio(part.scale / result.single_scale, WIDE_RATIO_BITS))
    return 2 * WIDE_REACH


def scaled_sum(total: Sum, multiplier: Array) -> relax.Expr:
    """Sums times multipliers: in float32, wide ones in float64."""
    if total.is_wide:
        return R.multiply(R.astype(total.expr, "float64"), float64_constant(multiplier))
    return R.multiply(R.astype(total.expr, "float32"), float32_constant(multiplier))


def ratio(value: float, bits: int = RATIO_BITS) -> float:
    """``value`` rounded to even at a number of significant bits."""
    fraction, exponent = np.frexp(value)
    return float(np.ldexp(np.rint(fraction * 2**bits), int(exponent) - bits))
