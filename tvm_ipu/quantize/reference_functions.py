"""Functions of whole rows, and quotients, in integers and in plain numpy (docs/numerics.md).

The same in both families of numerics. Roots and quotients are those of Python's integers, of any length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tvm_ipu.quantize.reference import Array, Meaning, requantize

EXP2 = (45425, -15743, 3664, -628)
LOG2 = (1549081952, -774532405, 516125028, -384720696, 295516526, -210709970, 120078775, -45038110, 7940753)


def softmax(q: Array, x: Meaning, result: Meaning, axis: int = -1) -> Array:
    """exp over its sum along an axis."""
    power = _exponentials(q, x, axis)
    places = 57 - math.floor(math.log2(1 / float(result.scale)))
    factor = round(2.0**places / float(result.scale)) // power.sum(axis, keepdims=True)
    return _stored((power * factor + 2 ** (places - 1)) >> places, result)


def log_softmax(q: Array, x: Meaning, result: Meaning, axis: int = -1) -> Array:
    """The logarithm of the same quotients."""
    total = _exponentials(q, x, axis).sum(axis, keepdims=True)
    logarithm = np.vectorize(_log2, otypes=[np.int64])(total)
    ratio, unit = float(x.scale) / float(result.scale), math.log(2) / 2.0**30 / float(result.scale)
    places = min(60, 45 - math.frexp(ratio)[1], 24 - math.frexp(unit)[1])
    wide = q.astype(np.int64)
    distance = (wide - wide.max(axis, keepdims=True)) * round(ratio * 2.0**places)
    steps = distance - logarithm * round(unit * 2.0**places)
    return _stored((steps + 2 ** (places - 1)) >> places, result)


def quotient(a: Array, a_is: Meaning, b: Array, b_is: Meaning, result: Meaning) -> Array:
    """a / b, broadcast; what is divided by 0 is the bound on its side, and 0 / 0 is 0."""
    ratio = float(a_is.scale) / float(b_is.scale) / float(result.scale)
    places = min(60, 45 - math.frexp(ratio)[1])
    factor = round(ratio * 2.0**places)

    def steps(dividend: int, divisor: int) -> int:
        if not divisor:
            return (dividend > 0) * 2**40 - (dividend < 0) * 2**40
        towards_zero = abs(dividend) * factor // abs(divisor)
        return ((towards_zero if dividend * divisor >= 0 else -towards_zero) + (1 << (places - 1))) >> places

    wide = (value.astype(object) - int(meaning.zero) for value, meaning in ((a, a_is), (b, b_is)))
    return _stored(np.vectorize(steps, otypes=[np.int64])(*wide), result)


def _exponentials(q: Array, x: Meaning, axis: int) -> Array:
    """2 to minus the distance from the peak, with 28 fractional bits."""
    rate = min(float(x.scale) * math.log2(math.e), 31.0)
    limit = min(int(np.iinfo(x.dtype).max) - int(np.iinfo(x.dtype).min), math.ceil(31 / rate))
    bits = min(30, math.floor(math.log2((2**31 - 1) / (limit * rate + 0.5))))
    wide = q.astype(np.int64)
    exponent = np.minimum(wide.max(axis, keepdims=True) - wide, limit) * round(rate * 2**bits)
    whole = (exponent + 2 ** (bits - 1)) >> bits
    f = (exponent - (whole << bits) + 2 ** (bits - 17)) >> (bits - 16)
    g = np.full_like(f, EXP2[3])
    for coefficient in EXP2[2::-1]:
        g = ((f * g) >> 16) + coefficient
    shift = np.minimum(whole + 1, 31)
    return np.asarray((2**29 - ((f * g) >> 3) + (1 << (shift - 1))) >> shift)


def _log2(total: int) -> int:
    """Logarithm to base 2 of a number of 28 fractional bits, with 30 fractional bits."""
    total = int(total)
    top = total.bit_length() - 1
    f = ((total << 62 - top) >> 32) - 2**30
    g = LOG2[-1]
    for coefficient in LOG2[-2::-1]:
        g = ((f * g) >> 30) + coefficient
    return ((top - 28) << 30) + ((f * g) >> 30)


def normalise(
    q: Array,
    x: Meaning,
    axes: Sequence[int],
    epsilon: float,
    gamma: Array,
    beta: Array,
    result: Meaning,
    centred: bool = True,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta; with the mean square where not ``centred``."""
    count = math.prod(q.shape[a] for a in axes)
    wide = q.astype(np.int64) - x.zero
    sums = wide.sum(tuple(axes), keepdims=True) if centred else np.int64(0)
    spread = count * (wide * wide).sum(tuple(axes), keepdims=True) - sums * sums
    spread = np.maximum(spread + round(count**2 * epsilon / float(x.scale) ** 2), 1)
    bits = 30 - math.ceil(math.log2(count) / 2)
    unit = np.empty_like(wide)
    inverse, shift = np.empty_like(spread), np.empty_like(spread)
    for at in np.ndindex(*spread.shape):
        number = int(spread[at])
        quarters = (62 - number.bit_length()) // 2
        inverse[at] = 2**61 // math.isqrt(number << (2 * quarters))
        shift[at] = 61 - bits - quarters
    unit = ((wide * count - sums) * inverse + (1 << (shift - 1))) >> shift
    ratio = np.float64(gamma) / float(result.scale) / 2.0**bits
    offset = np.float64(beta) / float(result.scale)
    places = affine_shift(float(np.abs(ratio).max()), float(np.abs(offset).max()))
    factor, added = (np.rint(v * 2.0**places).astype(np.int64) for v in (ratio, offset))
    return _stored((unit * factor + added + 2 ** (places - 1)) >> places, result)


def linear_resize(
    q: Array, x: Meaning, size: Sequence[int], mode: str, result: Meaning, family: str
) -> Array:
    """Height and width of [N, C, height, width] to ``size``, between the two nearest elements of each axis.

    Args:
        mode: ONNX's ``coordinate_transformation_mode``: half_pixel, align_corners or asymmetric.
    """
    short = np.iinfo(x.dtype).bits == 16
    bits = 15 if short else 11
    sums = q.astype(np.int64) - x.zero
    for axis, outputs in zip((2, 3), size, strict=True):
        extent = q.shape[axis]
        places = {
            "half_pixel": lambda i, n=extent, m=outputs: (i + 0.5) * n / m - 0.5,
            "align_corners": lambda i, n=extent, m=outputs: i * (n - 1) / (m - 1),
            "asymmetric": lambda i, n=extent, m=outputs: i * n / m,
        }[mode](np.arange(outputs))
        low = np.floor(places).astype(np.int64)
        weight = np.rint((places - low) * 2**bits).astype(np.int64)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
        near, far = (sums.take(np.clip(low + i, 0, extent - 1), axis) for i in (0, 1))
        sums = near * (2**bits - weight) + far * weight
    ratio = np.float64(x.scale) / result.scale / 4.0**bits
    return requantize(sums, ratio, result, family, short)


def affine_shift(ratio: float, offset: float) -> int:
    """How many fractional bits a factor and an addend have: the factor 30 bits, the addend 60."""
    return min(62, 30 - math.frexp(ratio)[1], 60 - math.frexp(offset)[1])


def _stored(steps: Array, result: Meaning) -> Array:
    return np.asarray(np.clip(steps + result.zero, *result.bounds).astype(result.dtype))
