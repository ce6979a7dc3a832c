"""Pictures as the bytes that a board's camera would feed: what preprocess scripts leave to the simulators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.contract import RAW_FORMATS, Contract, InputContract

Array = NDArray[Any]

SHARES = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue in luminance, ITU-R BT.601."""


def to_raw(array: Array, contract: InputContract) -> Array:
    """An array of the training format in the input format, rows and columns padded as the contract says.

    Args:
        array: For pictures uint8, [N, H, W, C] or [N, C, H, W] in the contract's layout. Raw data stay as
            they are.
        contract: Of the input.

    Returns:
        uint8 in the same layout; [N, rows * 3/2, columns] for YUV_NV12.
    """
    if contract.input_format in RAW_FORMATS:
        return array
    pixels = array.transpose(0, 2, 3, 1) if contract.is_planar else array
    missing = np.subtract(contract.padded(array.shape), contract.extents(array.shape))
    pixels = np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    if contract.input_format == "YUV_NV12":
        return _nv12(pixels, contract.training_format)
    if contract.training_format == "GRAY":
        pixels = pixels.repeat(len(contract.input_format.replace("GRAY", "Y")), 3)
    else:
        opaque = np.full((*pixels.shape[:3], 1), 255, np.uint8)
        named = dict(zip(contract.training_format + "A", range(4), strict=True))
        pixels = np.concatenate([pixels, opaque], 3)[
            ..., [named[channel] for channel in contract.input_format]
        ]
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if contract.is_planar else pixels)


def _nv12(pixels: Array, trained: str) -> Array:
    """Luminance of every pixel from 16 to 235, then U and V in turn: means over 2 x 2 pixels."""
    n, rows, columns, _ = pixels.shape
    if trained == "GRAY":
        rgb = pixels.repeat(3, 3).astype(np.float64)
    else:
        rgb = pixels[..., [trained.index(channel) for channel in "RGB"]].astype(np.float64)
    light = rgb @ SHARES
    chroma = [(rgb[..., at] - light) / (1 - SHARES[at]) * (112 / 255) + 128 for at in (2, 0)]
    means = [plane.reshape(n, rows // 2, 2, columns // 2, 2).mean((2, 4)) for plane in chroma]
    halves = np.stack(means, -1).reshape(n, rows // 2, columns)
    frame = np.concatenate([light * (219 / 255) + 16, halves], 1)
    return np.asarray(np.clip(np.rint(frame), 0, 255).astype(np.uint8))


def raw_feeds(arrays: Mapping[str, Array], contract: Contract) -> dict[str, Array]:
    """A sample's arrays of the training formats as what the fixed model takes."""
    contracts = {one.name: one for one in contract.inputs}
    return {
        name: to_raw(array, contracts[name]) if name in contracts else array for name, array in arrays.items()
    }
