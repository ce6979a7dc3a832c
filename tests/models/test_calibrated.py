"""Fixed simulator and image give the same bytes for trained networks, calibrated here.

scripts/test -m sweep tests/models/test_calibrated.py    # every network, level and mode; each on some machine
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from tests.models import zoo
from tests.unit.machine_kit import compile_for, run_image, runnable
from tvm_ipu.base.target import target_names
from tvm_ipu.fixed_point import Calibration, ModelFile, calibrate_stage, make_float_stage, read_float_stage
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.image.reader import read_image
from tvm_ipu.quantize.levels import LEVELS
from tvm_ipu.simulation import open_fixed

Array = np.ndarray

SMALLER = {
    "mobilenet_v2": (1, 3, 64, 64),
    "resnet50": (1, 3, 64, 64),
    "minilm_l6": (1, 16),
    "yolov8n": (1, 3, 64, 64),
}
"""Shapes that simulators and emulators get through faster."""
CUT = {"yolov8n": ("/model.22/Concat_output_0", "/model.22/Sigmoid_output_0")}
"""Outputs, where a network has numbers of its own shape inside: those of YOLOv8n before its anchors."""
NETWORKS = tuple(SMALLER)
SAMPLES = 2

FAMILIES = [name for machine in target_names() for name in (machine, f"ipu-ref@{machine}")]
RUNS = [
    ("mobilenet_v2", "L2", "host"),
    ("mobilenet_v2", "Q13", "ipu-ref"),
    ("mobilenet_v2", "L2", "aarch64-dotprod"),
    ("minilm_l6", "L1", "host"),
    ("minilm_l6", "L1", "ipu-ref@aarch64-neon"),
]
"""Network, level or mode, target."""
WHOLE = [("yolov8n", "L2", "host"), ("yolov8n", "L5", "ipu-ref"), ("yolov8n", "L1", "aarch64-dotprod")]
"""Networks in their own shape."""
EVERY_LEVEL = [(n, level, chip) for n in NETWORKS for level in LEVELS for chip in ("host", "ipu-ref")]
EVERY_MACHINE = [
    (n, level, target) for n in NETWORKS for target, level in zip(FAMILIES, cycle(LEVELS), strict=False)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrated")


def feeds(name: str, seed: int, whole: bool = False) -> dict[str, Array]:
    """A sample, cut to the smaller shape unless it is for the whole network."""
    arrays = zoo.inputs(name, seed)
    shape = None if whole else SMALLER.get(name)
    if shape is None:
        return arrays
    cut = tuple(slice(extent) for extent in shape)
    return {key: np.ascontiguousarray(array[cut]) for key, array in arrays.items()}


def fixed_stage(folder: Path, name: str, level: str, chip: str, whole: bool) -> Path:
    """The fixed stage of a network for a chip, made once.

    For processors with a float unit transformers' normalisations are made integers too: floats would be equal
    to their last bits only.
    """
    floating = folder / f"{name}{'-whole' * whole}.sim"
    path = folder / f"{floating.stem}-{level}-{chip}.sim"
    if not floating.exists():
        shapes = {key: shape if whole else SMALLER[name] for key, shape in zoo.shapes(name).items()}
        outputs = () if whole else CUT.get(name, ())
        make_float_stage(ModelFile(zoo.get(name), loading=LoadOptions(shapes, outputs)), floating)
    if not path.exists():
        stage = replace(read_float_stage(floating), target=chip)
        options = Calibration(level, transformer=False)
        calibrate_stage(stage, path, lambda: (feeds(name, seed, whole) for seed in range(SAMPLES)), options)
    return path


def check(folder: Path, name: str, level: str, target: str, tmp_path: Path, whole: bool = False) -> None:
    """Simulator and image on one sample that was not calibrated with."""
    chip = "ipu-ref" if target.startswith("ipu-ref") else "host"
    machine, image = runnable(target), tmp_path / "model.img"
    path = fixed_stage(folder, name, level, chip, whole)
    compile_for(machine, path, image)
    simulator = open_fixed(path, target)
    sample = feeds(name, 9, whole)
    ordered = {detail["name"]: sample[detail["name"]] for detail in simulator.get_input_details()}
    expected = simulator.run(ordered)
    found = run_image(image, machine, ordered, list(expected), timeout=1200)
    assert found == [one.tobytes() for one in expected.values()]
    if chip == "ipu-ref":
        assert not read_image(image).metadata["float_layers"]


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize(("name", "level", "target"), RUNS)
def test_some(folder: Path, name: str, level: str, target: str, tmp_path: Path) -> None:
    check(folder, name, level, target, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "level", "target"), EVERY_LEVEL)
def test_every_level(folder: Path, name: str, level: str, target: str, tmp_path: Path) -> None:
    check(folder, name, level, target, tmp_path)


@pytest.mark.sweep
@pytest.mark.qemu
@pytest.mark.parametrize(("name", "level", "target"), EVERY_MACHINE)
def test_every_machine(folder: Path, name: str, level: str, target: str, tmp_path: Path) -> None:
    check(folder, name, level, target, tmp_path)


@pytest.mark.sweep
@pytest.mark.qemu
@pytest.mark.parametrize(("name", "level", "target"), WHOLE)
def test_whole(folder: Path, name: str, level: str, target: str, tmp_path: Path) -> None:
    check(folder, name, level, target, tmp_path, whole=True)
