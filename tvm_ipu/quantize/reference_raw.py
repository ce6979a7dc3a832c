"""Raw inputs in plain numpy: what docs/numerics.md says of frames and pixels, independent of the compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Shares of the colours in luminance, ITU-R BT.601."""


def nv12_to_rgb(frame: Array, height: int, width: int) -> Array:
    """A frame as RGB.

    Args:
        frame: uint8 [rows * 3/2, columns]: Y of every pixel, then rows of U and V in turn for 2 x 2 pixels.
        height: Rows of the picture; those below are padding.
        width: Columns of the picture.

    Returns:
        uint8 [height, width, 3].
    """
    rows = frame.shape[0] * 2 // 3
    y = frame[:height, :width].astype(np.int64) - 16
    u, v = (
        frame[rows:, i::2].repeat(2, 0).repeat(2, 1)[:height, :width].astype(np.int64) - 128 for i in (0, 1)
    )
    luma, chroma, one = 255 / 219, 255 / 112, 2.0**20
    fixed = [
        np.rint(factor * one).astype(np.int64)
        for factor in (
            luma,
            chroma * (1 - RED),
            -chroma * (1 - BLUE) * BLUE / GREEN,
            -chroma * (1 - RED) * RED / GREEN,
            chroma * (1 - BLUE),
        )
    ]
    ky, red_v, green_u, green_v, blue_u = fixed
    sums = np.stack([ky * y + red_v * v, ky * y + green_u * u + green_v * v, ky * y + blue_u * u], -1)
    return np.asarray(np.clip((sums + 2**19) >> 20, 0, 255).astype(np.uint8))


def quantize_pixels(pixels: Array, mean: Array, std: Array, scale: float, zero: int, dtype: str) -> Array:
    """Pixels as integers of a quantised input.

    Args:
        pixels: uint8 [..., C].
        mean: [C], in pixels.
        std: [C].
        scale: Step of the input.
        zero: Its zero point.
        dtype: Its type.
    """
    factor = 1 / (np.asarray(std, np.float64) * scale)
    added = zero - np.asarray(mean, np.float64) * factor
    largest = (255 * np.abs(factor) + np.abs(added) + 1).max()
    shift = max(1, int(np.floor(np.log2(2.0**30 / largest))))
    whole = np.rint(factor * 2.0**shift).astype(np.int64)
    offset = np.rint(added * 2.0**shift).astype(np.int64)
    q = (pixels.astype(np.int64) * whole + offset + (1 << (shift - 1))) >> shift
    info = np.iinfo(dtype)
    return np.asarray(np.clip(q, info.min, info.max).astype(dtype))
