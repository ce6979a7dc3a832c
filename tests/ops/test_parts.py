"""Concatenations and slices of channels that move no data: results beside onnxruntime's, and copies left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scripts.node_suite import compile_image
from tests.ops.op_kit import assert_close, rand
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.driver import compile_model
from tvm_ipu.kernels import algorithms
from tvm_ipu.runtime.session import Session


@dataclass
class Graph:
    """A graph from one image ``x`` of ``[1, channels, 9, 10]``, built node by node.

    Methods return the name of the node's result.
    """

    channels: int = 16
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)

    def node(self, op: str, *inputs: str, **attrs: object) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attrs))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(
        self, x: str, inside: int, outside: int, kernel: int = 1, group: int = 1, stride: int = 1
    ) -> str:
        weight = rand(outside, inside // group, kernel, kernel, seed=len(self.weights), low=-0.5, high=0.5)
        bias = self.constant(rand(outside, seed=len(self.weights)))
        pads = [kernel // 2] * 4
        attrs = {"pads": pads, "group": group, "strides": [stride, stride]}
        return self.node("Relu", self.node("Conv", x, self.constant(weight), bias, **attrs))

    def split(self, x: str, *widths: int) -> list[str]:
        names = [f"n{len(self.nodes)}_{i}" for i in range(len(widths))]
        sizes = self.constant(np.array(widths))
        self.nodes.append(helper.make_node("Split", [x, sizes], names, axis=1))
        return names

    def concat(self, *xs: str) -> str:
        return self.node("Concat", *xs, axis=1)

    def model(self, *outputs: str) -> ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, self.channels, 9, 10])
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "parts", [x], infos, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def c2f(g: Graph) -> list[str]:
    """YOLOv8's block: both halves of a split and what is made of one of them, and a residual in between."""
    a, b = g.split(g.conv("x", 16, 24), 12, 12)
    c = g.node("Add", b, g.conv(g.conv(b, 12, 12, 3), 12, 12, 3))
    return [g.conv(g.concat(a, b, c), 36, 20)]


def dense_block(g: Graph) -> list[str]:
    """Each concatenation is an operand of the next."""
    x = g.conv("x", 16, 16)
    for inside in (16, 24, 32):
        x = g.concat(x, g.conv(x, inside, 8, 3))
    return [g.conv(x, 40, 7, 3, stride=2)]


