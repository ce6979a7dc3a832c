r"""A detector in two segments with Python between them, calibrated and simulated as one network.

The segments are those of Faster R-CNN. The first finds features of a picture, and scores and shifts of
anchor boxes; NumPy makes proposals of the best ones; the second looks at the features of each proposal.

    tvm-ipu convert caffe --model_file test_stageone.prototxt --weight_file final.caffemodel \
        --input_arrays data --output_arrays rpn_cls_prob_reshape,rpn_bbox_pred,conv5_3 \
        --input_config input_config.ini --output_file main_float.sim
    tvm-ipu convert caffe --model_file second_stage.prototxt --weight_file final.caffemodel \
        --input_arrays conv5_3,rois --output_arrays cls_prob,bbox_pred \
        --input_config input_config_stage2.ini --output_file stage2_float.sim
    python examples/segments.py -i pictures -m0 main_float.sim -m1 stage2_float.sim \
        --input_config0 input_config.ini --input_config1 input_config_stage2.ini
    python examples/segments.py -i 004545.jpg -m0 main_fixed.sim -m1 stage2_fixed.sim -t Fixed

Without ``-t`` the float stages are calibrated; with it, the stages or images are run and boxes are printed.
Needs Pillow. docs/calibrator-custom.md describes the module.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import tvm_ipu.calibrator_custom as calibrator_custom

Array = NDArray[Any]

MEAN = np.array([102.9801, 115.9465, 122.7717], np.float32)
"""Of blue, green and red, as in the first segment's configuration."""
RATIOS, SCALES = (0.5, 1, 2), (8, 16, 32)
"""Height to width of the anchors, and their sides in cells of the features."""
OVERLAP, CONFIDENCE = 0.5, 0.3


def fill(pixels: Array, shape: Array, norm: bool) -> tuple[Array, float]:
    """A picture in the upper left of the first segment's input, and its scale there.

    Args:
        pixels: uint8 [rows, columns, RGB].
        shape: Of the input: [1, rows, columns, BGR].
        norm: Whether the input is normalised (float32) or raw (uint8).
    """
    rows, columns = shape[1:3]
    scale = min(rows / pixels.shape[0], columns / pixels.shape[1])
    extents = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    resized = np.asarray(Image.fromarray(pixels).resize(extents, Image.Resampling.BILINEAR))
    filled = np.zeros(shape, np.uint8)
    filled[0, : extents[1], : extents[0]] = resized[:, :, ::-1]
    return (filled - MEAN if norm else filled), scale


def anchors(rows: int, columns: int, stride: float) -> Array:
    """Boxes [left, top, right, bottom] around the middle of each cell, float64 [rows * columns * A, 4]."""
    sides = [(scale / ratio**0.5, scale * ratio**0.5) for ratio in RATIOS for scale in SCALES]
    halves = np.array(sides) * stride / 2
    y, x = (np.mgrid[:rows, :columns] + 0.5) * stride
    middles = np.stack([x, y], 2).reshape(-1, 1, 2)
    return np.concatenate([middles - halves, middles + halves], 2).reshape(-1, 4)


def moved(boxes: Array, shifts: Array) -> Array:
    """Boxes [N, 4] after shifts [N, 4]: of the middle in units of the extent, and logarithms of factors."""
    extents = boxes[:, 2:] - boxes[:, :2]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 + shifts[:, :2] * extents
    halves = extents * np.exp(np.clip(shifts[:, 2:], -4, 4)) / 2
    return np.concatenate([middles - halves, middles + halves], 1)


