"""A quantised network gives the same bytes on every machine, under qemu, as on this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from tests.ops.integer_kit import simulate
from tests.passes.test_to_integer import SHAPE, _Calibration, network
from tvm_ipu.base.target import load_target, target_names
from tvm_ipu.driver import compile_model
from tvm_ipu.runtime.build import build_runner
from tvm_ipu.runtime.session import Session

TARGETS = [name for name in target_names() if load_target(name).qemu]
pytestmark = [pytest.mark.qemu, pytest.mark.slow]


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions of all kinds, pools, a residual sum, tables, a product, a concatenation, a dense layer."""
    folder = tmp_path_factory.mktemp("model")
    onnx.save(network(), folder / "float.onnx")
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        _Calibration(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        **types,
    )
    return folder / "int8.onnx"


@pytest.fixture(scope="module", params=["", "ipu-ref"])
def chip(request: pytest.FixtureRequest) -> str:
    """A simulated chip, or none."""
    return str(request.param)


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
