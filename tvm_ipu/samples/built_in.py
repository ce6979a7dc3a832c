"""Preprocessing for the common cases. It runs in the worker's process, like scripts do.

With ``norm`` the arrays are what the float model takes, ``(pixel - mean) / std``. Without it they hold the
training format's bytes. Where there is no contract, they are ``pixel / 255`` in both cases.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.arrays import read_arrays
from tvm_ipu.base.contract import InputContract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.samples.steps import Step

Array = NDArray[Any]

PADDING = 114
"""Grey beside a letterboxed picture."""


def preprocess(step: Step, path: Path, norm: bool) -> Array:
    """The array of one file.

    Raises:
        OptionError: Pillow is missing, or the file is no picture or array.
    """
    if step.built_in == "npy":
        return _array(step, path, norm)
    height, width = _extents(step)
    picture = _open(path, _mode(step))
    if step.built_in == "classification":
        picture = _cropped(picture, height, width, step.numbers[1] if len(step.numbers) > 1 else None)
    else:
        picture = _letterboxed(picture, height, width)
    return _arranged(np.asarray(picture), step, norm)


def _array(step: Step, path: Path, norm: bool) -> Array:
    try:
        found = read_arrays(path)
    except (ValueError, OSError) as err:
        raise OptionError(f"-n npy: {path} is no array of numpy.save ({err})") from err
    if not isinstance(found, np.ndarray):
        raise OptionError(f"-n npy: {path} holds several arrays", "save one with numpy.save")
    return found.astype(step.dtype(norm).label)


def _is_planar(step: Step) -> bool:
    """Whether the float model takes channels before rows."""
    if step.contract is not None:
        return step.contract.is_planar
    return len(step.spec.shape) == 4 and step.spec.shape[1] in (1, 3)


def _extents(step: Step) -> tuple[int, int]:
    """Height and width of the picture."""
    if len(step.spec.shape) != 4:
        raise OptionError(
            f"-n {step.built_in}: input '{step.spec.name}' has shape {step.spec.shape}, and is no picture"
        )
    if step.numbers:
        return step.numbers[0], step.numbers[0]
    height, width = step.spec.shape[2:] if _is_planar(step) else step.spec.shape[1:3]
    return height, width


def _mode(step: Step) -> str:
    """Pillow's name of the pixels: one channel or three."""
    if step.contract is not None:
        return "L" if step.contract.training_format == "GRAY" else "RGB"
    channels = step.spec.shape[1] if _is_planar(step) else step.spec.shape[-1]
    return "L" if channels == 1 else "RGB"


def _open(path: Path, mode: str) -> Any:
    try:
        from PIL import Image
    except ImportError as err:
        raise OptionError(
            "built-in preprocessing of pictures needs Pillow", "pip install 'tvm_ipu[pictures]'"
        ) from err
    try:
        with Image.open(path) as picture:
            return picture.convert(mode)
    except Exception as err:  # Pillow's decoders raise errors of all kinds
        raise OptionError(f"{path} is no picture that Pillow reads ({err})") from err


def _cropped(picture: Any, height: int, width: int, resize: int | None) -> Any:
    """The middle, after the shorter side was resized (to 8/7 of the crop's), as torchvision does."""
    from PIL import Image

    shortest = min(picture.size)
    least = max(height * shortest / picture.height, width * shortest / picture.width)
    short = max(resize or round(min(height, width) * 8 / 7), math.ceil(least))
    extents = [side * short // shortest for side in picture.size]
    resized = picture.resize(extents, Image.Resampling.BILINEAR)
    left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def _letterboxed(picture: Any, height: int, width: int) -> Any:
    """The whole picture in the middle of a grey one."""
    from PIL import Image

    scale = min(height / picture.height, width / picture.width)
    inner = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    grey = PADDING if picture.mode == "L" else (PADDING,) * 3
    canvas = Image.new(picture.mode, (width, height), grey)
    corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(picture.resize(inner, Image.Resampling.BILINEAR), corner)
    return canvas


def _arranged(pixels: Array, step: Step, norm: bool) -> Array:
    """Pixels [height, width, RGB] or [height, width] in the model's order of channels and dimensions."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    values = pixels
    if norm or step.contract is None:
        mean, std = _statistics(step.contract, pixels.shape[2])
        values = ((pixels - mean) / std).astype(np.float32)
    if step.contract is not None and step.contract.training_format == "BGR":
        values = values[:, :, ::-1]
    if _is_planar(step):
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None])


def _statistics(contract: InputContract | None, channels: int) -> tuple[Array, Array]:
    """Mean and divisor of each channel."""
    if contract is None:
        return np.zeros(channels, np.float32), np.full(channels, 255, np.float32)
    mean, std = (
        np.asarray(values or (default,), np.float32)
        for values, default in ((contract.mean, 0.0), (contract.std, 1.0))
    )
    return np.broadcast_to(mean, (channels,)), np.broadcast_to(std, (channels,))
