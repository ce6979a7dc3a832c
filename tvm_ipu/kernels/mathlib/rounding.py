"""Rounding to integers, roots and remainders."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.terms import Terms, int_bits

FMOD_STEPS = 6
"""Steps of ``fmod``; each takes 11 (float32) or 26 (float64) bits off the quotient."""


def nearbyint(t: Terms, x: Expr) -> Expr:
    """Nearest integer, half to even."""
    if "round" in t.native:
        return t.intrinsic("llvm.nearbyint", x)
    x = t(x)
    return _unless_integer(t, x, _round_magnitude(t, t(t.abs(x))))


def trunc(t: Terms, x: Expr) -> Expr:
    """Integer part."""
    if "round" in t.native:
        return t.intrinsic("llvm.trunc", x)
    x = t(x)
    size = t(t.abs(x))
    near = t(_round_magnitude(t, size))
    return _unless_integer(t, x, near - t.select(near > size, t.const(1.0), t.const(0.0)))


def floor(t: Terms, x: Expr) -> Expr:
    """Largest integer not above x."""
    if "round" in t.native:
        return t.intrinsic("llvm.floor", x)
    x = t(x)
    near = t(nearbyint(t, x))
    return near - t.select(near > x, t.const(1.0), t.const(0.0))


def ceil(t: Terms, x: Expr) -> Expr:
    """Smallest integer not below x."""
    if "round" in t.native:
        return t.intrinsic("llvm.ceil", x)
    x = t(x)
    near = t(nearbyint(t, x))
    up = t(near + t.select(near < x, t.const(1.0), t.const(0.0)))
    return t.from_bits(tirx.bitwise_or(t.to_bits(up), t.sign(x)))  # ceil(-0.5) is -0


def _round_magnitude(t: Terms, size: tirx.Var) -> Expr:
    """Nearest integer of ``0 <= size < 2^mantissa``, half to even."""
    whole = t.const(2.0**t.format.mantissa)
    return t(size + whole) - whole


def _unless_integer(t: Terms, x: tirx.Var, magnitude: Expr) -> Expr:
    """``magnitude`` with the sign of x; x itself where it is too large for a fraction, or a NaN."""
    limit = t.const(2.0**t.format.mantissa)
    return t.select(t(t.abs(x)) < limit, t.with_sign(magnitude, t.sign(x)), x)


def sqrt(t: Terms, x: Expr) -> Expr:
    """Square root."""
    if "sqrt" in t.native:
        return t.intrinsic("llvm.sqrt", x)
    x = t(x)
    lift = 2 * (t.format.mantissa + 2)
    tiny = t(x < t.const(t.format.min_normal * 2.0**lift))  # the residual must not underflow
    y = t(t.select(tiny, x * t.const(2.0**lift), x))
    r = _reciprocal_root(t, y)
    s = t(y * r)
    s = t(s + (r * t.const(0.5)) * _residual(t, y, s))
    s = t(s * t.select(tiny, t.const(2.0 ** -(lift // 2)), t.const(1.0)))
    # 0 and infinity are their own roots; a negative number or a NaN gives NaN
    positive = t.select(x < t.const(math.inf), s, x)
    return t.select(x > t.const(0.0), positive, t.select(x < t.const(0.0), t.const(math.nan), x))


def rsqrt(t: Terms, x: Expr) -> Expr:
    """1 / sqrt(x)."""
    return t.const(1.0) / sqrt(t, x)


def _reciprocal_root(t: Terms, y: tirx.Var) -> tirx.Var:
    """1 / sqrt(y) of a normal number, to nearly all bits: an estimate from y's bits, Newton's iteration."""
    # halving the bits halves the logarithm; the constant is 3/2 * 2^mantissa * (bias - 0.0430)
    estimate = int(1.5 * 2.0**t.format.mantissa * (t.format.bias - 0.0430357))
    r = t(t.from_bits(t.int_const(estimate) - t.shift_right(t.to_bits(y), 1)))
    half = t(y * t.const(0.5))
    for _ in range(3 if t.format.bits == 32 else 4):
        r = t(r * (t.const(1.5) - half * r * r))
    return r


def _residual(t: Terms, y: tirx.Var, s: tirx.Var) -> Expr:
    """y - s * s with little rounding error, for s near sqrt(y)."""
    high, low = halves(t, s)
    return t(t(y - high * high) - t.const(2.0) * high * low) - low * low


def halves(t: Terms, x: tirx.Var) -> tuple[tirx.Var, tirx.Var]:
    """x as a sum of two numbers with half of its significant bits each: products of halves are exact."""
    mask = -(1 << (t.format.mantissa // 2 + 1))
    high = t(t.from_bits(tirx.bitwise_and(t.to_bits(x), t.int_const(mask))))
    return high, t(x - high)


def hypot(t: Terms, x: Expr, y: Expr) -> Expr:
    """sqrt(x^2 + y^2) without overflow on the way."""
    a, b = t(t.abs(x)), t(t.abs(y))
    large, small = t(t.select(a > b, a, b)), t(t.select(a > b, b, a))
    ratio = t(t.select(large > t.const(0.0), small / large, t.const(0.0)))
    ratio = t(t.select(large < t.const(math.inf), ratio, t.const(0.0)))
    value = t(large * sqrt(t, t.const(1.0) + ratio * ratio))
    value = t(value + small * t.const(0.0))  # a NaN stays one
    b_infinite = t(t.select(tirx.EQ(b, t.const(math.inf)), b, value))
    return t.select(tirx.EQ(a, t.const(math.inf)), a, b_infinite)


def fmod(t: Terms, x: Expr, y: Expr) -> Expr:
    """Remainder of truncating division: exact for ``|x / y| < 2^66`` (2^156 for float64), 0 above."""
    x, y = t(x), t(y)
    rest, size = t(t.abs(x)), t(t.abs(y))
    step = t.format.mantissa // 2
    inf = t.const(math.inf)
    limit = t(size * t.const(2.0 ** (FMOD_STEPS * step)))
    rest = t(t.select(rest < limit, rest, t.select(limit < inf, t.const(0.0), rest)))
    for index in reversed(range(FMOD_STEPS)):
        multiple = t(size * t.const(2.0 ** (index * step)))  # infinity leaves the rest as it is
        usable = t(multiple < inf)
        safe = t(t.select(usable, multiple, t.const(1.0)))
        quotient = t(trunc(t, rest / safe))
        quotient = t(t.select(usable, quotient, t.const(0.0)))
        high, low = halves(t, safe)
        less = t(t(rest - quotient * high) - quotient * low)
        # the division may have rounded up to the next integer
        rest = t(t.select(less < t.const(0.0), less + safe, less))
    valid = t.select(
        t.abs(x) < inf, t.select(size > t.const(0.0), rest, t.const(math.nan)), t.const(math.nan)
    )
    # for a NaN, a sum is a NaN
    return t.select(size <= inf, t.with_sign(t(valid), t.sign(x)), x + y)


def ldexp(t: Terms, x: Expr, exponent: Expr) -> Expr:
    """x * 2^e for an integer e of the float's width."""
    reach = 2 * (t.format.bias + t.format.mantissa)
    e = t(tirx.Min(tirx.Max(exponent, t.int_const(-reach)), t.int_const(reach)))
    quarter = t(t.shift_right(e, 2))
    scale = t(_power(t, quarter))
    return x * scale * scale * scale * _power(t, e - quarter * t.int_const(3))


def _power(t: Terms, exponent: Expr) -> Expr:
    bias = int_bits(1.0, t.format)
    return t.from_bits(t.shift_left(exponent, t.format.mantissa) + t.int_const(bias))


def nextafter(t: Terms, x: Expr, y: Expr) -> Expr:
    """The next representable number after x in the direction of y."""
    x, y = t(x), t(y)
    one = t.int_const(1)
    bits = t(t.to_bits(x))
    away = t(t.select(x < y, x >= t.const(0.0), x < t.const(0.0)))  # the magnitude grows
    moved = t.from_bits(t.select(away, bits + one, bits - one))
    from_zero = t.with_sign(t.from_bits(one), t.sign(y))
    moved = t.select(tirx.EQ(x, t.const(0.0)), from_zero, moved)
    different = t.select(x < y, moved, t.select(x > y, moved, x + y))
    return t.select(tirx.EQ(x, y), y, different)


def copysign(t: Terms, x: Expr, y: Expr) -> Expr:
    """Magnitude of x with the sign of y."""
    return t.with_sign(t.abs(x), t.sign(y))
