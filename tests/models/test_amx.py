"""Whole networks for tile registers, with AMX instructions emulated where the machine has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.models import zoo
from tests.unit.amx_kit import EMULATED, counts, emulation
from tvm_ipu import driver
from tvm_ipu.base.host import read_host
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.image.reader import read_image
from tvm_ipu.runtime.session import Session

NETWORKS = ["mobilenet_v2", pytest.param("resnet50", marks=pytest.mark.sweep)]


def compile_for(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> Path:
    image = folder / f"{name}.img"
    shapes = [format_input_shapes(zoo.shapes(name, 1))]
    monkeypatch.setattr(driver, "load_target", lambda _: EMULATED)
    options = CompileOptions(precision="bf16", max_error=0)
    driver.compile_model(zoo.get(name), EMULATED.name, image, input_shapes=shapes, options=options)
    return image


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = sorted(set(EMULATED.requires) - read_host().features)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    image = compile_for(monkeypatch, name, tmp_path)
    calls = read_image(image).plans[0].calls
    products = [call for call in calls if "conv2d" in call.op or "dense" in call.op]
    large = [c for c in products if c.template != "depthwise" and c.flops > sum(c.flops for c in calls) / 200]
    assert {call.template for call in large} == {"tile_conv2d", "tile_gemm"}
    inputs = zoo.inputs(name)
    reference = onnxruntime.InferenceSession(str(zoo.get(name)), providers=["CPUExecutionProvider"])
    (expected,) = reference.run(None, inputs)
    with emulation() as library, Session(image, threads=2) as session:
        (found,) = session.run(inputs).values()
        assert counts(library)["multiply"] > 0
    error = np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max()
    assert error < 2e-2
