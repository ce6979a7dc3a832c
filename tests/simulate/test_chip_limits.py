"""Bits of weights and batches that a chip's file does not allow are refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.simulate.kit import CONTRACT, PICTURE, network, normalised, pixels, write_float
from tvm_ipu.base import target
from tvm_ipu.base.contract import ConvConfig
from tvm_ipu.base.errors import OptionError, TargetError
from tvm_ipu.base.target import target_dirs
from tvm_ipu.cli.main import main
from tvm_ipu.driver import compile_model
from tvm_ipu.fixed_point import Calibration, calibrate_stage, read_float_stage
from tvm_ipu.image.reader import read_image
from tvm_ipu.image.stage import Stage
from tvm_ipu.quantize.levels import find_level, level_for

CHIP = """
kind = "ipu"
description = "8-bit weights"
convolution_bits = [8, 16]
operator_bits = [16]
weight_bits = [8]
max_batch = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chips")
    (made / "eight-bit-chip.toml").write_text(CHIP)
    write_float(made / "float.sim")
    return made


@pytest.fixture(autouse=True)
def _chip_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "target_dirs", lambda: (folder, *target_dirs()))


def calibrated(folder: Path, level: str, chip: str, output: str = "fixed.sim", **options: object) -> Stage:
    stage = replace(read_float_stage(folder / "float.sim"), target=chip)
    conv = options.pop("conv", ConvConfig())
    stage = replace(stage, contract=replace(stage.contract, conv=conv))
    samples = [{"x": normalised(picture)} for picture in pixels(4, 1)]
    return calibrate_stage(stage, folder / output, lambda: iter(samples), Calibration(level, **options))


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("Q13", r"'Q13' gives .*weights of 4 or 8 bits; target 'eight-bit-chip' .* and weights of 8"),
        (
            "Q10",
            r"'Q10' gives .*weights of 16 bits; .* \(levels and modes for it are L1, .*, Q11,",
        ),
        ("Q23", r"'Q23' gives .*weights of 8 or 16 bits"),
    ],
)
def test_mode_whose_weights_the_chip_does_not_take(folder: Path, level: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        calibrated(folder, level, "eight-bit-chip", "refused.sim")
    assert not (folder / "refused.sim").exists()


def test_promotion_keeps_to_the_chip() -> None:
    level = find_level("L4")
    assert level_for(target.load_target("ipu-ref").chip, level) == level_for(None, level) == level
    assert level_for(target.load_target("eight-bit-chip").chip, level) == replace(level, promote=False)


@pytest.fixture(scope="module")
def preset(folder: Path) -> Path:
    """Gives the weights of one layer 4 bits."""
    preset = {"name": "w2", "min": -1.0, "max": 1.0, "bit": 4}
    entry = {"use_preset_min_max_bit": 1, "PRESET_MIN_MAX_BIT": [preset]}
    (folder / "quant.yaml").write_text(yaml.safe_dump({"QUANT_CONFIG": entry}))
    return folder / "quant.yaml"


def test_presets_and_configured_bits_that_the_chip_does_not_take(folder: Path, preset: Path) -> None:
    with pytest.raises(TargetError, match=r"weight_bits: layer '.+' has weights of 4 bits, .* takes 8 \("):
        calibrated(folder, "L1", "eight-bit-chip", quant_config=preset)
    with pytest.raises(TargetError, match=r"has weights of 16 bits \(and 2 more layers\), "):
        calibrated(folder, "L1", "eight-bit-chip", conv=ConvConfig("ALL_INT16"))


def test_stage_of_another_chip_is_not_compiled(folder: Path, preset: Path) -> None:
    calibrated(folder, "L1", "ipu-ref", "other.sim", quant_config=preset)
    with pytest.raises(TargetError, match=r"weight_bits: layer '.+' has weights of 4 bits") as caught:
        compile_model(folder / "other.sim", "eight-bit-chip", folder / "refused.img")
    assert "calibrate the float stage for this target" in caught.value.hint
    assert not (folder / "refused.img").exists()


@pytest.mark.parametrize(
    "words",
    [
        "compile float.sim -b 5",
        "compile float.sim -b 5 --batch_mode n_buf",
        "compile float.sim -b 1,5 --batch_mode one_buf",
        "tune float.sim -b 1,5",
        "tune float.sim -b 5 --tasks list",
        "convert float.onnx -b 5 --export-image",
    ],
)
def test_batch_that_the_chip_does_not_run(
    folder: Path, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "float.onnx").write_bytes(network())
    assert main([*words.split(), "-t", "eight-bit-chip"]) == 1
    assert "--batch: 5 is more than target 'eight-bit-chip' runs at once" in capsys.readouterr().err


def test_largest_batch_of_the_chip(folder: Path) -> None:
    calibrated(folder, "L1", "eight-bit-chip", "batch.sim")
    image = folder / "batch.img"
    compile_model(folder / "batch.sim", "eight-bit-chip", image, batches=(4,), batch_mode="n_buf")
    assert read_image(image).metadata["batch_limit"] == 4


def test_float_precision_on_a_chip_without_floats(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compile", str(folder / "float.sim"), "-t", "ipu-ref", "-o", str(folder / "half.img")]
    assert main([*words, "--precision", "fp16"]) == 1
    told = capsys.readouterr().err
    assert "--precision: target 'ipu-ref' has no float unit" in told
    assert "calibrate the float model" in told


def test_pictures_that_stay_float_on_a_chip_without_floats(folder: Path) -> None:
    contract = replace(CONTRACT, inputs=(replace(PICTURE, quantize=False),))
    write_float(folder / "unquantised.sim", contract=contract)
    stage = replace(read_float_stage(folder / "unquantised.sim"), target="ipu-ref")
    with pytest.raises(TargetError, match=r"quantizations: FALSE of input 'x' .* has no float unit"):
        calibrate_stage(stage, folder / "refused.sim", lambda: iter([{"x": normalised(pixels(1)[0])}]))


@pytest.mark.parametrize(
    "command",
    [
        "calibrate float.sim -i . -n npy -o float.sim",
        "export float.onnx -o float.onnx",
        "tune float.sim -o float.sim",
    ],
)
def test_output_in_the_place_of_an_input(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "float.onnx").write_bytes(b"kept")
    before = (folder / "float.sim").read_bytes()
    assert main(command.split()) == 1
    assert "is a file that this command reads" in capsys.readouterr().err
    assert ((folder / "float.sim").read_bytes(), (folder / "float.onnx").read_bytes()) == (before, b"kept")
