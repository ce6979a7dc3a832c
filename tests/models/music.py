"""A recording of a singer, and what basic-pitch's authors found in it, from its source distribution."""

from __future__ import annotations

import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models import zoo

Array = NDArray[Any]

_SOURCE = zoo.Package(
    "basic_pitch",  # spelt unlike the wheel in ``zoo``, for a folder of its own in the cache
    "0.4.0",
    "6f48ac4b909c990fd59460622137a03b857c829bb1f3e65c71708da576ab68e5",
    source=True,
)
RATE, SAMPLES = 22050, 43844
"""Samples a second, and those of a window, which are the network's input."""

_HOP = 256
_OVERLAP = 30
"""Frames that two windows have in common."""


def windows() -> tuple[Array, int]:
    """The recording ``vocadito_10`` as float32 [windows,43844,1], and the number of its samples."""
    import soxr  # resampling by another library gives other samples

    with wave.open(str(_file("vocadito_10.wav"))) as file:
        rate, content = file.getframerate(), file.readframes(file.getnframes())
    sound = np.frombuffer(content, "<i2").astype(np.float32) / 32768
    sound = soxr.resample(sound, rate, RATE, "HQ")
    padded = np.concatenate([np.zeros(_OVERLAP * _HOP // 2, np.float32), sound])
    step = SAMPLES - _OVERLAP * _HOP
    parts = [padded[start : start + SAMPLES] for start in range(0, len(padded), step)]
    return np.stack([np.pad(part, (0, SAMPLES - len(part))) for part in parts])[..., None], len(sound)


def joined(outputs: Iterable[Array], samples: int) -> Array:
    """Outputs [1,frames,bins] of successive windows as one, without what overlaps."""
    half = _OVERLAP // 2
    kept = np.concatenate([output[0, half:-half] for output in outputs])
    return kept[: int(samples * ((RATE // _HOP) / RATE))]


def reference() -> dict[str, Array]:
    """``note`` and ``onset`` [frames,88], ``contour`` [frames,264], as the authors publish them."""
    with np.load(_file("vocadito_10/model_output.npz"), allow_pickle=True) as file:
        found: dict[str, Array] = file["arr_0"].item()  # the package's sha256 is checked
    return found


def _file(name: str) -> Path:
    return zoo.fetch(_SOURCE, f"tests/resources/{name}")[0]
