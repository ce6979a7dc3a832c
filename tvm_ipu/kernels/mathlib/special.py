"""The error function and powers."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.coefficients import CENTERS, ERF, ERFC, LN2, LOG1P_NEAR, TWO_LN2
from tvm_ipu.kernels.mathlib.exponential import EXPONENT_RANGE, exp, exp_reduced
from tvm_ipu.kernels.mathlib.logarithm import split
from tvm_ipu.kernels.mathlib.rounding import halves, sqrt
from tvm_ipu.kernels.mathlib.terms import Terms

LONGEST_PRODUCT = 16
"""Largest constant integer exponent that is computed by multiplications."""


def erf(t: Terms, x: Expr) -> Expr:
    """Error function."""
    x = t(x)
    size = t(t.abs(x))
    square = t(x * x)
    near = t(x + x * t.polynomial(ERF, square))
    distance = t(t.clamp(size, 0.0, 4.0 if t.format.bits == 32 else 6.0) - t.const(1.0))
    far = t(t.const(1.0) - exp(t, t.polynomial(ERFC, distance)))
    return t.select(size < t.const(1.0), near, t.with_sign(far, t.sign(x)))


def power(t: Terms, x: Expr, y: Expr) -> Expr:
    """x to the power of y, with IEEE 754's special cases."""
    exponent = constant_value(y)
    if exponent is not None:
        simple = _constant_power(t, x, exponent)
        if simple is not None:
            return simple
    x, y = t(x), t(y)
    zero, one, inf = t.const(0.0), t.const(1.0), t.const(math.inf)
    size = t(t.abs(x))
    value = t(_exp_of_product(t, t(t.select(size > zero, size, one)), y))
    grows = t(t.select(y > zero, inf, zero))
    shrinks = t.select(y > zero, zero, inf)
    value = t(t.select(tirx.EQ(size, zero), shrinks, t.select(tirx.EQ(size, inf), grows, value)))
    whole, odd = _integer_parity(t, t(t.abs(y)))
    negative = t(t.to_bits(x) < t.int_const(0))
    sign = t.select(negative, t.select(odd, t.int_const(t.format.sign_bit), t.int_const(0)), t.int_const(0))
    # a negative finite base with a fractional exponent has no real power
    value = t(t.with_sign(value, sign))
    value = t(
        t.select(x < zero, t.select(whole, value, t.select(size < inf, t.const(math.nan), value)), value)
    )
    # a NaN in either makes the sum a NaN
    total = t(size + t.abs(y))
    value = t(t.select(total >= zero, value, total))
    return t.select(tirx.EQ(y, zero), one, t.select(tirx.EQ(x, one), one, value))


def constant_value(value: Expr) -> float | None:
    """The number that an expression is, or None."""
    if isinstance(value, tirx.Broadcast):
        value = value.value
    if isinstance(value, tirx.FloatImm | tirx.IntImm):
        return float(value.value)
    return None


def _constant_power(t: Terms, x: Expr, exponent: float) -> Expr | None:
    """Powers that multiplications and a root give."""
    if exponent == 0.5:
        x = t(x)
        # pow(-0, 0.5) is +0 and pow(-infinity, 0.5) is infinity, unlike the root
        return t.select(tirx.EQ(x, t.const(-math.inf)), t.const(math.inf), sqrt(t, x) + t.const(0.0))
    count = abs(int(exponent))
    if exponent != int(exponent) or count > LONGEST_PRODUCT:
        return None
    base = t(t.const(1.0) / x if exponent < 0 else x)
    result: Expr | None = None
    while count:
        if count & 1:
            result = base if result is None else t(result * base)
        count >>= 1
        if count:
            base = t(base * base)
    return t.const(1.0) if result is None else result


