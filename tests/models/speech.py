"""Speech or not, by Silero VAD, on 30 seconds of a labelled conversation from pyannote.audio's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models import zoo

Array = NDArray[Any]
Run = Callable[[Array, Array], tuple[Array, Array]]
"""From a frame [1, CONTEXT + FRAME] and a state [2, 1, 128] to a probability [1, 1] and the next state."""

RATE, FRAME, CONTEXT = 16000, 512, 64
"""Samples a second, in a frame, and of the frame before that the model sees."""

_SILERO = zoo.Package(
    "silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"
)
_PYANNOTE = zoo.Package(
    "pyannote.audio",
    "4.0.7",
    "3a903dfb5ca711d134cc2522561c9158b186836f5d62e8a57c46c6648e8a8229",
    source=True,
)
_FOLDER = "tests/data"


def model(name: str) -> Path:
    """A file of the package."""
    return zoo.fetch(_SILERO, f"silero_vad/data/{name}")[0]


def frames() -> Array:
    """The recording as float32 [N, CONTEXT + FRAME]."""
    content = zoo.fetch(_PYANNOTE, f"{_FOLDER}/tst00.wav")[0].read_bytes()
    start = content.index(b"data") + 8  # float32, one channel
    samples = np.frombuffer(content[start : start + (len(content) - start) // 4 * 4], "<f4")
    padded = np.pad(samples, (CONTEXT, 0))
    count = len(samples) // FRAME
    return np.stack([padded[at * FRAME : at * FRAME + CONTEXT + FRAME] for at in range(count)])


def labels() -> Array:
    """Whether somebody speaks in the middle of each frame."""
    (path,) = zoo.fetch(_PYANNOTE, f"{_FOLDER}/debug.test.rttm")
    rows = [line.split() for line in path.read_text().splitlines()]
    times = (np.arange(len(frames())) + 0.5) * FRAME / RATE
    speaks = np.zeros(len(times), bool)
    for row in rows:
        if row[1] == "tst00":
            speaks |= (times >= float(row[3])) & (times < float(row[3]) + float(row[4]))
    return speaks


def probabilities(run: Run) -> Array:
    """Of speech in each frame."""
    state, found = np.zeros((2, 1, 128), np.float32), []
    for frame in frames():
        probability, state = run(frame[None], state)
        found.append(float(probability.reshape(-1)[0]))
    return np.array(found)


def accuracy(probability: Array) -> float:
    """Share of frames that are right at a threshold of 0.5."""
    return float(np.mean((probability > 0.5) == labels()))
