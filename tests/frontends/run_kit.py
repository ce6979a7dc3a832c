"""A converted model through an image and the C runtime, and how far that is from the source's framework."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from tvm_ipu.driver import compile_model
from tvm_ipu.runtime.session import Session

TOLERANCE = 1e-4
"""Largest error by the largest absolute value of an output."""


def run_image(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], folder: Path, shapes: str = ""
) -> dict[str, np.ndarray]:
    """Outputs by name; ``shapes`` are those of inputs that are open in the model."""
    onnx.save(model, folder / "model.onnx")
    compile_model(
        folder / "model.onnx", "host", folder / "model.img", input_shapes=[shapes] if shapes else []
    )
    with Session(folder / "model.img") as session:
        return session.run(dict(feeds))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape, f"{found.shape} instead of {expected.shape}"
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0)
    return float(difference / max(np.abs(expected).max(initial=0), 1e-30))