def best(boxes: Array, scores: Array, count: int) -> Array:
    """Numbers of at most ``count`` boxes, best first, none of which overlaps much with a better one."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < count:
        first, order = order[0], order[1:]
        kept.append(int(first))
        low = np.maximum(boxes[first, :2], boxes[order, :2])
        high = np.minimum(boxes[first, 2:], boxes[order, 2:])
        common = np.prod(np.maximum(high - low, 0), 1)
        order = order[common <= OVERLAP * (areas[first] + areas[order] - common)]
    return np.array(kept, np.int64)


def proposals(scores: Array, shifts: Array, extents: tuple[int, int], count: int) -> Array:
    """Regions for the second segment: the layer that no network here has.

    Args:
        scores: Of the anchors of each cell [1, rows, columns, 2 A]: first of background, then of objects.
        shifts: Of the same anchors [1, rows, columns, 4 A].
        extents: Rows and columns of the picture.
        count: How many regions the second segment takes.

    Returns:
        float32 [count, 5]: 0, left, top, right, bottom; the best ones again where there are fewer.
    """
    _, rows, columns, channels = scores.shape
    stride = extents[0] / rows
    limits = np.array([extents[1], extents[0]] * 2) - 1
    boxes = np.clip(moved(anchors(rows, columns, stride), shifts.reshape(-1, 4)), 0, limits)
    large = np.all(boxes[:, 2:] - boxes[:, :2] >= stride, 1)
    kept = best(boxes, np.where(large, scores[..., channels // 2 :].reshape(-1), -1), count)
    chosen = boxes[np.resize(kept, count)]
    return np.concatenate([np.zeros((count, 1)), chosen], 1).astype(np.float32)


def outputs(model: Any) -> list[Array]:
    """What a model gave, as numbers: integers of ``dequantizations=FALSE`` times their scale."""
    found = []
    for detail in model.get_output_details():
        value = model.get_output(detail["index"])
        scale, zero = detail.get("quantization", (1, 0))
        found.append(((value.astype(np.float32) - zero) * scale).astype(np.float32))
    return found


def run(
    main_model: Any, second_model: Any, pixels: Array, norm: bool
) -> list[tuple[int, float, list[float]]]:
    """Both segments on a picture: class, score and [left, top, right, bottom] of what they find."""
    shape = main_model.get_input_details()[0]["shape"]
    filled, scale = fill(pixels, shape, norm)
    main_model.set_input(0, filled)
    main_model.invoke()
    scores, shifts, features = outputs(main_model)
    count = int(second_model.get_input_details()[1]["shape"][0])
    rois = proposals(scores, shifts, (int(shape[1]), int(shape[2])), count)
    second_model.set_input(0, features)
    second_model.set_input(1, rois)
    second_model.invoke()
    classes, shifts = outputs(second_model)
    found = []
    for label in range(1, classes.shape[1]):  # 0 is background
        boxes = moved(rois[:, 1:], shifts[:, 4 * label : 4 * label + 4]) / scale
        for at in best(boxes, classes[:, label], count):
            if classes[at, label] >= CONFIDENCE:
                found.append((label, float(classes[at, label]), boxes[at].tolist()))
    return sorted(found, key=lambda one: -one[1])


class Calibrated(calibrator_custom.SIM_Calibrator):
    """The float segments, to be calibrated."""

    def __init__(self, models: list[Path], configs: list[Path | None]) -> None:
        super().__init__()
        self.main_model, self.second_model = map(calibrator_custom.calibrator, models, configs)

    def forward(self, pixels: Array) -> Any:
        """Both segments on a picture."""
        return run(self.main_model, self.second_model, pixels, True)


class Simulated(calibrator_custom.SIM_Simulator):
    """The segments in one of the phases ``Float``, ``Fixed`` and ``Offline``."""

    def __init__(self, models: list[Path], phase: str) -> None:
        super().__init__()
        simulator = getattr(calibrator_custom, f"{phase.lower()}_simulator")
        self.main_model, self.second_model = map(simulator, models)
        self.norm = phase == "Float"

    def forward(self, pixels: Array) -> Any:
        """Both segments on a picture."""
        return run(self.main_model, self.second_model, pixels, self.norm)


def pictures(files: list[Path]) -> Iterator[list[Array]]:
    """The arguments of ``forward`` for each file."""
    for file in files:
        with Image.open(file) as opened:
            yield [np.asarray(opened.convert("RGB"))]


def fixed_path(path: Path) -> Path:
    """Where the fixed stage of a float one goes."""
    return path.with_name(f"{path.stem.removesuffix('_float')}_fixed.sim")


def main() -> None:
    """Calibrate, or with ``-t`` simulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-i", "--image", type=Path, required=True, help="picture, or folder of pictures")
    parser.add_argument("-m0", "--model0", type=Path, required=True, help="first segment")
    parser.add_argument("-m1", "--model1", type=Path, required=True, help="second segment")
    parser.add_argument("--input_config0", type=Path, help="of the first segment, when it is calibrated")
    parser.add_argument("--input_config1", type=Path, help="of the second segment")
    parser.add_argument("-t", "--type", choices=("Float", "Fixed", "Offline"), help="simulate in this phase")
    parser.add_argument("--num_process", type=int, default=1, help="pictures at a time (default: 1)")
    parser.add_argument("--quant_level", default="L5", help="L1 to L5, Q10 to Q23 (default: L5)")
    parser.add_argument("--soc_version", help="chip to calibrate for; by default that of the stages")
    args = parser.parse_args()

    files = sorted(args.image.iterdir()) if args.image.is_dir() else [args.image]
    models = [args.model0, args.model1]
    if args.type:
        found = Simulated(models, args.type)(pictures(files), num_process=args.num_process)
        for file, boxes in zip(files, found, strict=True):
            print(file)
            for label, score, edges in boxes:
                print(f"  class {label}  {score:.3f}  {' '.join(f'{edge:.1f}' for edge in edges)}")
        return
    if args.soc_version:
        calibrator_custom.set_soc_version(args.soc_version)
    net = Calibrated(models, [args.input_config0, args.input_config1])
    fixed = [fixed_path(path) for path in models]
    net.convert(pictures(files), fix_model=fixed, num_process=args.num_process, quant_level=args.quant_level)
    for path in fixed:
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
