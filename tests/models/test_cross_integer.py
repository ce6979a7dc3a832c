"""A quantised network gives the same bytes on every machine, under qemu, as on this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from tests.ops.integer_kit import simulate
from tests.passes.test_to_integer import SHAPE, _Calibration, network
from tvm_ipu.base.target import load_target, target_names
from tvm_ipu.driver import compile_model
from tvm_ipu.runtime.build import build_runner
from tvm_ipu.runtime.session import Session

TARGETS = [name for name in target_names() if load_target(name).qemu]
pytestmark = [pytest.mark.qemu, pytest.mark.slow]


@pytest.fixture(scope="module", params=[("", 8), ("", 16), ("", 4), ("ipu-ref", 8)])
def case(request: pytest.FixtureRequest) -> tuple[str, int]:
    """A simulated chip or none, and the bits of activations and weights; 4 are those of weights."""
    chip, bits = request.param
    return str(chip), int(bits)


@pytest.fixture(scope="module")
def chip(case: tuple[str, int]) -> str:
    return case[0]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory, case: tuple[str, int]) -> Path:
    """Convolutions of all kinds, pools, a residual sum, tables, a product, a concatenation, a dense layer."""
    folder = tmp_path_factory.mktemp("model")
    source, _, bits = network(), *case
    source.opset_import[0].version = 21 if bits == 16 else 17
    onnx.save(source, folder / "float.onnx")
    types = (QuantType.QInt16, QuantType.QInt16) if bits == 16 else (QuantType.QUInt8, QuantType.QInt8)
    quantize_static(
        folder / "float.onnx",
        folder / "quantised.onnx",
        _Calibration(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=types[0],
        weight_type=types[1],
        extra_options={"ActivationSymmetric": bits == 16},
    )
    if bits == 4:
        _round_weights(folder / "quantised.onnx")
    return folder / "quantised.onnx"


def _round_weights(path: Path) -> None:
    """Keep the upper 4 bits of weights."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
            values = np.clip(np.rint(numpy_helper.to_array(tensor) / 16), -8, 7).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


@pytest.fixture(scope="module")
def on_host(quantised: Path, chip: str) -> tuple[np.ndarray, bytes]:
    """An input, and the result of this machine's image, which other tests compare with onnxruntime."""
    x = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    compile_model(quantised, chip or "host", quantised.with_suffix(".img"))
    with Session(quantised.with_suffix(".img")) as session:
        assert session.metadata["float_layers"] == []
        y = session.run({"x": x})["y"].tobytes()
    assert simulate(quantised, chip or "host", {"x": x})["y"].tobytes() == y
    return x, y


@pytest.mark.parametrize("name", TARGETS)
def test_same_bytes(
    name: str, chip: str, quantised: Path, on_host: tuple[np.ndarray, bytes], tmp_path: Path
) -> None:
    x, expected = on_host
    x.tofile(tmp_path / "x.bin")
    target, image = load_target(name), tmp_path / "int8.img"
    compiled_for = f"{chip}@{name}" if chip else name
    compile_model(quantised, compiled_for, image)
    files = ["--inputs", str(tmp_path / "x.bin"), "--output", str(tmp_path)]
    subprocess.run([*target.qemu, str(build_runner(target)), str(image), *files], check=True, timeout=300)
    assert (tmp_path / "output_0.bin").read_bytes() == expected
    assert simulate(quantised, compiled_for, {"x": x})["y"].tobytes() == expected
