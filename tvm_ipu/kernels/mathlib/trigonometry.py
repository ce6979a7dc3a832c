"""Trigonometric functions and their inverses."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.coefficients import ASIN, ATAN, COS, HALF_PI, SIN
from tvm_ipu.kernels.mathlib.rounding import sqrt
from tvm_ipu.kernels.mathlib.terms import Terms

REDUCED = math.pi / 4 * 1.01
"""Bound of a reduced angle: a little more than pi / 4, for the quadrant comes from a rounded product."""

TAN_PI_8 = math.tan(math.pi / 8)


def sin(t: Terms, x: Expr) -> Expr:
    """Sine of x."""
    quadrant, *angle = _reduce(t, x)
    return _sine_of_quadrant(t, quadrant, *angle)


def cos(t: Terms, x: Expr) -> Expr:
    """Cosine."""
    quadrant, *angle = _reduce(t, x)
    return _sine_of_quadrant(t, t(quadrant + t.int_const(1)), *angle)


def tan(t: Terms, x: Expr) -> Expr:
    """Tangent."""
    quadrant, *angle = _reduce(t, x)
    sine, cosine = t(_sin_reduced(t, *angle)), t(_cos_reduced(t, *angle))
    odd = _is_odd(t, quadrant)
    # the tangent of an odd quadrant is -cos / sin
    ratio = t(t.select(odd, cosine, sine) / t.select(odd, sine, cosine))
    return t.flip_sign(ratio, t.shift_left(quadrant, t.format.bits - 1))


def _reduce(t: Terms, x: Expr) -> tuple[tirx.Var, tirx.Var, tirx.Var]:
    """Number of the quadrant, in an integer's low bits, the rest r within REDUCED, and r's rounding error.

    Right to the last bit for |x| < 1e5 (3e6 for float64); beyond, r is wrong but within its bound. It is NaN
    for infinity.
    """
    x = t(x)
    reach = 2.0 ** (t.format.mantissa - 3)
    count, bits = t.round_small(t.clamp(x, -reach, reach) * t.const(2 / math.pi))
    r, lost = x, t.const(0.0)
    for part in HALF_PI[t.format.name]:
        product = count * t.const(part)
        before, r = r, t(r - product)
        lost = t(lost + ((before - r) - product))
    r = t.clamp(r, -REDUCED, REDUCED)
    size = t(t.abs(x))
    lost = t(t.select(size < t.const(reach), lost, t.const(0.0)))
    return bits, t(t.select(size < t.const(math.inf), r, t.const(math.nan))), lost


def _is_odd(t: Terms, quadrant: tirx.Var) -> Expr:
    return tirx.EQ(tirx.bitwise_and(quadrant, t.int_const(1)), t.int_const(1))


def _sine_of_quadrant(t: Terms, quadrant: tirx.Var, r: tirx.Var, lost: tirx.Var) -> Expr:
    value = t(t.select(_is_odd(t, quadrant), _cos_reduced(t, r, lost), _sin_reduced(t, r, lost)))
    sign = t.shift_left(tirx.bitwise_and(quadrant, t.int_const(2)), t.format.bits - 2)
    return t.flip_sign(value, sign)


def _sin_reduced(t: Terms, r: tirx.Var, lost: tirx.Var) -> Expr:
    square = t(r * r)
    return r + (r * (square * t.polynomial(SIN, square)) + lost)


def _cos_reduced(t: Terms, r: tirx.Var, lost: tirx.Var) -> Expr:
    square = t(r * r)
    return t.const(1.0) - (square * t.const(0.5) - (square * (square * t.polynomial(COS, square)) - r * lost))


def asin(t: Terms, x: Expr) -> Expr:
    """Inverse sine; that of a large argument follows from one of ``sqrt((1 - x) / 2)``."""
    x = t(x)
    far, value = _asin_near_or_far(t, t(t.abs(x)))
    folded = t.const(math.pi / 2) - t.const(2.0) * value
    return t.with_sign(t(t.select(far, folded, value)), t.sign(x))


def acos(t: Terms, x: Expr) -> Expr:
    """Inverse cosine of x."""
    x = t(x)
    far, value = _asin_near_or_far(t, t(t.abs(x)))
    positive = t(x > t.const(0.0))
    double = t(t.const(2.0) * value)
    beyond = t.select(positive, double, t.const(math.pi) - double)
    half_pi = t.const(math.pi / 2)
    middle = t.select(positive, half_pi - value, half_pi + value)
    return t.select(far, beyond, middle)


def _asin_near_or_far(t: Terms, size: tirx.Var) -> tuple[tirx.Var, tirx.Var]:
    """Whether size > 1/2, and asin(sqrt((1 - size) / 2)) then, asin(size) otherwise; NaN above 1."""
    far = t(size > t.const(0.5))
    square = t(t.select(far, (t.const(1.0) - size) * t.const(0.5), size * size))
    root = t(t.select(far, sqrt(t, square), size))
    return far, t(root + root * (square * t.polynomial(ASIN, square)))


def atan(t: Terms, x: Expr) -> Expr:
    """Inverse tangent."""
    x = t(x)
    size = t(t.abs(x))
    above_one = t(size > t.const(1.0))
    one = t.const(1.0)
    infinite = t(tirx.EQ(size, t.const(math.inf)))  # infinity / infinity must not become NaN
    large = t(t.select(above_one, t.select(infinite, one, size), one))
    small = t(t.select(above_one, t.select(infinite, t.const(0.0), one), size))
    return t.with_sign(_atan_of_ratio(t, small, large, above_one), t.sign(x))


def atan2(t: Terms, y: Expr, x: Expr) -> Expr:
    """Angle of the point (x, y)."""
    y, x = t(y), t(x)
    inf = t.const(math.inf)
    a, b = t(t.abs(x)), t(t.abs(y))
    both = tirx.EQ(t.select(tirx.EQ(a, inf), b, t.const(0.0)), inf)
    a, b = t(t.select(both, t.const(1.0), a)), t(t.select(both, t.const(1.0), b))
    steep = t(b > a)
    large, small = t(t.select(steep, b, a)), t(t.select(steep, a, b))
    small = t(t.select(tirx.EQ(large, inf), t.const(0.0), small))
    large = t(t.select(tirx.EQ(large, inf), t.const(1.0), large))
    # keep sums and differences of the two within range
    huge = t(large > t.const(2.0 ** (t.format.bias - 1)))
    scale = t(t.select(huge, t.const(0.25), t.const(1.0)))
    large = t(t.select(tirx.EQ(large, t.const(0.0)), t.const(1.0), large * scale))
    angle = t(_atan_of_ratio(t, t(small * scale), large, steep))
    left = t(t.to_bits(x) < t.int_const(0))  # also for -0
    angle = t(t.select(left, t.const(math.pi) - angle, angle))
    angle = t(t.with_sign(angle, t.sign(y)))
    # a NaN in either makes the sum a NaN
    total = t(a + b)
    return t.select(total >= t.const(0.0), angle, total)


def _atan_of_ratio(t: Terms, small: tirx.Var, large: tirx.Var, swapped: tirx.Var) -> tirx.Var:
    """atan(small / large) for 0 <= small <= large, or pi/2 minus it where ``swapped``."""
    # above tan(pi/8): atan(s / l) = pi/4 + atan((s - l) / (s + l)), one division for both cases
    upper = t(small > large * t.const(TAN_PI_8))
    ratio = t(t.select(upper, small - large, small) / t.select(upper, small + large, large))
    square = t(ratio * ratio)
    angle = t(ratio + ratio * (square * t.polynomial(ATAN, square)))
    angle = t(t.select(swapped, t.const(0.0) - angle, angle))
    offset = t.select(upper, t.const(math.pi / 4), t.select(swapped, t.const(math.pi / 2), t.const(0.0)))
    return t(offset + angle)
