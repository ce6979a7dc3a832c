"""log, log2, log10, log1p and the inverse hyperbolic functions."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.coefficients import LN2, LOG1P
from tvm_ipu.kernels.mathlib.rounding import sqrt
from tvm_ipu.kernels.mathlib.terms import Terms, int_bits

SQRT_HALF = math.sqrt(0.5)


def log(t: Terms, x: Expr) -> Expr:
    """Natural logarithm."""
    x = t(x)
    return _specials(t, x, _log_positive(t, x))


def log2(t: Terms, x: Expr) -> Expr:
    """Logarithm to base 2."""
    x = t(x)
    exponent, f = split(t, x)
    log_f = t(log1p_reduced(t, f))
    # log2(e) = 1 + 0.4427: the first summand has no rounding error
    value = exponent + (log_f + log_f * t.const(1 / math.log(2) - 1))
    return _specials(t, x, value)


def log10(t: Terms, x: Expr) -> Expr:
    """Logarithm to base 10."""
    x = t(x)
    return _specials(t, x, _log_positive(t, x) * t.const(1 / math.log(10)))


def log1p(t: Terms, x: Expr) -> Expr:
    """log(1 + x), accurate near 0."""
    x = t(x)
    u = t(t.const(1.0) + x)
    lost = t((x - (u - t.const(1.0))) / u)  # what 1 + x lost by rounding, as a relative error
    value = _log_positive(t, u, lost)
    return t.select(tirx.EQ(x, t.const(0.0)), x, _specials(t, u, value))


def asinh(t: Terms, x: Expr) -> Expr:
    """Inverse hyperbolic sine: log1p(a + a^2 / (1 + sqrt(a^2 + 1))) with the sign of x."""
    x = t(x)
    a = t(t.abs(x))
    square = t(a * a)
    near = t(a + square / (t.const(1.0) + sqrt(t, square + t.const(1.0))))
    value = t(_log1p_or_log2a(t, near, a))
    return t.with_sign(value, t.sign(x))


def acosh(t: Terms, x: Expr) -> Expr:
    """Inverse hyperbolic cosine: log1p(d + sqrt(2 d + d^2)) with d = x - 1."""
    x = t(x)
    d = t(x - t.const(1.0))
    near = t(d + sqrt(t, d * t.const(2.0) + d * d))
    value = t(_log1p_or_log2a(t, near, x))
    return t.select(x < t.const(1.0), t.const(math.nan), value)


def atanh(t: Terms, x: Expr) -> Expr:
    """Inverse hyperbolic tangent: log1p(2 a / (1 - a)) / 2 with the sign of x."""
    x = t(x)
    a = t(t.abs(x))
    value = t(log1p(t, a * t.const(2.0) / (t.const(1.0) - a)) * t.const(0.5))
    return t.flip_sign(value, t.sign(x))


def split(t: Terms, x: tirx.Var) -> tuple[tirx.Var, tirx.Var]:
    """Exponent e and f with ``x = 2^e (1 + f)``, ``sqrt(1/2) <= 1 + f < sqrt(2)``; for finite x above 0."""
    lift = t.format.mantissa + 2
    tiny = t(x < t.const(t.format.min_normal))
    bits = t(t.to_bits(t.select(tiny, x * t.const(2.0**lift), x)))
    one = t.format.bias << t.format.mantissa
    shift = one - int_bits(SQRT_HALF, t.format)
    exponent = t(t.shift_right(bits - t.int_const(one - shift), t.format.mantissa))
    mantissa = t.from_bits(bits - t.shift_left(exponent, t.format.mantissa))
    exponent = t(exponent - t.select(tiny, t.int_const(lift), t.int_const(0)))
    return t(t.to_float(exponent)), t(mantissa - t.const(1.0))


def log1p_reduced(t: Terms, f: tirx.Var) -> Expr:
    """log(1 + f) for ``sqrt(1/2) <= 1 + f <= sqrt(2)``."""
    square = t(f * f)
    return f - (square * t.const(0.5) - square * (f * t.polynomial(LOG1P, f)))


def _log_positive(t: Terms, x: tirx.Var, correction: Expr | None = None) -> Expr:
    """Logarithm of a positive finite number; ``correction`` is added to it."""
    exponent, f = split(t, x)
    high, low = LN2[t.format.name]
    square = t(f * f)
    tail = square * (f * t.polynomial(LOG1P, f)) + exponent * t.const(low)
    if correction is not None:
        tail = tail + correction
    return exponent * t.const(high) + (f - (square * t.const(0.5) - tail))


def _specials(t: Terms, x: tirx.Var, value: Expr) -> Expr:
    """``value`` where x is positive and finite; elsewhere the logarithm's special values."""
    inf = t.const(math.inf)
    # x is NaN, +infinity or below 0, where NaN comes of infinity - infinity
    other = t.select(
        tirx.EQ(x, t.const(0.0)), t.const(-math.inf), t.select(x < t.const(0.0), t.const(math.nan), x)
    )
    return t.select(x > t.const(0.0), t.select(x < inf, value, inf), other)


def _log1p_or_log2a(t: Terms, near: tirx.Var, a: tirx.Var) -> Expr:
    """log1p(near), or log(2 a) where a is so large that both are equal and ``near`` might overflow."""
    large = t(a > t.const(2.0 ** (t.format.mantissa // 2 + 2)))
    u = t(t.select(large, a, t.const(1.0) + near))
    lost = t((near - (u - t.const(1.0))) / u)
    value = t(_log_positive(t, u, t.select(large, t.const(math.log(2)), lost)))
    return t.select(tirx.EQ(near, t.const(0.0)), near, _specials(t, u, value))
