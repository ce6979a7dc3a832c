"""The numerics of quantised layers in plain numpy: what docs/numerics.md says and every image computes.

Slow and clear on purpose, and independent of the compiler. Tensors are NCHW; sums are int64, so that an
overflow of the 32 bits that images have would show; wide sums have 64 bits there too. Every function takes
the family of numerics by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FAMILIES = ("float-requant", "integer-requant")
RATIO_BITS = {"float-requant": 16, "integer-requant": 22}
"""Significant bits of an 8-bit operand's multiplier: the product is exact in float32, and fits int32."""
WIDE_RATIO_BITS = 24
"""Those of an operand's multiplier in float64."""
PARTS = 256
"""An operand of a sum that is not exact is rounded to this share of the result's step."""
PART_LIMIT = 2**23
WIDE_LIMIT = 2**28
"""Steps that a sum is clipped to before it is added in float64."""
MAX_ENTRIES = {8: 4096, 16: 2**17}
"""Entries of a table for a function of sums, by the bits of its result."""
FINE_STEPS, MAX_SAMPLES = 8, 2**20


@dataclass(frozen=True)
class Meaning:
    """Integers q of type ``dtype`` between ``low`` and ``high`` mean ``(q - zero) * scale``."""

    dtype: str
    scale: Any
    zero: Any = 0
    low: Any = None
    high: Any = None

    @property
    def bounds(self) -> tuple[Any, Any]:
        """Lowest and highest integer."""
        info = np.iinfo(self.dtype)
        return (
            info.min if self.low is None else self.low,
            info.max if self.high is None else self.high,
        )

    @property
    def bits(self) -> int:
        """Bits of an integer."""
        return int(np.iinfo(self.dtype).bits)

    def clipped(self, low: float, high: float) -> Meaning:
        """The meaning with bounds at the integers of two numbers; how ReLU and clip are computed."""
        ends = (np.clip(v / np.float64(self.scale), -(2.0**20), 2.0**20) for v in (low, high))
        bottom, top = (np.clip(np.rint(end) + self.zero, *self.bounds) for end in ends)
        return replace(self, low=bottom.astype(np.int64), high=top.astype(np.int64))


# -- one number ------------------------------------------------------------------------------------------


def finish(steps: Array, result: Meaning) -> Array:
    """Steps of the result, float32 or float64: clipped, rounded to even, shifted by the zero point."""
    low, high = result.bounds
    inside = np.clip(steps, steps.dtype.type(low - result.zero), steps.dtype.type(high - result.zero))
    return np.asarray((np.rint(inside).astype(np.int64) + result.zero).astype(result.dtype))


def fixed_point(ratio: Array, max_shift: int = 62) -> tuple[Array, Array]:
    """A ratio as ``multiplier / 2**shift`` with 31 significant bits, ``1 <= shift <= max_shift``.

    Raises:
        ValueError: A ratio is 2**30 or more.
    """
    fraction, exponent = np.frexp(np.asarray(ratio, np.float64))
    multiplier, shift = np.rint(fraction * 2.0**31).astype(np.int64), 31 - exponent.astype(np.int64)
    carry = np.abs(multiplier) == 2**31
    multiplier, shift = np.where(carry, multiplier >> 1, multiplier), np.where(carry, shift - 1, shift)
    if (shift < 1).any():
        raise ValueError("a ratio of steps is 2**30 or more")
    return np.where(shift > max_shift, 0, multiplier), np.minimum(shift, max_shift)


def scale_sums(sums: Array, ratio: Array, family: str, is_wide: bool = False) -> Array:
    """Sums times a ratio: a float that is not rounded yet, or an integer rounded half up."""
    if family == "float-requant":
        kind = np.float64 if is_wide else np.float32
        return np.asarray(sums.astype(kind) * np.asarray(ratio, kind))
    multiplier, shift = (v.astype(object) for v in fixed_point(ratio, 86 if is_wide else 62))
    steps = (sums.astype(object) * multiplier + 2 ** (shift - 1)) // 2**shift
    return np.asarray(steps, np.int64)


