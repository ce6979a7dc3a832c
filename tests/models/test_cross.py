"""MobileNetV2 for other machines, run under qemu-user, computes what the host computes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models import zoo
from tests.models.test_models import compile_for_host
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.base.target import load_target
from tvm_ipu.driver import compile_model
from tvm_ipu.runtime.build import build_runner
from tvm_ipu.runtime.session import Session

TARGETS = ("aarch64-neon", "armv7-neon", "riscv64", "riscv64-v", "hexagon-v67")


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    """Scores of one photograph, from the host's image."""
    with Session(compile_for_host("mobilenet_v2", tmp_path_factory.mktemp("host"))) as session:
        return next(iter(session.run(zoo.inputs("mobilenet_v2")).values()))


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_mobilenet_under_qemu(name: str, on_host: NDArray[np.float32], tmp_path: Path) -> None:
    image, target = tmp_path / "mobilenet_v2.img", load_target(name)
    shapes = [format_input_shapes(zoo.shapes("mobilenet_v2"))]
    compile_model(zoo.get("mobilenet_v2"), name, image, input_shapes=shapes)
    (pixels,) = zoo.inputs("mobilenet_v2").values()
    pixels.tofile(tmp_path / "pixels.bin")
    runner = build_runner(target)
    files = ["--inputs", str(tmp_path / "pixels.bin"), "--output", str(tmp_path)]
    subprocess.run([*target.qemu, str(runner), str(image), *files], check=True, timeout=300)
    scores = np.fromfile(tmp_path / "output_0.bin", np.float32).reshape(on_host.shape)
    assert list(np.argsort(-scores[0])[:5]) == list(np.argsort(-on_host[0])[:5])
    assert np.abs(scores - on_host).max() / np.abs(on_host).max() < 1e-4