def pooled_pyramid(g: Graph) -> list[str]:
    parts = [g.conv("x", 16, 8)]
    for _ in range(3):
        parts.append(g.node("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2, 2, 2, 2]))
    return [g.conv(g.concat(*parts), 32, 8)]


def upsampled(g: Graph) -> list[str]:
    fine = g.conv("x", 16, 20)
    coarse = g.conv(fine, 20, 6, 3, stride=2)
    sizes = g.constant(np.array([1, 6, 9, 10]))
    up = g.node("Resize", coarse, "", "", sizes, mode="nearest", nearest_mode="floor",
                coordinate_transformation_mode="asymmetric")  # fmt: skip
    return [g.conv(g.concat(up, fine), 26, 9, 3), coarse]


def depthwise_and_grouped(g: Graph) -> list[str]:
    a, b = g.split(g.conv("x", 16, 30), 13, 17)
    return [
        g.conv(g.concat(g.conv(a, 13, 13, 3, group=13), g.conv(b, 17, 17, 3, group=17)), 30, 6, 3, group=2)
    ]


def input_and_repeated(g: Graph) -> list[str]:
    """The model's input, which is transposed into its place, and a tensor that has its place already."""
    y = g.conv("x", 16, 8)
    return [g.conv(g.concat(y, "x", y), 32, 5, 3)]


def two_concatenations(g: Graph) -> list[str]:
    """A tensor can be a part of one result only."""
    y, z = g.conv("x", 16, 8), g.conv("x", 16, 12, 3)
    return [g.conv(g.concat(y, z), 20, 5), g.conv(g.concat(z, y), 20, 5)]


def outputs_too(g: Graph) -> list[str]:
    """Operands, slices and the result are outputs of the model."""
    y = g.conv("x", 16, 8)
    joined = g.concat(y, g.conv(y, 8, 8, 3))
    a, b = g.split(joined, 3, 13)
    return [y, joined, g.conv(joined, 16, 4), g.conv(b, 13, 4, 3), a]


def reshaped_output(g: Graph) -> list[str]:
    """An operand that is an output in another shape."""
    y = g.conv("x", 16, 1)
    flat = g.node("Reshape", y, g.constant(np.array([9, 10])))
    return [flat, g.conv(g.concat(y, g.conv("x", 16, 8)), 9, 4, 3)]


def reshaped(g: Graph) -> list[str]:
    """A slice whose elements must follow each other, and one in the middle of a tensor."""
    y = g.conv("x", 16, 12)
    bounds = [g.constant(np.array([v])) for v in (2, 9, 1)]
    middle = g.node("Slice", y, *bounds)
    flat = g.node("Flatten", middle)
    weight = g.constant(rand(630, 5, seed=3))
    return [g.conv(g.concat(middle, y), 19, 4), g.node("MatMul", flat, weight)]


def attended(g: Graph) -> list[str]:
    """Slices as operands of a product of two computed matrices."""
    y = g.node("Transpose", g.conv("x", 16, 24), perm=[0, 2, 3, 1])
    sizes = g.constant(np.array([8, 8, 8]))
    g.nodes.append(helper.make_node("Split", [y, sizes], ["q", "k", "v"], axis=3))
    scores = g.node("Softmax", g.node("MatMul", "q", g.node("Transpose", "k", perm=[0, 1, 3, 2])), axis=-1)
    return [g.node("MatMul", scores, "v")]


GRAPHS: dict[Callable[[Graph], list[str]], int] = {
    c2f: 0,
    dense_block: 0,
    pooled_pyramid: 0,
    upsampled: 0,
    depthwise_and_grouped: 0,
    input_and_repeated: 1,
    two_concatenations: 2,
}
"""Graphs, and how many copies they need."""

OTHERS = (outputs_too, reshaped_output, reshaped, attended)


@pytest.mark.parametrize("build", [*GRAPHS, *OTHERS], ids=lambda build: build.__name__)
def test_parts(build: Callable[[Graph], list[str]]) -> None:
    graph = Graph()
    model = graph.model(*build(graph))
    x = rand(1, 16, 9, 10)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    with Session(compile_image(model, {}, "host"), threads=2) as session:
        found = session.run({"x": x})
        calls = session.profile()
    for got, value in zip(found.values(), expected, strict=True):
        assert_close(got, value, 1e-5)
    if build in GRAPHS:
        copies = [
            call for call in calls if call.op in ("concat", "slice", "concatenate", "strided_slice", "split")
        ]
        assert len(copies) == GRAPHS[build], copies


def _outputs(algorithm: algorithms.Algorithm) -> int:
    return algorithm.outputs


@pytest.mark.parametrize("variant", ["fp16", "bf16", "winograd"])
def test_parts_with_other_products(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CompileOptions() if variant == "winograd" else CompileOptions(precision=variant, max_error=0)
    if variant == "winograd":
        space = algorithms.space
        monkeypatch.setattr(algorithms, "space", lambda *problem: sorted(space(*problem), key=_outputs)[::-1])
    graph = Graph()
    model = graph.model(*c2f(graph))
    onnx.save(model, tmp_path / "model.onnx")
    x = rand(1, 16, 9, 10)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    compile_model(tmp_path / "model.onnx", "host", tmp_path / "model.img", options=options)
    with Session(tmp_path / "model.img") as session:
        (found,) = session.run({"x": x}).values()
        templates = {call.template for call in session.profile()}
    assert_close(found, expected, 1e-5 if variant == "winograd" else 2e-2)
    assert ("winograd" in templates) == (variant == "winograd")