def requantize(sums: Array, ratio: Array, result: Meaning, family: str, is_wide: bool = False) -> Array:
    """Sums in steps of the result.

    Args:
        ratio: What one unit of a sum means, over the result's step; float64, broadcastable to ``sums``.
        is_wide: Whether the sums have 64 bits.
    """
    steps = scale_sums(sums, ratio, family, is_wide)
    if family == "float-requant":
        return finish(steps, result)
    return np.asarray(np.clip(steps + result.zero, *result.bounds).astype(result.dtype))


def quantize(real: Array, result: Meaning) -> Array:
    """float32 numbers times the float32 reciprocal of the step; the same in both families."""
    with np.errstate(over="ignore"):  # infinity is clipped
        return finish(real.astype(np.float32) * np.float32(1 / np.float64(result.scale)), result)


def dequantize(q: Array, meaning: Meaning) -> Array:
    """The numbers in float32; the same in both families."""
    return np.asarray((q.astype(np.int64) - meaning.zero).astype(np.float32) * np.float32(meaning.scale))


def short_ratio(ratio: float, bits: int) -> float:
    """A ratio rounded to even at a number of significant bits."""
    fraction, exponent = np.frexp(ratio)
    return float(np.ldexp(np.rint(np.ldexp(fraction, bits)), int(exponent) - bits))


# -- products --------------------------------------------------------------------------------------------


def is_wide(x: Meaning, weight: Array) -> bool:
    """Whether sums have 64 bits; weights are [results, products], zero points taken off."""
    zero = abs(x.zero - 2**15) if x.dtype == "uint16" else abs(x.zero)
    largest, zero = (2**15, zero) if x.bits == 16 else (255, 255)
    wide = weight.astype(np.int64)
    absolute, signed = np.abs(wide).sum(1), np.abs(wide.sum(1))
    return bool(absolute.max(initial=0) * largest + signed.max(initial=0) * zero >= 2**30)


