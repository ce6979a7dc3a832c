"""Fixed simulator and image give the same bytes at every level and in every mode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.simulate.kit import PICTURE, normalised, pixels, write_float
from tvm_ipu.driver import compile_model
from tvm_ipu.fixed_point import Calibration, calibrate_stage, read_float_stage
from tvm_ipu.quantize.levels import LEVELS
from tvm_ipu.samples.raw import to_raw
from tvm_ipu.simulation import open_fixed, open_float, open_offline


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


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_on_this_machine(folder: Path, level: str) -> None:
    path = fixed_stage(folder, level, "host")
    compile_model(path, "host", folder / "model.img")
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
