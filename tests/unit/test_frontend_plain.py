"""Models as plain graphs and back: onnxruntime sees no difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.unit.frontend_kit import constant, make_model, network, node, value
from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.graph import Graph, Node
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.frontends.onnx.plain import graph_from_onnx, graph_to_onnx, load_graph


def run(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


X = np.random.default_rng(1).normal(0, 1, (2, 3, 5, 5)).astype(np.float32)
BATCH = LoadOptions(batch=2)


@pytest.mark.parametrize("opset", [17, 20, 21, 23])
def test_same_results(opset: int) -> None:
    model = network(opset)
    graph = load_graph(model, BATCH)
    data = graph_to_onnx(graph)
    onnx.checker.check_model(data, full_check=True)
    expected = run(model.SerializeToString(), {"x": X})
    for found, wanted in zip(run(data, {"x": X}), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_a_plain_graph_is() -> None:
    graph = load_graph(network(), BATCH)
    assert graph.opset >= 21
    assert [node.op_type for node in graph.nodes if node.op_type in ("BatchNormalization", "Shape")] == []
    assert graph.inputs == (TensorSpec("x", (2, 3, 5, 5), DType.FLOAT32),)
    assert [one.shape for one in graph.outputs] == [(2, 4, 25), (2, 4)]
    assert all(name in graph.tensors for node in graph.nodes for name in node.outputs)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    assert graph.spec("c") is None  # the convolution makes what BatchNormalization made
    conv = next(node for node in graph.nodes if node.op_type == "Conv")
    assert graph.constants[conv.inputs[1]].shape == (4, 3, 3, 3)
    assert conv.attributes["pads"] == [1, 1, 1, 1]


def test_round_trip_is_exact() -> None:
    data = graph_to_onnx(load_graph(network(), BATCH))
    again = graph_from_onnx(data)
    assert graph_to_onnx(again) == data
    assert graph_to_onnx(load_graph(data)) == data
    assert load_model(data).outputs == load_model(network(), BATCH).outputs


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    graph = load_graph(path, BATCH)
    assert graph.name == "net"
    assert graph.source["format"] == "onnx"
    assert graph_from_onnx(graph_to_onnx(graph)).name == "net"


def test_cut_in_the_middle() -> None:
    graph = load_graph(network(), LoadOptions(batch=2, outputs=("r",)))
    expected = run(network().SerializeToString(), {"x": X})
    found = run(graph_to_onnx(graph), {"x": X})[0]
    assert found.shape == (2, 4, 5, 5)
    np.testing.assert_allclose(found.reshape(2, 4, 25).sum(2), expected[1], rtol=1e-4)


def test_attributes_of_all_kinds() -> None:
    """Strings, floats that look like integers, empty lists, tensors, graphs' own constants."""
    tables = {"keys_int64s": [1, 2], "values_floats": [1.0, 2.0], "default_float": 3.0}
    nodes = [
        helper.make_node("LabelEncoder", ["x"], ["e"], "encode", domain="ai.onnx.ml", **tables),
        helper.make_node("Resize", ["e4", "", "scales"], ["y"], "resize", mode="linear"),
        helper.make_node("Unsqueeze", ["e", "axes"], ["e4"], "four"),
        helper.make_node("Transpose", ["y"], ["z"], "turn", perm=[0, 1, 3, 2]),
    ]
    nodes = [nodes[0], nodes[2], nodes[1], nodes[3]]
    weights = [constant("scales", [1, 1, 2, 2], "float32"), constant("axes", [0, 1])]
    inputs, outputs = [value("x", [2, 2], TensorProto.INT64)], [value("z", [1, 1, 4, 4])]
    model = make_model(nodes, inputs, outputs, weights, opset=19)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    graph = load_graph(model)
    data = graph_to_onnx(graph)
    assert {o.domain: o.version for o in onnx.ModelProto.FromString(data).opset_import}["ai.onnx.ml"] == 3
    feeds = {"x": np.array([[1, 2], [3, 1]])}
    expected = run(model.SerializeToString(), feeds)[0]
    np.testing.assert_array_equal(run(data, feeds)[0], expected)


def test_quantised_graph_with_four_bits() -> None:
    """What calibration makes: QuantizeLinear to 16 bits, weights of 4 bits."""
    weight = np.array([[1, -8], [7, 3]]).astype(ml_dtypes.int4)
    constants = {
        "s": np.array(0.01, np.float32),
        "z": np.array(0, np.int16),
        "w": weight,
        "ws": np.array([0.5, 0.25], np.float32),
        "wz": np.zeros(2, ml_dtypes.int4),
    }
    nodes = (
        Node("q", "QuantizeLinear", ("x", "s", "z"), ("xq",)),
        Node("dq", "DequantizeLinear", ("xq", "s", "z"), ("xd",)),
        Node("dw", "DequantizeLinear", ("w", "ws", "wz"), ("wd",), {"axis": 1}),
        Node("product", "MatMul", ("xd", "wd"), ("y",)),
    )
    graph = Graph(
        "q",
        nodes,
        constants,
        (TensorSpec("x", (1, 2), DType.FLOAT32),),
        (TensorSpec("y", (1, 2), DType.FLOAT32),),
    )
    data = graph_to_onnx(graph)
    again = graph_from_onnx(data)
    assert again.nodes == graph.nodes
    assert again.constants["w"].dtype == ml_dtypes.int4
    np.testing.assert_array_equal(again.constants["w"], weight)
    x = np.array([[0.5, -1.25]], np.float32)
    expected = x @ (weight.astype(np.float32) * [0.5, 0.25])
    np.testing.assert_allclose(run(data, {"x": x})[0], expected, rtol=1e-5)
    assert load_model(data).outputs[0].shape == (1, 2)


def test_large_weights_survive_the_change_of_opset() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (64, 64)).astype(np.float32)
    model = make_model(
        [node("MatMul", "x w", "y")], [value("x", [1, 64])], [value("y", [1, 64])], [constant("w", weight)]
    )
    graph = load_graph(model)
    assert graph.opset == 21
    np.testing.assert_array_equal(graph.constants["w"], weight)
    x = np.ones((1, 64), np.float32)
    np.testing.assert_allclose(run(graph_to_onnx(graph), {"x": x})[0], x @ weight, rtol=1e-4, atol=1e-4)


def test_outputs_with_cut_graph() -> None:
    graph = load_graph(network(), BATCH)
    part = graph.with_outputs(["r"])
    data = graph_to_onnx(replace(part, name="part"))
    assert run(data, {"x": X})[0].shape == (2, 4, 5, 5)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x07\x12\x04onnx"])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_graph(data)