def conv2d(
    x: Array,
    zero: int,
    weight: Array,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Array:
    """Sums of a convolution, [N, O, height, width]; padding holds the zero point, so it adds nothing.

    Args:
        x: [N, C, height, width].
        zero: Its zero point.
        weight: [O, C / groups, kernel height, kernel width], zero points taken off.
        padding: Rows above, columns left, rows below, columns right.
    """
    top, left, bottom, right = padding
    inner = x.astype(np.int64) - zero
    wide = np.pad(inner, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, channels, height, width = wide.shape
    out, _, rows, cols = weight.shape
    out_h = (height - dilation[0] * (rows - 1) - 1) // strides[0] + 1
    out_w = (width - dilation[1] * (cols - 1) - 1) // strides[1] + 1
    sums = np.zeros((n, groups, out // groups, out_h, out_w), np.int64)
    grouped = wide.reshape(n, groups, channels // groups, height, width)
    kernel = weight.astype(np.int64).reshape(groups, out // groups, channels // groups, rows, cols)
    for i in range(rows):
        for j in range(cols):
            y, z = i * dilation[0], j * dilation[1]
            taps = grouped[
                ..., y : y + out_h * strides[0] : strides[0], z : z + out_w * strides[1] : strides[1]
            ]
            taps = taps[..., :out_h, :out_w]
            sums += np.einsum("ngchw,goc->ngohw", taps, kernel[..., i, j])
    return sums.reshape(n, out, out_h, out_w)


def matmul(a: Array, a_zero: int, b: Array, b_zero: Any = 0) -> Array:
    """Sums of a matrix product."""
    return np.asarray(np.matmul(a.astype(np.int64) - a_zero, b.astype(np.int64) - b_zero))


def quantize_bias(bias: Array, scale: Array) -> Array:
    """A bias in units of the sums, rounded to even."""
    return np.rint(np.asarray(bias, np.float64) / scale).astype(np.int64)


# -- operators on several tensors ------------------------------------------------------------------------


@dataclass(frozen=True)
class Operand:
    """A tensor of 8 or 16 bits, or with ``is_sum`` one of sums, whose ``meaning.scale`` is that of a unit.

    With ``is_constant``, the values are numbers; the scale of what is subtracted is negative.
    """

    values: Array
    meaning: Meaning
    is_sum: bool = False
    is_constant: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether additions of it are made in float64: its sums have 64 bits, or its integers 16."""
        return not self.is_constant and self.meaning.bits in (16, 64)


def _wide_steps(operand: Operand, result: Meaning) -> Array:
    """An operand of an addition in float64: exact steps, or a clipped product."""
    if operand.is_constant:
        return np.asarray(np.clip(operand.values / np.float64(result.scale), -WIDE_LIMIT, WIDE_LIMIT))
    ratio = np.float64(operand.meaning.scale) / result.scale
    if operand.is_sum:
        return np.asarray(np.clip(operand.values.astype(np.float64) * ratio, -WIDE_LIMIT, WIDE_LIMIT))
    centred = operand.values.astype(np.int64) - operand.meaning.zero
    return np.asarray(centred.astype(np.float64) * short_ratio(ratio, WIDE_RATIO_BITS))


def _operand_steps(operand: Operand, result: Meaning, family: str, limit: int = PART_LIMIT) -> Array:
    """An operand of an addition: exact float32 steps, or integer 256ths of a step."""
    if operand.is_constant:
        parts = np.rint(np.clip(operand.values * PARTS / np.float64(result.scale), -limit, limit))
        return np.asarray(np.float32(parts / PARTS) if family == "float-requant" else parts.astype(np.int64))
    ratio = np.float64(operand.meaning.scale) / result.scale
    if operand.is_sum:
        fine = scale_sums(operand.values, ratio * PARTS, family, operand.is_wide)
        whole = np.rint(np.clip(fine, -limit, limit))
        return np.asarray(whole / np.float32(PARTS) if family == "float-requant" else whole.astype(np.int64))
    centred = operand.values.astype(np.int64) - operand.meaning.zero
    if family == "float-requant":
        return np.asarray(centred.astype(np.float32) * np.float32(short_ratio(ratio, RATIO_BITS[family])))
    if operand.is_wide:
        return np.clip(scale_sums(centred, ratio * PARTS, family), -limit, limit)
    fraction, exponent = np.frexp(ratio * PARTS)
    multiplier, shift = int(np.rint(np.ldexp(fraction, 22))), 22 - int(exponent)
    return np.asarray((centred * multiplier + (1 << (shift - 1))) >> shift)


def add(operands: Sequence[Operand], result: Meaning, family: str) -> Array:
    """The sum of tensors, from left to right.

    float-requant: every product is exact in float32, every addition is rounded once, in float32; in float64
    where an operand is wide.
    integer-requant: every operand is rounded half up to 256ths of a step, the sum to steps.
    """
    if family == "float-requant" and any(operand.is_wide for operand in operands):
        total = _wide_steps(operands[0], result)
        for operand in operands[1:]:
            total = total + _wide_steps(operand, result)
        return finish(total, result)
    limit = 2**27 if any(operand.is_wide for operand in operands) else PART_LIMIT
    total = _operand_steps(operands[0], result, family, limit)
    for operand in operands[1:]:
        total = total + _operand_steps(operand, result, family, limit)
    if family == "float-requant":
        return finish(total, result)
    return np.asarray(np.clip(((total + PARTS // 2) >> 8) + result.zero, *result.bounds).astype(result.dtype))


def rescale(operand: Operand, result: Meaning, family: str) -> Array:
    """A tensor in another scale, as operands of concat and ReLUs need it; itself where nothing changes."""
    return add([operand], result, family)


def multiply(a: Operand, b: Operand, result: Meaning, family: str) -> Array:
    """The product of two tensors: exact in int32 or int64, then requantised."""
    product = (a.values.astype(np.int64) - a.meaning.zero) * (b.values.astype(np.int64) - b.meaning.zero)
    ratio = np.float64(a.meaning.scale) * np.float64(b.meaning.scale) / result.scale
    return requantize(product, ratio, result, family, _reach(a.meaning) * _reach(b.meaning) >= 2**31)


def _reach(x: Meaning) -> int:
    """Largest absolute value of an integer minus the zero point."""
    info = np.iinfo(x.dtype)
    return int(max(x.zero - info.min, info.max - x.zero))


# -- windows ---------------------------------------------------------------------------------------------


def average_pool(
    x: Operand,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    count_padding: bool,
    result: Meaning,
    family: str,
) -> Array:
    """Mean over windows: the sum is exact, its multiplier holds the number of elements."""
    channels = x.values.shape[1]
    ones = np.ones((channels, 1, *kernel), np.int64)
    sums = conv2d(x.values, x.meaning.zero, ones, strides, padding, groups=channels)
    inside = conv2d(np.ones_like(x.values[:1, :1], np.int64), 0, ones[:1], strides, padding)
    counts = np.full_like(inside, kernel[0] * kernel[1]) if count_padding else np.maximum(inside, 1)
    wide = is_wide(x.meaning, ones.reshape(channels, -1))
    return requantize(sums, np.float64(x.meaning.scale) / result.scale / counts, result, family, wide)


def global_average_pool(x: Operand, result: Meaning, family: str) -> Array:
    """Mean over height and width."""
    sums = (x.values.astype(np.int64) - x.meaning.zero).sum((2, 3), keepdims=True)
    count = x.values.shape[2] * x.values.shape[3]
    wide = is_wide(x.meaning, np.ones((1, count)))
    return requantize(sums, np.float64(x.meaning.scale) / result.scale / count, result, family, wide)


def max_pool(x: Array, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int]) -> Array:
    """Largest element of each window, which is that of the largest number."""
    top, left, bottom, right = padding
    lowest = np.iinfo(x.dtype).min
    wide = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=lowest)
    windows = np.lib.stride_tricks.sliding_window_view(wide, tuple(kernel), (2, 3))
    return np.asarray(windows[:, :, :: strides[0], :: strides[1]].max((-2, -1)))


# -- tables ----------------------------------------------------------------------------------------------


def table(function: Callable[[Array], Array], x: Meaning, result: Meaning) -> Array:
    """Entries for all integers of the operand's type, from the lowest; computed in float64."""
    info = np.iinfo(x.dtype)
    real = (np.arange(info.min, info.max + 1) - x.zero) * np.float64(x.scale)
    return _entries(function, real, result)


def look_up(x: Array, entries: Array) -> Array:
    """The table's entry for every element."""
    found: Array = entries[x.astype(np.int64) - np.iinfo(x.dtype).min]
    return found


def function_of_sums(
    function: Callable[[Array], Array],
    sums: Array,
    scale: Array,
    reach: int,
    result: Meaning,
    family: str,
    is_wide: bool = False,
) -> Array:
    """A function of sums by a table on a grid of arguments that ends where the function saturates.

    Args:
        scale: What a unit of a sum means, for each channel.
        reach: Bound on the absolute value of a sum.
    """
    end = reach * float(np.abs(scale).max())
    step = float(result.scale) / FINE_STEPS
    count = int(min(np.ceil(end / step), MAX_SAMPLES / 2))
    samples = np.linspace(-end, end, 2 * count + 1)
    changes = np.flatnonzero(np.diff(_entries(function, samples, result).astype(np.int64)))
    low, high = (samples[changes[0]], samples[changes[-1] + 1]) if changes.size else (0.0, 0.0)
    step = max(step, (high - low) / (MAX_ENTRIES[result.bits] - 3))
    first = int(np.floor(low / step)) - 1
    size = int(np.ceil(high / step)) + 2 - first
    entries = _entries(function, (first + np.arange(size)) * step, result)
    place = Meaning("int32", step, -first, 0, size - 1)
    return entries[requantize(sums, scale / step, place, family, is_wide)]


def _entries(function: Callable[[Array], Array], real: Array, result: Meaning) -> Array:
    with np.errstate(all="ignore"):
        steps = np.nan_to_num(function(real) / np.float64(result.scale), nan=0.0, posinf=1e9, neginf=-1e9)
    return np.asarray(np.clip(np.rint(steps) + result.zero, *result.bounds).astype(result.dtype))
