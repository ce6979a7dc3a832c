"""Networks with real data that tell how well they do their work, and other data to calibrate them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.models import cifar, pictures, wordsim, zoo
from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.graph import Array, Graph
from tvm_ipu.base.quant_config import QuantConfig
from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.onnx.plain import load_graph

Sample = dict[str, Array]
Run = Callable[[Sample], Array]
"""From what a board feeds to the network's output."""

CONFIDENCE, OVERLAP = 0.4, 0.5
COCO = {"person": 0, "car": 2, "bus": 5}
PHRASES = 12


@dataclass(frozen=True)
class Judgement:
    """How well a network does.

    Attributes:
        score: Share of what is right, or a correlation.
        outputs: What it is judged by, stacked.
    """

    score: float
    outputs: Array


@dataclass(frozen=True)
class Task:
    """A network and what it is for.

    Attributes:
        graph: Float network.
        samples: To calibrate with, as a board feeds them; none of what ``judge`` feeds.
        judge: Feeds a network, and compares what it gives with people's labels.
        contract: What a board feeds.
        preprocess: What the float network takes instead of it.
        config: How Q13 and Q23 mix bits.
    """

    graph: Graph
    samples: Sequence[Sample]
    judge: Callable[[Run], Judgement]
    contract: Contract = field(default_factory=Contract)
    preprocess: Callable[[Sample], Sample] = dict
    config: QuantConfig = field(default_factory=QuantConfig)


def cifar_resnet(samples: int = 100, tests: int = 10_000) -> Task:
    """MLPerf Tiny's residual network, on CIFAR-10's test images; calibrated on training images."""
    images, labels = (part[:tests] for part in cifar.test_images())
    port = InputContract("image", "RGB", "RGB", mean=(128.0,) * 3, std=(128.0,))

    def judge(run: Run) -> Judgement:
        found = np.concatenate([run({"image": one[None]}) for one in images])
        return Judgement(float((found.argmax(1) == labels).mean()), found)

    return Task(
        load_graph(cifar.model()),
        [{"image": one[None]} for one in cifar.training_images(samples)],
        judge,
        Contract(inputs=(port,)),
        lambda feeds: {"image": feeds["image"].astype(np.float32) / 128 - 1},
        QuantConfig(mixed_precisions=(4, 8)),
    )


def mobilenet_v2() -> Task:
    """MobileNetV2, on the 20 labelled ImageNet pictures of foolbox; calibrated on other photographs."""
    images, labels = zoo.images()

    def judge(run: Run) -> Judgement:
        found = np.concatenate([run({"input": one[None]}) for one in images])
        return Judgement(float((found.argmax(1) == labels).mean()), found)

    samples = [{"input": one} for one in pictures.imagenet_like()]
    return Task(load_graph(zoo.get("mobilenet_v2"), LoadOptions(batch=1)), samples, judge)


def yolov8n(samples: int = 6) -> Task:
    """YOLOv8n, on labelme's nine boxes; calibrated on the first pictures of foolbox."""
    graph = load_graph(zoo.get("yolov8n"))
    (name,) = (spec.name for spec in graph.inputs)

    def judge(run: Run) -> Judgement:
        outputs, found, wanted = [], 0, 0
        for file, boxes in pictures.labelled():
            image, scale, shift = pictures.letterbox(file, 640)
            outputs.append(run({name: np.ascontiguousarray(image)}))
            found += sum(is_found(box, outputs[-1][0], scale, shift) for box in boxes)
            wanted += len(boxes)
        return Judgement(found / wanted, np.concatenate(outputs))

    files = zoo.image_files()[:samples]
    feeds = [{name: np.ascontiguousarray(pictures.letterbox(file, 640)[0])} for file in files]
    return Task(graph, feeds, judge)


def is_found(box: pictures.Box, output: Array, scale: float, shift: tuple[int, int]) -> bool:
    """Whether a detection of the box's class overlaps it (intersection over union).

    Args:
        box: In the picture.
        output: YOLOv8's, [4 + classes, candidates]: centre, width and height in the square, and scores.
        scale: As ``pictures.letterbox`` gives it.
        shift: Likewise.
    """
    candidates = output[:, output[4 + COCO[box.label]] >= CONFIDENCE]
    centre, extents = candidates[:2], candidates[2:4]
    low, high = ((centre + half * extents - np.reshape(shift, (2, 1))) / scale for half in (-0.5, 0.5))
    corners = np.reshape(box.corners, (2, 2, 1))
    common = np.clip(np.minimum(high, corners[1]) - np.maximum(low, corners[0]), 0, None).prod(0)
    areas = (high - low).prod(0) + (corners[1] - corners[0]).prod()
    return bool((common / (areas - common) >= OVERLAP).any())


def minilm_l6(samples: int = 24) -> Task:
    """MiniLM, on WordSim-353; calibrated on sentences of its package's description."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    shapes = parse_input_shapes([f"{name}:[1,{wordsim.LENGTH}]" for name in names])
    options = LoadOptions(shapes, outputs=("last_hidden_state",))

    def judge(run: Run) -> Judgement:
        feeds = [wordsim.tokens(f"{first} {second}") for first, second, _ in wordsim.pairs()[:PHRASES]]
        states = [run(one)[one["attention_mask"] > 0] for one in feeds]
        return Judgement(wordsim.correlation(run), np.concatenate(states))

    sentences = [wordsim.tokens(text) for text in wordsim.sentences(samples)]
    return Task(load_graph(zoo.get("minilm_l6"), options), sentences, judge)


TASKS: dict[str, Callable[[], Task]] = {
    "cifar_resnet": cifar_resnet,
    "mobilenet_v2": mobilenet_v2,
    "yolov8n": yolov8n,
    "minilm_l6": minilm_l6,
}
"""By the name of the network."""
