"""The example of a network in two segments, with the names and flags of the toolchain that it comes from."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.frontends import caffe_kit
from tests.unit.config_kit import FIRST_SEGMENT, SECOND_SEGMENT
from tvm_ipu.cli.main import main
from tvm_ipu.image.stage import read_stage

EXAMPLE = Path(__file__).parents[2] / "examples" / "segments.py"
ROWS, COLUMNS, STRIDE, FEATURES, ANCHORS = 48, 64, 4, 12, 9
REGIONS, CLASSES = 6, 4

CONVERT = """convert caffe --model_file test_stageone.prototxt --weight_file final.caffemodel
--input_arrays data --output_arrays rpn_cls_prob_reshape,rpn_bbox_pred,conv5_3
--input_config input_config.ini --output_file faster_rcnn_main_float.sim"""
CONVERT_SECOND = """convert caffe --model_file second_stage.prototxt --weight_file final.caffemodel
--input_arrays conv5_3,rois --output_arrays cls_prob,bbox_pred
--input_config input_config_stage2.ini --output_file faster_rcnn_stage2_float.sim"""


def conv(name: str, bottom: str, channels: int, kernel: int = 3, stride: int = 1) -> str:
    params = f"num_output: {channels} kernel_size: {kernel} stride: {stride} pad: {kernel // 2}"
    return caffe_kit.layer(name, "Convolution", bottom, params=f"convolution_param {{ {params} }}")


def relu(name: str) -> str:
    return caffe_kit.layer(f"{name}_relu", "ReLU", name, name)


def reshape(name: str, bottom: str, channels: int) -> str:
    params = f"reshape_param {{ shape {{ dim: 0 dim: {channels} dim: -1 dim: {COLUMNS // STRIDE} }} }}"
    return caffe_kit.layer(name, "Reshape", bottom, params=params)


def dense(name: str, bottom: str, count: int) -> str:
    return caffe_kit.layer(
        name, "InnerProduct", bottom, params=f"inner_product_param {{ num_output: {count} }}"
    )


def write_networks(folder: Path) -> None:
    """Both prototxts of a small Faster R-CNN, their weights and configurations."""
    first = caffe_kit.data(1, 3, ROWS, COLUMNS) + "".join(
        [
            conv("conv1", "data", 8, 3, 2) + relu("conv1"),
            conv("conv5_3", "conv1", FEATURES, 3, 2) + relu("conv5_3"),
            conv("rpn_conv", "conv5_3", 16) + relu("rpn_conv"),
            conv("rpn_cls_score", "rpn_conv", 2 * ANCHORS, 1),
            reshape("rpn_cls_score_reshape", "rpn_cls_score", 2),
            caffe_kit.layer("rpn_cls_prob", "Softmax", "rpn_cls_score_reshape"),
            reshape("rpn_cls_prob_reshape", "rpn_cls_prob", 2 * ANCHORS),
            conv("rpn_bbox_pred", "rpn_conv", 4 * ANCHORS, 1),
        ]
    )
    extents = f"{{ dim: 1 dim: {FEATURES} dim: {ROWS // STRIDE} dim: {COLUMNS // STRIDE} }}"
    pooling = f"roi_pooling_param {{ pooled_h: 3 pooled_w: 3 spatial_scale: {1 / STRIDE} }}"
    second = "".join(
        [
            caffe_kit.layer("conv5_3", "Input", "", params=f"input_param {{ shape {extents} }}"),
            caffe_kit.layer(
                "rois", "Input", "", params=f"input_param {{ shape {{ dim: {REGIONS} dim: 5 }} }}"
            ),
            caffe_kit.layer("roi_pool5", "ROIPooling", "conv5_3 rois", params=pooling),
            dense("fc6", "roi_pool5", 24) + relu("fc6"),
            dense("cls_score", "fc6", CLASSES) + caffe_kit.layer("cls_prob", "Softmax", "cls_score"),
            dense("bbox_pred", "fc6", 4 * CLASSES),
        ]
    )
    random = np.random.default_rng(11)

    def weights(out: int, *into: int, gain: float = 2.0) -> list[np.ndarray]:
        deviation = (gain / np.prod(into)) ** 0.5
        return [random.normal(0, deviation, (out, *into)), random.normal(0, 0.1, out)]

    every = {
        "conv1": [one / (60, 1)[at] for at, one in enumerate(weights(8, 3, 3, 3))],
        "conv5_3": weights(FEATURES, 8, 3, 3),
        "rpn_conv": weights(16, FEATURES, 3, 3),
        "rpn_cls_score": weights(2 * ANCHORS, 16, 1, 1, gain=4),
        "rpn_bbox_pred": weights(4 * ANCHORS, 16, 1, 1, gain=0.2),
        "fc6": weights(24, FEATURES * 9),
        "cls_score": weights(CLASSES, 24, gain=4),
        "bbox_pred": weights(4 * CLASSES, 24, gain=0.05),
    }
    caffe_kit.write(folder, second, every).rename(folder / "second_stage.prototxt")
    proposal = caffe_kit.layer("proposal", "Python", "rpn_cls_prob_reshape rpn_bbox_pred", "rois")
    caffe_kit.write(folder, first, every).rename(folder / "opencv.prototxt")
    (folder / "test_stageone.prototxt").write_text(first + proposal)
    (folder / "net.caffemodel").rename(folder / "final.caffemodel")
    (folder / "input_config.ini").write_text(FIRST_SEGMENT)
    (folder / "input_config_stage2.ini").write_text(SECOND_SEGMENT)


def photograph(seed: int) -> np.ndarray:
    """Bright and dark rectangles, uint8 [60, 90, RGB]."""
    random = np.random.default_rng(seed)
    pixels = np.full((60, 90, 3), 90, np.uint8)
    for _ in range(5):
        top, left = random.integers(0, 40), random.integers(0, 60)
        height, width = random.integers(10, 40, 2)
        pixels[top : top + height, left : left + width] = random.integers(0, 256, 3)
    return pixels


class OpenCV:
    """A segment with the interface of the simulators, in NHWC outside as those are."""

    def __init__(self, prototxt: str, inputs: dict[str, tuple[int, ...]], outputs: tuple[str, ...]) -> None:
        self.net = cv2.dnn.readNetFromCaffe(prototxt, "final.caffemodel")
        self.inputs, self.outputs = inputs, outputs

    def get_input_details(self) -> list[dict[str, Any]]:
        return [{"shape": np.array(shape)} for shape in self.inputs.values()]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [{"index": index} for index, _ in enumerate(self.outputs)]

    def set_input(self, index: int, data: np.ndarray) -> None:
        planar = data.transpose(0, 3, 1, 2) if data.ndim == 4 else data
        self.net.setInput(np.ascontiguousarray(planar, np.float32), list(self.inputs)[index])

    def invoke(self) -> None:
        pass

    def get_output(self, index: int) -> np.ndarray:
        found = self.net.forward(self.outputs[index]).copy()
        return np.ascontiguousarray(found.transpose(0, 2, 3, 1)) if found.ndim == 4 else found


@pytest.fixture(scope="module")
def example() -> Callable[[str], dict[str, Any]]:
    """Runs the script with the words of a command line."""

    def run(words: str) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(EXAMPLE), *words.split()])
            return runpy.run_path(str(EXAMPLE), run_name="__main__")

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, example: Callable[[str], dict[str, Any]]) -> Any:
    """A folder in which the commands of the reference have been run, and the script's names."""
    folder = tmp_path_factory.mktemp("segments")
    write_networks(folder)
    (folder / "pictures").mkdir()
    for number in range(6):
        Image.fromarray(photograph(number)).save(folder / "pictures" / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(CONVERT.split()) == 0
        assert main(CONVERT_SECOND.split()) == 0
        names = example(
            "-i pictures -m0 faster_rcnn_main_float.sim -m1 faster_rcnn_stage2_float.sim "
            "--input_config0 input_config.ini --input_config1 input_config_stage2.ini --quant_level Q10"
        )
        for stage in ("main", "stage2"):
            assert main(f"compile -m faster_rcnn_{stage}_fixed.sim -o {stage}.img".split()) == 0
        yield names


def printed(text: str) -> list[list[tuple[int, float, np.ndarray]]]:
    """Class, score and edges of what was found in each picture."""
    found: list[list[tuple[int, float, np.ndarray]]] = []
    for line in text.splitlines():
        words = line.split()
        if words[0] == "class":
            found[-1].append((int(words[1]), float(words[2]), np.array(words[3:], float)))
        else:
            found.append([])
    return found


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of [left, top, right, bottom]."""
    common = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common))


def test_float_segments_equal_opencv(made: Any, example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example("-i pictures/3.png -m0 faster_rcnn_main_float.sim -m1 faster_rcnn_stage2_float.sim -t Float")
    (found,) = printed(capsys.readouterr().out)
    shapes = {"data": (1, ROWS, COLUMNS, 3)}
    first = OpenCV("opencv.prototxt", shapes, ("rpn_cls_prob_reshape", "rpn_bbox_pred", "conv5_3_relu"))
    shapes = {"conv5_3": (1, ROWS // STRIDE, COLUMNS // STRIDE, FEATURES), "rois": (REGIONS, 5)}
    second = OpenCV("second_stage.prototxt", shapes, ("cls_prob", "bbox_pred"))
    expected = made["run"](first, second, photograph(3), True)
    assert len(found) == len(expected) > 2
    for (label, score, edges), (wanted, sure, box) in zip(found, expected, strict=True):
        assert label == wanted
        assert score == pytest.approx(sure, abs=0.0006)
        np.testing.assert_allclose(edges, box, atol=0.06)


def test_fixed_and_offline_segments_print_the_same(
    made: Any, example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for models, phase in (
        ("-m0 faster_rcnn_main_fixed.sim -m1 faster_rcnn_stage2_fixed.sim", "Fixed"),
        ("-m0 main.img -m1 stage2.img", "Offline"),
        ("-m0 faster_rcnn_main_float.sim -m1 faster_rcnn_stage2_float.sim", "Float"),
    ):
        example(f"-i pictures {models} -t {phase} --num_process 2")
        texts.append(capsys.readouterr().out)
    fixed, offline, floating = texts
    assert fixed == offline
    for found, expected in zip(printed(fixed), printed(floating), strict=True):
        assert len(expected) > 2
        for label, _, box in expected:
            assert max(overlap(box, other) for kind, _, other in found if kind == label) > 0.9


def test_features_are_integers_and_regions_are_not(made: Any) -> None:
    stage = read_stage(Path("faster_rcnn_main_fixed.sim"))
    assert "rois" not in read_stage(Path("faster_rcnn_stage2_fixed.sim")).ranges.ranges
    assert [port.dequantize for port in stage.contract.outputs] == [True, True, False]