def _exp_of_product(t: Terms, x: tirx.Var, y: tirx.Var) -> Expr:
    """e^(y log(x)) for x positive and finite, the logarithm and the product being sums of two floats."""
    high, low = _log_pair(t, x)
    limit = 2.0 ** (t.format.mantissa + 12)  # more makes 0 or infinity of every x but 1
    y = t.clamp(y, -limit, limit)
    y1, y2 = halves(t, y)
    h1, h2 = halves(t, high)
    product, rest = _fast_two_sum(t, t(y1 * h1), t(y1 * h2 + y2 * h1 + y2 * h2 + y * low))
    bottom, top = EXPONENT_RANGE[t.format.name]
    clamped = t.clamp(product, bottom * math.log(2), top * math.log(2))
    rest = t(t.select(tirx.EQ(clamped, product), rest, t.const(0.0)))
    half, bits = t.round_small(clamped * t.const(0.5 / math.log(2)))
    r = t(t.minus_multiple(clamped, half, TWO_LN2[t.format.name]) + rest)
    return exp_reduced(t, bits, r)


def _log_pair(t: Terms, x: tirx.Var) -> tuple[tirx.Var, tirx.Var]:
    """log(x) of a positive finite number as an unevaluated sum: about 8 bits more than the format has."""
    exponent, f = split(t, x)
    mantissa = t(f + t.const(1.0))
    # multiply by about 1 / mantissa, a number so short that the product with each half is exact
    (_, inverse, log_inverse, log_inverse_low), *others = CENTERS[t.format.name]
    choice = [t.const(inverse), t.const(log_inverse), t.const(log_inverse_low)]
    for start, *values in others:
        above = t(mantissa > t.const(start))
        choice = [t(t.select(above, t.const(v), old)) for v, old in zip(values, choice, strict=True)]
    factor, log_high, log_low = choice
    m1, m2 = halves(t, mantissa)
    g, g_low = _fast_two_sum(t, t(m1 * factor - t.const(1.0)), t(m2 * factor))
    # log(1 + g) = g - g^2 / 2 + g^3 P(g)
    g1, g2 = halves(t, g)
    square = t(g * g)
    half_square = t(g1 * g1 * t.const(0.5))
    half_square_low = t(g1 * g2 + g2 * g2 * t.const(0.5))
    tail = t(square * (g * t.polynomial(LOG1P_NEAR, g)) + (g_low - g * g_low) - half_square_low)
    ln2_high, ln2_low = LN2[t.format.name]
    total, error = _two_sum(t, t(exponent * t.const(ln2_high)), log_high)
    total, error2 = _two_sum(t, total, g)
    total, error3 = _two_sum(t, total, t(t.const(0.0) - half_square))
    rest = t(tail + (error + error2 + error3 + log_low + exponent * t.const(ln2_low)))
    return _fast_two_sum(t, total, rest)


def _two_sum(t: Terms, a: tirx.Var, b: tirx.Var) -> tuple[tirx.Var, tirx.Var]:
    """a + b and its rounding error."""
    total = t(a + b)
    part = t(total - a)
    return total, t((a - t(total - part)) + (b - part))


def _fast_two_sum(t: Terms, a: tirx.Var, b: tirx.Var) -> tuple[tirx.Var, tirx.Var]:
    """a + b and its rounding error, for |a| >= |b|."""
    total = t(a + b)
    return total, t(b - t(total - a))


def _integer_parity(t: Terms, size: tirx.Var) -> tuple[tirx.Var, tirx.Var]:
    """Whether a non-negative number is an integer, and whether it is an odd one."""
    units = t.const(2.0**t.format.mantissa)  # from here on, floats are integers
    shifted = t(size + units)
    small = t(size < units)
    whole = tirx.EQ(t.select(small, t(shifted - units), size), size)
    bits = t.select(
        small, t.to_bits(shifted), t.select(size < units * t.const(2.0), t.to_bits(size), t.int_const(0))
    )
    low = tirx.bitwise_and(bits, t.int_const(1))
    return whole, tirx.EQ(t.select(whole, low, t.int_const(0)), t.int_const(1))
