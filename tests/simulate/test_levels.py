"""Fixed simulator and image give the same bytes, at every level and in every mode, and on every machine."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from tests.simulate.kit import PICTURE, normalised, pixels, tokens, transformer, write_float
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.target import load_target, target_names
from tvm_ipu.driver import compile_model
from tvm_ipu.fixed_point import Calibration, calibrate_stage, read_float_stage
from tvm_ipu.quantize.levels import LEVELS
from tvm_ipu.runtime.build import build_runner
from tvm_ipu.samples.raw import to_raw
from tvm_ipu.simulation import open_fixed, open_float, open_offline

TARGETS = [name for name in target_names() if load_target(name).qemu]
MACHINES = list(zip(TARGETS, cycle(("L1", "Q10", "L5", "Q13")), strict=False))


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
def test_transformer(tmp_path: Path, level: str, chip: str) -> None:
    """A block whose normalisation is written out; on a processor its functions of rows are integers too."""
    write_float(tmp_path / "float.sim", transformer(), Contract())
    stage = replace(read_float_stage(tmp_path / "float.sim"), target=chip)
    samples = tokens(8, 1)
    path, image = tmp_path / "fixed.sim", tmp_path / "model.img"
    options = Calibration(level, transformer=False)
    calibrate_stage(stage, path, lambda: ({"x": x} for x in samples), options)
    compile_model(path, chip, image)
    fixed, offline, floating = open_fixed(path), open_offline(image), open_float(tmp_path / "float.sim")
    error = signal = 0.0
    for x in tokens(4, 2):
        a, b = (one.run({"x": x})["scores"] for one in (fixed, offline))
        assert a.tobytes() == b.tobytes()
        expected = floating.run({"x": x})["scores"].astype(np.float64)
        error += float(np.square(a - expected).sum())
        signal += float(np.square(expected).sum())
    assert 10 * np.log10(signal / error) > (30 if level == "Q20" else 22)


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize(("target", "level"), MACHINES)
def test_machines(folder: Path, target: str, level: str, tmp_path: Path) -> None:
    machine, image = load_target(target), tmp_path / "model.img"
    path = fixed_stage(folder, level, "host")
    compile_model(path, target, image)
    frame = to_raw(pixels(1, 3)[0], PICTURE)
    frame.tofile(tmp_path / "x.bin")
    files = ["--inputs", str(tmp_path / "x.bin"), "--output", str(tmp_path)]
    subprocess.run([*machine.qemu, str(build_runner(machine)), str(image), *files], check=True, timeout=300)
    expected = open_fixed(path, target).run({"x": frame})["scores"]
    assert (tmp_path / "output_0.bin").read_bytes() == expected.tobytes()
