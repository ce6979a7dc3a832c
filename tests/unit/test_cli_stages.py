"""``convert PLATFORM``, ``export``, ``inspect`` and ``compile`` with stages, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.unit.config_kit import NETWORK
from tests.unit.frontend_kit import network
from tvm_ipu.cli.main import main
from tvm_ipu.image.stage import read_stage
from tvm_ipu.runtime import Session

X = np.random.default_rng(1).normal(0, 1, (1, 3, 5, 5)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(network(), tmp_path / "net.onnx")
    (tmp_path / "input_config.ini").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


CONVERT = (
    "convert onnx --model_file net.onnx --input_config input_config.ini --input_shapes 1,3,5,5 "
    "--output_file net_float.sim --soc_version ipu-ref"
)


def fail(capsys: pytest.CaptureFixture[str], words: str) -> str:
    assert main(words.split()) == 1
    return capsys.readouterr().err


def expected() -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(network().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})


def test_float_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CONVERT.split()) == 0
    stage = read_stage(folder / "net_float.sim", "float")
    assert (stage.target, stage.contract.inputs[0].input_format) == ("ipu-ref", "BGR")
    assert stage.metadata["model"] == "net.onnx"
    assert main(["export", "net_float.sim", "-o", "plain.onnx"]) == 0
    session = onnxruntime.InferenceSession("plain.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": X.transpose(0, 2, 3, 1)})
    for one, wanted in zip(found, expected(), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-5, atol=1e-6)
    capsys.readouterr()
    assert main(["inspect", "net_float.sim"]) == 0
    text = capsys.readouterr().out
    for part in ("float", "ipu-ref", "127.5:127.5:127.5", "BGR", "Conv", "float32[1,5,5,3]"):
        assert part in text


def test_stage_with_the_suffix_of_an_export_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CONVERT.split()) == 0
    stage = (folder / "net_float.sim").rename(folder / "stage.onnx")
    kept = stage.read_bytes()
    assert main(["export", "stage.onnx"]) == 0
    assert stage.read_bytes() == kept
    assert [o.name for o in onnx.load("stage.onnx.onnx").graph.output] == ["y", "z"]
    assert "is a file that this command reads" in fail(capsys, "export stage.onnx -o stage.onnx")


def test_compiled_float_stage(folder: Path) -> None:
    assert main(CONVERT.split()) == 0
    assert main(["compile", "-m", "net_float.sim", "--soc_version", "host"]) == 0
    with Session(folder / "net_float.sim_sgsimg.img") as session:
        found = session.run({"x": np.ascontiguousarray(X.transpose(0, 2, 3, 1))})
    for name, wanted in zip(("y", "z"), expected(), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)


def test_image_goes_into_a_folder(folder: Path) -> None:
    assert main(CONVERT.split()) == 0
    (folder / "out").mkdir()
    assert main(["compile", "-m", "net_float.sim", "--soc_version", "host", "-o", "out"]) == 0
    assert [path.name for path in (folder / "out").iterdir()] == ["net_float.sim_sgsimg.img"]


def test_open_batch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The option that the message names."""
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (3, 5, 5), strict=True):
        dim.dim_value = size
    onnx.save(model, folder / "open.onnx")
    words = "convert onnx --model-file open.onnx --output-file x.sim"
    assert "--batch N" in fail(capsys, words)
    assert main([*words.split(), "--batch", "1"]) == 0
    (x,) = onnx.ModelProto.FromString(read_stage(folder / "x.sim").model).graph.input
    assert [dim.dim_value for dim in x.type.tensor_type.shape.dim] == [1, 3, 5, 5]


def test_cut_network(folder: Path) -> None:
    words = "convert onnx --model-file net.onnx --output-file x.sim --input-shapes 1,3,5,5 --output-arrays r"
    assert main(words.split()) == 0
    assert main(["export", "-m", "x.sim"]) == 0
    assert [o.name for o in onnx.load("x.onnx").graph.output] == ["r"]


def test_unsimplified_network_keeps_its_operators(folder: Path) -> None:
    assert main([*CONVERT.split(), "--skip_simplify"]) == 0
    model = onnx.ModelProto.FromString(read_stage(folder / "net_float.sim").model)
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (("=BGR", "=RGP"), ["input_config.ini:4: [INPUT_CONFIG] input_formats: 'RGP'", "rule: "]),
        (("outputs=y,z", "outputs=y,zz"), ["the model has no output 'zz'", "did you mean 'z'"]),
    ],
)
def test_broken_configuration(
    folder: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], texts: list[str]
) -> None:
    (folder / "input_config.ini").write_text(NETWORK.replace(*change))
    err = fail(capsys, CONVERT)
    assert all(text in err for text in texts)
    assert not (folder / "net_float.sim").exists()


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (CONVERT.replace("ipu-ref", "ipu-no"), ["ipu-no"]),
        (CONVERT.replace(".sim", ".bin"), ["--output-file: 'net_float.bin' does not end in"]),
        (CONVERT.replace("1,3,5,5", "1,3,5"), ["x"]),
        ("convert caffe --model_file a --weight_file b --output_file x.sim", ["'a' does not exist"]),
        ("convert caffe --model_file a --output_file x.sim", ["--weight-file"]),
        ("convert onnx --model_file missing.onnx --output_file x.sim", ["'missing.onnx' does not exist"]),
        ("export", ["give one stage"]),
        ("export net.onnx", ["net.onnx: not a stage", "tvm-ipu convert"]),
        ("compile", ["give one model"]),
        ("compile missing.sim", ["missing.sim: cannot read the stage: No such file"]),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], words: str, texts: list[str]) -> None:
    err = fail(capsys, words)
    assert all(text in err for text in texts)
    assert sorted(path.name for path in folder.iterdir()) == ["input_config.ini", "net.onnx"]


def test_truncated_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CONVERT.split()) == 0
    path = folder / "net_float.sim"
    path.write_bytes(path.read_bytes()[:-100])
    for command in ("compile", "export", "inspect"):
        err = fail(capsys, f"{command} net_float.sim")
        assert "net_float.sim: has " in err
        assert "the file is damaged" in err


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("convert onnx --help", ["--model-file", "--input-config", "--skip-simplify", "--soc-version"]),
        ("convert caffe --help", ["--weight-file"]),
        ("convert tensorflow_graphdef --help", ["--graph-def-file", "--input-shapes"]),
    ],
)
def test_help_lists_the_flags_of_a_platform(
    capsys: pytest.CaptureFixture[str], words: str, flags: list[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words.split())
    text = capsys.readouterr().out
    assert all(flag in text for flag in flags)
