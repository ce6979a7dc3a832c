"""A network with 16-bit activations and weights: on integers throughout, and near the float model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.models import quantized, zoo
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.driver import compile_model
from tvm_ipu.runtime.session import Session

pytestmark = pytest.mark.slow


def output(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What onnxruntime computes, in float, with nothing fused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options).run(None, feeds)[0]


def decibels(found: np.ndarray, expected: np.ndarray) -> float:
    """Signal to noise."""
    noise = np.square(found.astype(np.float64) - expected).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / noise))


def test_mobilenet(tmp_path: Path) -> None:
    name = "mobilenet_v2"
    model, image = quantized.sixteen_bit_model(name), tmp_path / "int16.img"
    compile_model(model, "host", image, input_shapes=[format_input_shapes(zoo.shapes(name))])
    feeds = zoo.inputs(name, 1)  # one of the calibration's samples
    with Session(image) as session:
        assert session.metadata["float_layers"] == []
        assert {line.partition(": ")[2] for line in session.metadata["bits"]} == {"16 x 16"}
        (found,) = session.run(feeds).values()
    assert decibels(found, output(model, feeds)) > 50
    assert decibels(found, output(zoo.get(name), feeds)) > 45
