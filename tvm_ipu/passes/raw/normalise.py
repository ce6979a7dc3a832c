"""Pixels as the integers of a model's quantised input, or as the numbers that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_ipu.base.contract import InputContract
from tvm_ipu.passes.rewrite import make_constant

R = relax.op

REACH = 2.0**30
"""Bound of the sums ``pixel * factor + added``."""


@dataclass(frozen=True)
class Affine:
    """``(pixel * factor + added) >> shift`` for each channel.

    Attributes:
        factor: int32 [C].
        added: int32 [C], half a step included, so that the shift rounds half up.
        shift: At least 1.
    """

    factor: NDArray[np.int32]
    added: NDArray[np.int32]
    shift: int

    def of(self, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The formula, before the clip; channels last."""
        return (pixels * self.factor.astype(np.int64) + self.added) >> self.shift


def channel_values(
    values: tuple[float, ...], channels: int, trained: str, default: float
) -> NDArray[np.float64]:
    """Mean or divisor of each channel in the trained order, given in the order R, G, B."""
    if not values:
        return np.full(channels, default)
    found = np.broadcast_to(np.asarray(values, np.float64), (channels,)).copy()
    return found[::-1] if trained == "BGR" else found


def affine(contract: InputContract, channels: int, scale: float, zero: int) -> Affine:
    """From pixels to the integers of a quantised input: mean, divisor, step and zero point in one formula."""
    mean = channel_values(contract.mean, channels, contract.training_format, 0.0)
    std = channel_values(contract.std, channels, contract.training_format, 1.0)
    factor = 1 / (std * scale)
    added = zero - mean * factor
    largest = float((255 * np.abs(factor) + np.abs(added) + 1).max())
    shift = max(1, int(np.floor(np.log2(REACH / largest))))
    step = 2.0**shift
    half = 2 ** (shift - 1)
    return Affine(
        np.rint(factor * step).astype(np.int32), (np.rint(added * step) + half).astype(np.int32), shift
    )


def quantized_pixels(
    pixels: relax.Expr, contract: InputContract, scale: float, zero: int, dtype: str, axis: int
) -> relax.Expr:
    """Pixels, uint8 or int32, as integers of ``dtype``; nothing is computed where they are the same.

    Args:
        pixels: The picture, channels on ``axis``.
        contract: Mean and divisor.
        scale: Step of the quantised input.
        zero: Its zero point.
        dtype: Its type.
        axis: Of the channels.
    """
    shape = [int(dim) for dim in pixels.ty.shape]
    formula = affine(contract, shape[axis], scale, zero)
    info = np.iinfo(dtype)
    every = formula.of(np.arange(256, dtype=np.int64)[:, None])
    if dtype == "uint8" and np.array_equal(every, np.broadcast_to(np.arange(256)[:, None], every.shape)):
        return pixels if str(pixels.ty.dtype) == "uint8" else R.astype(pixels, "uint8")
    along = [shape[axis] if i == axis else 1 for i in range(len(shape))]
    factor, added = (make_constant(v.reshape(along)) for v in (formula.factor, formula.added))
    wide = R.add(R.multiply(R.astype(pixels, "int32"), factor), added)
    shifted = R.right_shift(wide, relax.const(formula.shift, "int32"))
    return R.astype(R.clip(shifted, int(info.min), int(info.max)), dtype)


def real_pixels(pixels: relax.Expr, contract: InputContract, axis: int) -> relax.Expr:
    """Pixels less the mean, over the divisor, in float32: for inputs that are not quantised."""
    shape = [int(dim) for dim in pixels.ty.shape]
    mean = channel_values(contract.mean, shape[axis], contract.training_format, 0.0)
    std = channel_values(contract.std, shape[axis], contract.training_format, 1.0)
    along = [shape[axis] if i == axis else 1 for i in range(len(shape))]
    mean32, factor32 = ((v.reshape(along)).astype(np.float32) for v in (mean, 1 / std))
    centred = R.subtract(R.astype(pixels, "float32"), make_constant(mean32))
    return R.multiply(centred, make_constant(factor32))
