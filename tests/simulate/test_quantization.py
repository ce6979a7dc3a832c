"""Quantising with a dataset from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.simulate.kit import network, normalised, pixels
from tvm_ipu.base.errors import CalibrationError, OptionError
from tvm_ipu.image.stage import read_stage
from tvm_ipu.quantization import Dataset, compile_model, quantize, serialize


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(network())
    return path


def test_a_dataset_quantises_a_model(model: Path, tmp_path: Path) -> None:
    dataset = Dataset(pixels(6, 1), normalised)
    fixed = quantize(model, dataset, quant_level="L2", subset_size=4)
    assert fixed.metadata["samples"] == 4
    serialize(fixed, tmp_path / "fixed.sim")
    serialize(fixed, tmp_path / "fixed.onnx")
    assert read_stage(tmp_path / "fixed.sim").model == fixed.model
    x = normalised(pixels(1)[0])
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
    (quantised,) = onnxruntime.InferenceSession(tmp_path / "fixed.onnx").run(None, {"x": x})
    with compile_model(fixed, "host") as run:
        by_name, by_place = run({"x": x})["scores"], run([x])[0]
    assert np.array_equal(by_name, by_place)
    for found in (by_name, quantised):
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    with pytest.raises(OptionError, match="does not end in"):
        serialize(fixed, tmp_path / "fixed.xml")


def test_items_that_do_not_fit_are_refused(model: Path) -> None:
    with pytest.raises(CalibrationError, match="2 arrays, and the model 1 inputs"):
        quantize(model, Dataset([0], lambda item: [np.zeros(1), np.zeros(1)]), quant_level="L1")
    with pytest.raises(CalibrationError, match="sample"):
        quantize(model, Dataset([]), quant_level="L1")
