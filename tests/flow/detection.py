"""Post-processing of a detector as a network with four outputs, and the same in plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.unit.frontend_kit import constant, node, value

CANDIDATES, BOXES = 24, 10
"""How many boxes are compared with each other, and how many there may be in the end."""
OVERLAP, CONFIDENCE = 0.4, 0.25

OUTPUTS = ("boxes", "classes", "scores", "count")


def with_anchors(model: ModelProto) -> ModelProto:
    """A network whose outputs from 0 to 1 are boxes around the middles of square cells, and scores."""
    (output,) = model.graph.output
    _, rows, cells = (one.dim_value for one in output.type.tensor_type.shape.dim)
    side = round(cells**0.5)
    gains = np.full((1, rows, 1), 4, np.float32)
    gains[0, :4, 0] = 0.2, 0.2, 0.9, 0.9
    offsets = np.full((1, rows, cells), -1.6, np.float32)
    middles = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.1
    offsets[0, :4], offsets[0, 6] = 0, -1.95  # the third class would be everywhere
    offsets[0, :2] = np.tile(middles, side), np.repeat(middles, side)
    made = ModelProto()
    made.CopyFrom(model)
    made.graph.initializer.extend([constant("gains", gains), constant("offsets", offsets)])
    made.graph.node.extend(
        [node("Mul", f"{output.name} gains", "spread"), node("Add", "spread offsets", "ssd")]
    )
    made.graph.output[0].name = "ssd"
    return made


def with_post_processing(model: ModelProto, side: float, confidence: float = CONFIDENCE) -> ModelProto:
    """The best boxes of a network: the highest scores, less those that overlap with a better one of a class.

    Args:
        model: Its only output is [1, 4 + classes, P]: centre, width and height in units of ``side``, scores.
        side: Of the picture.
        confidence: Lowest score that counts.
    """
    (output,) = model.graph.output
    rows = output.type.tensor_type.shape.dim[1].dim_value
    later = np.tril(np.ones((CANDIDATES, CANDIDATES), np.float32), -1)[None]
    constants = {
        "parts": np.array([4, rows - 4]),
        "k": np.array([CANDIDATES]),
        "d": np.array([BOXES]),
        "last": np.array([2]),
        "first": np.array([1]),
        "kx4": np.array([1, CANDIDATES, 4]),
        "dx4": np.array([1, BOXES, 4]),
        "half": np.float32(0.5),
        "inverse": np.float32(1 / side),
        "overlap": np.float32(OVERLAP),
        "confidence": np.float32(confidence),
        "one": np.float32(1),
        "later": later,
        "tiny": np.float32(1e-9),
        "ones": np.array([1, 1, 1, 1]),
    }
    nodes = [
        node("Split", f"{output.name} parts", "placed rated", axis=1),
        node("ReduceMax", "rated first", "best", keepdims=0),
        node("ArgMax", "rated", "every", axis=1, keepdims=0),
        node("TopK", "best k", "top at", axis=1),
        node("GatherElements", "every at", "labels", axis=1),
        node("Unsqueeze", "at last", "at_"),
        node("Expand", "at_ kx4", "at4"),
        node("Transpose", "placed", "columns", perm=[0, 2, 1]),
        node("GatherElements", "columns at4", "chosen", axis=1),
        node("Mul", "chosen inverse", "shares"),
        node("Split", "shares ones", "x y w h", axis=2),
    ]
    for centre, extent, low, high in (("x", "w", "left", "right"), ("y", "h", "upper", "lower")):
        nodes += [
            node("Mul", f"{extent} half", f"{extent}2"),
            node("Sub", f"{centre} {extent}2", low),
            node("Add", f"{centre} {extent}2", high),
        ]
        for edge in (low, high):
            nodes.append(node("Transpose", edge, f"{edge}_", perm=[0, 2, 1]))
        nodes += [
            node("Max", f"{low} {low}_", f"{low}_in"),
            node("Min", f"{high} {high}_", f"{high}_in"),
            node("Sub", f"{high}_in {low}_in", f"{extent}_raw"),
            node("Relu", f"{extent}_raw", f"{extent}_in"),
        ]
    nodes += [
        node("Mul", "w_in h_in", "common"),
        node("Mul", "w h", "area"),
        node("Transpose", "area", "area_", perm=[0, 2, 1]),
        node("Add", "area area_", "both"),
        node("Sub", "both common", "union"),
        node("Add", "union tiny", "united"),
        node("Div", "common united", "ratio"),
        node("Greater", "ratio overlap", "near"),
        node("Unsqueeze", "labels last", "labels2"),
        node("Unsqueeze", "labels first", "labels1"),
        node("Equal", "labels2 labels1", "same"),
        node("And", "near same", "rivals"),
        node("Cast", "rivals", "rival", to=TensorProto.FLOAT),
        node("Mul", "rival later", "worse"),
        node("ReduceMax", "worse last", "removed", keepdims=0),
        node("Sub", "one removed", "stays"),
        node("Mul", "top stays", "kept"),
        node("TopK", "kept d", "scores order", axis=1),
        node("GatherElements", "labels order", "kinds", axis=1),
        node("Cast", "kinds", "classes", to=TensorProto.FLOAT),
        node("Concat", "upper left lower right", "edges", axis=2),
        node("Unsqueeze", "order last", "order_"),
        node("Expand", "order_ dx4", "order4"),
        node("GatherElements", "edges order4", "boxes", axis=1),
        node("Greater", "scores confidence", "sure"),
        node("Cast", "sure", "sure_", to=TensorProto.FLOAT),
        node("ReduceSum", "sure_ first", "count", keepdims=0),
    ]
    shapes = ([1, BOXES, 4], [1, BOXES], [1, BOXES], [1])
    taken = {name for one in model.graph.node for name in (*one.input, *one.output)}
    taken |= {one.name for one in model.graph.initializer}

    def own(name: str) -> str:
        return f"post/{name}" if name in taken and name != output.name else name

    for one in nodes:
        one.input[:], one.output[:] = map(own, one.input), map(own, one.output)
    graph = helper.make_graph(
        [*model.graph.node, *nodes],
        "detector",
        model.graph.input,
        [value(name, shape) for name, shape in zip(OUTPUTS, shapes, strict=True)],
        [
            *model.graph.initializer,
            *(numpy_helper.from_array(np.asarray(v), own(n)) for n, v in constants.items()),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@dataclass(frozen=True)
class Found:
    """A box in pixels."""

    label: int
    score: float
    left: float
    top: float
    right: float
    bottom: float


def decode(output: np.ndarray, pixels: float, confidence: float = CONFIDENCE) -> list[Found]:
    """What the post-processing should find in a network's output [4 + classes, P], box after box.

    Args:
        output: As for ``with_post_processing``.
        pixels: Of the picture, for a unit of the output.
        confidence: Lowest score that counts.
    """
    output = output.astype(np.float64)
    every = []
    for x, y, w, h, *scores in output.T:
        label = int(np.argmax(scores))
        edges = [pixels * v for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
        every.append(Found(label, scores[label], *edges))
    every = sorted(every, key=lambda one: -one.score)[:CANDIDATES]
    kept = [
        one
        for at, one in enumerate(every)
        if not any(other.label == one.label and overlap(one, other) > OVERLAP for other in every[:at])
    ]
    return [one for one in kept[:BOXES] if one.score > confidence]


def overlap(a: Found, b: Found) -> float:
    """Intersection over union."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    common = max(width, 0) * max(height, 0)
    areas = [(one.right - one.left) * (one.bottom - one.top) for one in (a, b)]
    return common / (sum(areas) - common)


def printed(text: str) -> list[list[Found]]:
    """The tables that ``simulate -c Detection`` prints, one for each sample."""
    tables: list[list[Found]] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["class"]:
            tables.append([])
        elif tables and len(words) == 6 and words[0].isdecimal():
            tables[-1].append(Found(int(words[0]), *map(float, words[1:])))
    return tables
