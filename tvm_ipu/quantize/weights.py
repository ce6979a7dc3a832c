"""Ranges of weights: symmetric, one for each output channel."""

from __future__ import annotations

import numpy as np

from tvm_ipu.base.graph import Array
from tvm_ipu.quantize.grid import WEIGHT_STEPS

SHARES = {4: np.linspace(0.4, 1.0, 61), 8: np.linspace(0.7, 1.0, 31)}
"""Shares of a channel's largest weight that the search tries, by bits."""

_MARGIN = 1.001
"""Room for float32's rounding when errors are compared with a bound."""


def largest(weights: Array, axis: int | None) -> Array:
    """The largest absolute value of each channel, float64 [channels]; [1] without an axis."""
    return np.asarray(_rows(np.abs(weights), axis).max(1, initial=0), np.float64)


def least_error(weights: Array, axis: int | None, bits: int) -> Array:
    """The range of each channel with the least squared error of its weights, float64 [channels].

    Clipping its few largest weights lets the others be expressed more finely. 16 bits are fine enough as
    they are.
    """
    high = largest(weights, axis)
    if bits not in SHARES:
        return high
    rows, steps = _rows(weights, axis).astype(np.float32, copy=False), np.float32(WEIGHT_STEPS[bits])
    best, least, left = high.copy(), np.full(high.size, np.inf), np.arange(high.size)
    for share in SHARES[bits][::-1]:
        # less and less is worth trying where cutting off the largest weight alone costs more than was found
        hopeful = np.square(high[left] * (1 - share)) <= least[left] * _MARGIN
        if not hopeful.all():
            left, rows = left[hopeful], rows[hopeful]
        top = high[left] * share
        scale = np.maximum(top, 1e-30).astype(np.float32)[:, None] / steps
        rounded = np.clip(np.rint(rows / scale), -steps, steps) * scale
        error = np.square(rounded - rows).sum(1)
        better = error < least[left]
        best[left[better]], least[left[better]] = top[better], error[better]
    return best


def _rows(weights: Array, axis: int | None) -> Array:
    """Weights as [channels, others]."""
    if axis is None:
        return weights.reshape(1, -1)
    return np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
