"""Fixed simulator and image give the same bytes, at every level and in every mode, and on every machine."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from tests.simulate.kit import PICTURE, normalised, pixels, tokens, transformer, write_float
from tests.unit.machine_kit import compile_for, run_image, runnable
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.target import target_names
from tvm_ipu.driver import compile_model
from tvm_ipu.fixed_point import Calibration, calibrate_stage, read_float_stage
from tvm_ipu.quantize.levels import LEVELS
from tvm_ipu.samples.raw import to_raw
from tvm_ipu.simulation import open_fixed, open_float, open_offline

FAMILIES = [*target_names(), *(f"ipu-ref@{name}" for name in target_names())]
MACHINES = [
    *zip(cycle(("L1", "Q10", "L5", "Q13")), target_names(), strict=False),
    ("L1", "ipu-ref@armv7-neon"),
    ("Q10", "ipu-ref@riscv64-v"),
    ("L4", "ipu-ref@x86-64-v2"),
    ("Q23", "ipu-ref@hexagon-v67"),
]
"""Level or mode, target; all pairs are left to ``-m sweep``."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("levels")
    write_float(made / "float.sim")
    return made


def fixed_stage(folder: Path, level: str, chip: str) -> Path:
    """The stage of a level for a chip, calibrated once."""
    path = folder / f"{level}-{chip}.sim"
    if not path.exists():
        stage = replace(read_float_stage(folder / "float.sim"), target=chip)
        calibrate_stage(stage, path, lambda: ({"x": normalised(p)} for p in pixels(8, 1)), Calibration(level))
    return path


def fixed_transformer(folder: Path, level: str, chip: str) -> Path:
    """A block whose normalisation is written out; on a processor its functions of rows are integers too."""
    path, floating = folder / f"transformer-{level}-{chip}.sim", folder / "transformer.sim"
    if not floating.exists():
        write_float(floating, transformer(), Contract())
    if not path.exists():
        stage = replace(read_float_stage(floating), target=chip)
        options = Calibration(level, transformer=False)
        calibrate_stage(stage, path, lambda: ({"x": x} for x in tokens(8, 1)), options)
    return path


CHIPS = [
    *((level, "host") for level in LEVELS),
    *((level, "ipu-ref") for level in ("L1", "Q10", "L4", "Q23")),
]


@pytest.mark.parametrize(("level", "chip"), CHIPS)
def test_every_level_on_this_machine(folder: Path, level: str, chip: str) -> None:
    path = fixed_stage(folder, level, chip)
    compile_model(path, chip, folder / "model.img")
    fixed, offline, floating = (
        open_fixed(path),
        open_offline(folder / "model.img"),
        open_float(folder / "float.sim"),
    )
    error = signal = 0.0
    for picture in pixels(4, 2):
        feeds = {"x": to_raw(picture, PICTURE)}
        a, b = fixed.run(feeds)["scores"], offline.run(feeds)["scores"]
        assert a.tobytes() == b.tobytes()
        expected = floating.run({"x": normalised(picture)})["scores"].astype(np.float64)
        error, signal = (
            error + float(np.square(a - expected).sum()),
            signal + float(np.square(expected).sum()),
        )
    assert 10 * np.log10(signal / error) > (14 if level in ("Q13", "Q23") else 22)


@pytest.mark.parametrize(
    ("level", "chip"), [("L1", "host"), ("Q12", "host"), ("L1", "ipu-ref"), ("Q20", "ipu-ref")]
)
def test_transformer(folder: Path, level: str, chip: str) -> None:
    path, image = fixed_transformer(folder, level, chip), folder / "model.img"
    compile_model(path, chip, image)
    fixed, offline, floating = open_fixed(path), open_offline(image), open_float(folder / "transformer.sim")
    error = signal = 0.0
    for x in tokens(4, 2):
        a, b = (one.run({"x": x})["scores"] for one in (fixed, offline))
        assert a.tobytes() == b.tobytes()
        expected = floating.run({"x": x})["scores"].astype(np.float64)
        error += float(np.square(a - expected).sum())
        signal += float(np.square(expected).sum())
    assert 10 * np.log10(signal / error) > (30 if level == "Q20" else 22)


def check_machine(path: Path, name: str, feeds: dict[str, np.ndarray], image: Path) -> None:
    """Simulator and image for a target that need not be this machine."""
    target = runnable(name)
    compile_for(target, path, image)
    expected = open_fixed(path, name).run(feeds)["scores"]
    assert run_image(image, target, feeds, ["scores"]) == [expected.tobytes()]


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize(("level", "name"), MACHINES)
def test_machines(folder: Path, level: str, name: str, tmp_path: Path) -> None:
    path = fixed_stage(folder, level, "ipu-ref" if name.startswith("ipu-ref") else "host")
    check_machine(path, name, {"x": to_raw(pixels(1, 3)[0], PICTURE)}, tmp_path / "model.img")


@pytest.mark.qemu
@pytest.mark.sweep
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("level", LEVELS)
def test_every_machine(folder: Path, level: str, name: str, tmp_path: Path) -> None:
    """Both networks; the transformer's normalisation and softmax are integers on processors too."""
    chip = "ipu-ref" if name.startswith("ipu-ref") else "host"
    pictures, rows = fixed_stage(folder, level, chip), fixed_transformer(folder, level, chip)
    feeds = {"x": to_raw(pixels(1, 3)[0], PICTURE)}
    check_machine(pictures, name, feeds, tmp_path / "model.img")
    check_machine(rows, name, {"x": tokens(1, 3)[0]}, tmp_path / "transformer.img")
