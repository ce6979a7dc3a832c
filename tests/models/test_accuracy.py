"""Accuracy of images of calibrated networks, on labelled data that they were not calibrated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.accuracy import Result, by_image, measure
from tests.models import tasks
from tests.models.pictures import Box
from tvm_ipu.base.quant_config import QuantConfig
from tvm_ipu.cli.main import main
from tvm_ipu.frontends.onnx.plain import graph_to_onnx
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, read_stage, write_stage
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.simulation import compile_runner

FIX_TESTS, DROP = 50, 2


def results(task: tasks.Task, *levels: str) -> dict[str, Result]:
    return {result.level: result for result in measure(task, levels)}


@pytest.mark.slow
@pytest.mark.network
def test_cifar_10() -> None:
    found = {name: one.score for name, one in results(tasks.cifar_resnet(), "L1", "L5", "Q2", "Q23").items()}
    assert found["float"] == pytest.approx(0.8224)
    assert found["L1"] >= found["float"] - 0.010
    assert found["L5"] >= found["float"] - 0.002
    assert found["Q2"] >= found["float"] - 0.002
    assert found["Q23"] >= found["float"] - 0.010


@pytest.mark.sweep
@pytest.mark.network
@pytest.mark.parametrize("level", ["L5", "Q2"])
def test_mobilenet_v2_on_imagenet(level: str) -> None:
    found = results(tasks.mobilenet_v2(), level, "nncf", "ort", "ort-percentile")
    assert found["float"].score == 18 / 20
    assert found[level].score >= 17 / 20
    for peer in ("nncf", "ort", "ort-percentile"):
        assert found[level].decibels >= found[peer].decibels


@pytest.mark.sweep
@pytest.mark.network
def test_yolov8n_finds_labelled_boxes() -> None:
    found = results(tasks.yolov8n(), "L5")
    assert found["float"].score == 1.0
    assert found["L5"].score == 1.0


@pytest.mark.sweep
@pytest.mark.network
def test_minilm_l6_on_words() -> None:
    found = results(tasks.minilm_l6(), "L1", "L5")
    assert found["float"].score == pytest.approx(0.7289, abs=0.001)
    for level in ("L1", "L5"):
        assert found[level].score == pytest.approx(found["float"].score, abs=0.01)


def test_overlaps_are_those_of_the_picture() -> None:
    """A square of 100 pixels, scaled by 0.5 and shifted: what covers half of it or more is found."""
    output = np.zeros((4 + 80, 3), np.float32)
    output[:4, 0] = 35, 45, 50, 50  # the square itself in [10, 60] x [20, 70]
    output[:4, 1] = 35 + 12.5, 45, 50, 50  # 75 of 125 in common
    output[:4, 2] = 35 + 20, 45, 50, 50  # 60 of 140
    box = Box("bus", (0.0, 0.0, 100.0, 100.0))
    for column, expected in enumerate([True, True, False]):
        output[4 + tasks.COCO["bus"]] = 0
        output[4 + tasks.COCO["bus"], column] = tasks.CONFIDENCE
        assert tasks.is_found(box, output, 0.5, (10, 20)) == expected
    output[4:] = np.float32(0.39)
    assert not tasks.is_found(box, output, 0.5, (10, 20))


@pytest.mark.slow
@pytest.mark.network
def test_mending_keeps_its_bound(tmp_path: Path) -> None:
    """Weights of 4 bits cost points; ``accuracy --fix --max-drop`` wins them back, in the image too."""
    task = tasks.cifar_resnet(tests=FIX_TESTS)
    config = QuantConfig(mixed_precisions=(4, 8), mp_rate=0.25)
    quantised, table = calibrate(
        task.graph,
        lambda: (task.preprocess(feeds) for feeds in task.samples),
        compile_runner,
        CalibrationOptions("Q13", config=config),
        task.contract,
    )
    floating, fixed, mended = (tmp_path / f"{name}.sim" for name in ("float", "fixed", "mended"))
    write_stage(Stage(FLOAT, graph_to_onnx(task.graph), task.contract, "host"), floating)
    write_stage(Stage(FIXED, graph_to_onnx(quantised), task.contract, "host", table), fixed)
    images, labels = (part[:FIX_TESTS] for part in tasks.cifar.test_images())
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "labels.txt").write_text("".join(f"{n}.png {one}\n" for n, one in enumerate(labels)))
    words = ["accuracy", "-m", floating, "-f", fixed, "-i", tmp_path / "in", "-n", "letterbox"]
    words += [
        "--labels",
        tmp_path / "labels.txt",
        "--fix",
        mended,
        "--max-drop",
        f"{DROP}%",
        "--threads",
        "1",
    ]
    assert main([str(word) for word in words]) == 0
    allowed = next(measure(task, [])).score - DROP / 100
    assert by_image(read_stage(fixed), task).score < allowed - 1e-9
    assert by_image(read_stage(mended), task).score >= allowed - 1e-9
