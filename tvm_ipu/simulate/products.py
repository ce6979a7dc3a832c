"""Convolutions and matrix products in numpy: of integers exactly, of floats in their own type.

Sums of products of integers are computed in floating point where that is exact whatever the order: where no
partial sum can pass the largest whole number up to which the type holds all of them (2**24 for float32, 2**53
for float64). That is many times faster than numpy's integer products, which have no BLAS behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_EXACT = ((np.float32, 2**24), (np.float64, 2**53))


class Weight:
    """An operand of products, with what is worked out once for all of them.

    Args:
        value: Integers or floats.
        axes: Those along which a product sums.

    Attributes:
        value: The operand itself.
    """

    def __init__(self, value: Array, axes: tuple[int, ...]) -> None:
        self.value = value
        self._terms = 0.0
        self._cast: dict[Any, Array] = {}
        if value.dtype.kind != "f":
            self._terms = float(np.abs(value.astype(np.float64)).sum(axes).max(initial=0))

    def carrier(self, x: Array) -> Any:
        """The fastest type in which a product with ``x`` is exact; that of ``x`` for floats."""
        if x.dtype.kind == "f":
            return x.dtype
        reach = _reach(x) * self._terms
        return next((kind for kind, limit in _EXACT if reach <= limit), np.int64)

    def cast(self, kind: Any) -> Array:
        """The operand in another type."""
        if kind not in self._cast:
            self._cast[kind] = self.value.astype(kind)
        return self._cast[kind]


def matmul(a: Array, weight: Weight, dtype: str) -> Array:
    """``a @ weight`` with sums of type ``dtype``."""
    kind = weight.carrier(a)
    return np.asarray(np.matmul(a.astype(kind), weight.cast(kind)), dtype)


def conv2d(
    x: Array,
    weight: Weight,
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: str,
) -> Array:
    """A convolution.

    Args:
        x: [batch, channels, height, width].
        weight: [outputs, channels / groups, kernel height, kernel width].
        strides: Of height and width.
        padding: Zeros above, left, below, right.
        dilation: Of height and width.
        groups: Channels and outputs are split into so many.
        dtype: Type of the sums.

    Returns:
        [batch, outputs, height, width].
    """
    kind = weight.carrier(x)
    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(kind)
    w = weight.cast(kind)
    taps = windows(padded, w.shape[2:], strides, dilation)
    is_depthwise = w.shape[1] == 1 and groups == x.shape[1]
    total = _depthwise(taps, w) if is_depthwise else _dense(taps, w, groups)
    return np.asarray(total, dtype)


def windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Array:
    """A view [batch, channels, kernel height, kernel width, height, width] of what a kernel meets."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    views: Array = np.lib.stride_tricks.sliding_window_view(x, reach, (2, 3))
    views = views[:, :, :: strides[0], :: strides[1], :: dilation[0], :: dilation[1]]
    return views.transpose(0, 1, 4, 5, 2, 3)


def _dense(windows: Array, weight: Array, groups: int) -> Array:
    batch, channels, *kernel, height, width = windows.shape
    terms = channels // groups * kernel[0] * kernel[1]
    columns = windows.reshape(batch, groups, terms, height * width)
    rows = weight.reshape(groups, -1, terms)
    return np.asarray(np.matmul(rows, columns)).reshape(batch, -1, height, width)


def _depthwise(windows: Array, weight: Array) -> Array:
    batch, channels, *kernel, height, width = windows.shape
    taps = weight.reshape(channels, -1, *kernel)
    total = np.zeros((batch, channels, taps.shape[1], height, width), windows.dtype)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            total += windows[:, :, None, row, column] * taps[None, :, :, row, column, None, None]
    return total.reshape(batch, -1, height, width)


def _reach(x: Array) -> float:
    """Largest absolute value of the type of ``x``, or in it where the type has 32 bits and more."""
    if x.dtype.itemsize <= 2:
        info = np.iinfo(x.dtype)
        return float(max(-info.min, info.max))
    return float(max(-int(x.min(initial=0)), int(x.max(initial=0))))
