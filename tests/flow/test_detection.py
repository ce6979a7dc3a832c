"""``simulate -c Detection`` of networks with four outputs, against numpy and onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from tests.flow import detection
from tests.flow.detection import Found, decode, overlap, printed
from tests.flow.kit import SIZE, detector, picture
from tests.models import pictures, zoo
from tests.unit.config_kit import one_picture
from tvm_ipu.cli.main import main
from tvm_ipu.runtime import Session


def raw_output(model: onnx.ModelProto | Path, x: np.ndarray) -> np.ndarray:
    """[4 + classes, P] by onnxruntime."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0][0]


def convert(model: onnx.ModelProto, folder: Path, level: str) -> None:
    """All stages of a network, calibrated on the pictures in ``folder/in``."""
    onnx.save(model, folder / "net.onnx")
    (folder / "net.ini").write_text(one_picture(model.graph.input[0].name, ",".join(detection.OUTPUTS)))
    words = (
        "convert onnx --model_file net.onnx --input_config net.ini -i in -n letterbox --output_file net.img "
        f"--export_models --soc_version host --quant_level {level}"
    )
    assert main(words.split()) == 0


def simulate(model: str, files: str, capsys: pytest.CaptureFixture[str]) -> list[list[Found]]:
    capsys.readouterr()
    assert main(f"simulate -m {model} -i {files} -n letterbox -c Detection".split()) == 0
    return printed(capsys.readouterr().out)


def assert_near(found: list[Found], expected: list[Found], pixels: float, score: float) -> None:
    """The same boxes in the same order."""
    assert [one.label for one in found] == [one.label for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=score)
        edges = [[box.left, box.top, box.right, box.bottom] for box in (one, other)]
        np.testing.assert_allclose(*edges, atol=pixels)


def assert_found(found: list[Found], expected: list[Found], least: float) -> None:
    """Objects of the same classes at the same places, in any order."""
    for one in expected:
        assert max((overlap(one, box) for box in found if box.label == one.label), default=0) > least


def test_small_detector(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    network, sure = detection.with_anchors(detector()), 0.65
    expected = []
    for number in range(3):
        Image.fromarray(picture(number)).save(f"in/{number}.png")
        x = (picture(number) / 255).astype(np.float32).transpose(2, 0, 1)[None]
        expected.append(decode(raw_output(network, x), SIZE, sure))
    assert all(len(one) > 1 for one in expected)
    convert(detection.with_post_processing(network, 1, sure), tmp_path, "Q10")
    for found, wanted in zip(simulate("net_float.sim", "in", capsys), expected, strict=True):
        assert_near(found, wanted, 0.051, 0.0006)
    fixed = simulate("net_fixed.sim", "in", capsys)
    for found, wanted in zip(fixed, expected, strict=True):
        assert_found(found, [one for one in wanted if one.score > sure + 0.01], 0.9)
    assert simulate("net.img", "in", capsys) == fixed
    with Session("net.img") as session:
        board = session.run({"images": picture(1)[None]})
    assert int(board["count"][0]) == len(fixed[1])


@pytest.mark.sweep
def test_yolov8n(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Photographs of buses and people, at L5: the float network's objects at the same places."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number, file in enumerate(zoo.image_files()[:6]):
        (tmp_path / "in" / f"{number}{file.suffix}").write_bytes(file.read_bytes())
    network = onnx.shape_inference.infer_shapes(onnx.load(zoo.get("yolov8n")))
    convert(detection.with_post_processing(network, 640), tmp_path, "L5")
    for file, _ in pictures.labelled():
        expected = decode(raw_output(zoo.get("yolov8n"), pictures.letterbox(file, 640)[0]), 1)
        (floating,) = simulate("net_float.sim", str(file), capsys)
        assert_near(floating, expected, 0.5, 0.003)
        (fixed,) = simulate("net_fixed.sim", str(file), capsys)
        assert_found(fixed, [one for one in expected if one.score > 0.4], 0.85)
        assert simulate("net.img", str(file), capsys) == [fixed]
