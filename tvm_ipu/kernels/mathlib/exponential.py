"""exp, expm1 and what is made of them: tanh, sigmoid, sinh, cosh."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.coefficients import EXP2, EXPM1, SINH, TWO_LN2, TWO_LOG10_2
from tvm_ipu.kernels.mathlib.terms import Terms

LN2 = math.log(2)
# beyond these exponents the result is 0 or infinity whatever the rest; by float's name
EXPONENT_RANGE = {"float32": (-151.0, 129.0), "float64": (-1077.0, 1026.0)}


def exp(t: Terms, x: Expr) -> Expr:
    """e^x."""
    low, high = EXPONENT_RANGE[t.format.name]
    x = t.clamp(t(x), low * LN2, high * LN2)
    half, bits = t.round_small(x * t.const(0.5 / LN2))
    return exp_reduced(t, bits, t.minus_multiple(x, half, TWO_LN2[t.format.name]))


FADED = -86.0
"""``fading_exp2`` takes smaller arguments for this one: processors slow down on the way to zero."""


def fading_exp2(t: Terms, x: Expr) -> Expr:
    """2^x for ``x <= 0`` within 2^-23, and never below ``2^FADED``; a NaN stays one."""
    x = t(x)
    x = t(t.select(x < t.const(FADED), t.const(FADED), x))
    magic = t.format.magic + t.format.bias  # leaves the rounded number plus the bias in the low bits
    shifted = t(x + t.const(magic))
    power = t.from_bits(t.shift_left(t.to_bits(shifted), t.format.mantissa))
    return t.polynomial(EXP2, t(x - t(shifted - t.const(magic)))) * power


def exp2(t: Terms, x: Expr) -> Expr:
    """2^x."""
    x = t.clamp(t(x), *EXPONENT_RANGE[t.format.name])
    half, bits = t.round_small(x * t.const(0.5))
    return exp_reduced(t, bits, t((x - half * t.const(2.0)) * t.const(LN2)))


def exp10(t: Terms, x: Expr) -> Expr:
    """10^x."""
    low, high = EXPONENT_RANGE[t.format.name]
    x = t.clamp(t(x), low * math.log10(2), high * math.log10(2))
    half, bits = t.round_small(x * t.const(0.5 / math.log10(2)))
    rest = t.minus_multiple(x, half, TWO_LOG10_2[t.format.name])
    return exp_reduced(t, bits, t(rest * t.const(math.log(10))))


def exp_reduced(t: Terms, half_bits: tirx.Var, r: tirx.Var) -> Expr:
    """e^r * 4^h for ``|r| <= log(2)``, where h is in the low bits of ``half_bits``.

    The power is multiplied in as 2^h twice: that reaches infinity, and subnormal results with one rounding.
    """
    scale = t(power_of_two(t, half_bits))
    return (expm1_reduced(t, r) + t.const(1.0)) * scale * scale


def expm1_reduced(t: Terms, r: tirx.Var) -> Expr:
    """e^r - 1 for ``|r| <= log(2)``, accurate near 0."""
    return r + r * r * t.polynomial(EXPM1, r)


def power_of_two(t: Terms, exponent: Expr) -> Expr:
    """2^e for the integer e in the low bits of ``exponent``, within the range of normal numbers."""
    one = t.format.bias << t.format.mantissa
    return t.from_bits(t.shift_left(exponent, t.format.mantissa) + t.int_const(one))


def tanh(t: Terms, x: Expr) -> Expr:
    """Hyperbolic tangent: ``q = m / (m + 2)`` with ``m = e^(2|x|) - 1``, for small x ``m / 2 - m / 2 q``."""
    x = t(x)
    double = t.clamp(t(t.abs(x) * t.const(2.0)), 0.0, t.format.mantissa * LN2 + 4.0)
    half, bits = t.round_small(double * t.const(0.5 / LN2))
    r = t.minus_multiple(double, half, TWO_LN2[t.format.name])
    scale = t(power_of_two(t, bits))
    scale = t(scale * scale)
    m = t(expm1_reduced(t, r) * scale + (scale - t.const(1.0)))
    q = t(m / (m + t.const(2.0)))
    h = t(m * t.const(0.5))
    return t.with_sign(t.select(h < t.const(0.5), h - h * q, q), t.sign(x))


def sigmoid(t: Terms, x: Expr) -> Expr:
    """1 / (1 + e^-x), as ``1 - q`` and ``e - e q`` with ``e = e^-|x|`` and ``q = e / (1 + e)``."""
    x = t(x)
    low, _ = EXPONENT_RANGE[t.format.name]
    negative = t.clamp(t.with_sign(t.abs(x), t.int_const(t.format.sign_bit)), low * LN2, 0.0)
    half, bits = t.round_small(negative * t.const(0.5 / LN2))
    # as in exp, with the rounding errors of r and of 1 + r carried along
    high, small = TWO_LN2[t.format.name]
    rough = t(negative - half * t.const(high))
    r = t(rough - half * t.const(small))
    lost = t((rough - r) - half * t.const(small))
    one_r = t(t.const(1.0) + r)
    lost = t(lost + (r - t(one_r - t.const(1.0))))
    scale = t(power_of_two(t, bits))
    e = t((one_r + (r * r * t.polynomial(EXPM1, r) + lost)) * scale * scale)
    q = t(e / (t.const(1.0) + e))
    return t.select(x < t.const(0.0), e - e * q, t.const(1.0) - q)


def sinh(t: Terms, x: Expr) -> Expr:
    """Hyperbolic sine: a polynomial below 1, exponentials above."""
    x = t(x)
    size = t(t.abs(x))
    square = t(x * x)
    small = t(x + x * (square * t.polynomial(SINH, square)))
    half = t(_half_exp(t, size))
    large = t(half - t.const(0.25) / half)
    return t.select(size < t.const(1.0), small, t.flip_sign(large, t.sign(x)))


def cosh(t: Terms, x: Expr) -> Expr:
    """Hyperbolic cosine."""
    half = t(_half_exp(t, t(t.abs(x))))
    return half + t.const(0.25) / half


def _half_exp(t: Terms, x: tirx.Var) -> Expr:
    """e^x / 2 for x >= 0, finite up to the largest x whose sinh is."""
    _, high = EXPONENT_RANGE[t.format.name]
    x = t.clamp(x, 0.0, (high + 1) * LN2)
    half, bits = t.round_small(x * t.const(0.5 / LN2))
    r = t.minus_multiple(x, half, TWO_LN2[t.format.name])
    scale = t(power_of_two(t, bits))
    return (expm1_reduced(t, r) + t.const(1.0)) * (scale * t.const(0.5)) * scale
