"""From ranges to the numbers that integers stand for: scales and zero points (docs/numerics.md, tensors)."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from tvm_ipu.base.graph import Array

WEIGHT_STEPS = {4: 7, 8: 127, 16: 32767}
"""Largest integer of a weight, by bits."""

SCALE_SPREAD = 2.0**-12
"""Least scale of an output channel, as a share of the layer's largest: channels of next to nothing (dead
filters whose normalisation was folded in) would else ask for biases that no int32 holds."""

_TINY = 2.0**-100
_STEPS_8, _STEPS_16 = 255, 32767


@dataclass(frozen=True)
class Grid:
    """Integers q that mean ``(q - zero) * scale``.

    Attributes:
        dtype: Their type.
        scale: float32, a scalar or one for each channel.
        zero: Zero point, of ``dtype``, as many.
        limits: Lowest and highest integer that is used.
    """

    dtype: np.dtype[np.generic]
    scale: Array
    zero: Array
    limits: tuple[int, int]

    def integers(self, real: Array, axis: int | None = None) -> Array:
        """Numbers as integers, rounded to nearest even; scales run along ``axis``."""
        scale, zero = (along(p, axis, real.ndim) for p in (self.scale, self.zero))
        steps = np.rint(real.astype(np.float64) / scale.astype(np.float64)) + zero.astype(np.float64)
        return np.asarray(np.clip(steps, *self.limits).astype(np.int32).astype(self.dtype))

    def rounded(self, real: Array, axis: int | None = None) -> Array:
        """Numbers as the integers express them, float32."""
        scale, zero = (along(p, axis, real.ndim) for p in (self.scale, self.zero))
        steps = self.integers(real, axis).astype(np.int32) - zero.astype(np.int32)
        return np.asarray(steps.astype(np.float32) * scale)


def activation_grid(low: float, high: float, bits: int) -> Grid:
    """The grid of an activation: uint8 with a zero point inside, or int16 around 0; both express 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        scale = np.float32(max(max(-low, high) / _STEPS_16, _TINY))
        return Grid(
            np.dtype(np.int16), np.asarray(scale), np.zeros((), np.int16), (-_STEPS_16 - 1, _STEPS_16)
        )
    scale = np.float32((high - low) / _STEPS_8)
    if scale < _TINY:
        scale = np.float32(1 / _STEPS_8)
    zero = np.asarray(min(max(round(-low / float(scale)), 0), _STEPS_8), np.uint8)
    return Grid(np.dtype(np.uint8), np.asarray(scale), zero, (0, _STEPS_8))


def weight_grid(high: Array, bits: int) -> Grid:
    """The grid of weights with the given largest absolute values, one for each channel or one for all."""
    steps = WEIGHT_STEPS[bits]
    scale = np.asarray(high, np.float64) / steps
    floor = max(float(scale.max(initial=0)) * SCALE_SPREAD, _TINY)
    dtype = {4: np.dtype(ml_dtypes.int4), 8: np.dtype(np.int8), 16: np.dtype(np.int16)}[bits]
    scale = np.maximum(scale, floor).astype(np.float32)
    return Grid(dtype, scale, np.zeros(scale.shape, np.int8).astype(dtype), (-steps, steps))


def along(parameter: Array, axis: int | None, rank: int) -> Array:
    """Parameters for each slice of an axis, with the tensor's rank; a scalar stays one."""
    if axis is None or np.size(parameter) == 1:
        return np.asarray(parameter).reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return np.asarray(parameter).reshape(shape)
