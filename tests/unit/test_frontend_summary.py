"""Summary of a model: counts that can be checked by hand."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.unit.frontend_kit import FLOAT, constant, make_model, node, value
from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.onnx.cost import Cost, node_cost
from tvm_ipu.frontends.onnx.load import read_proto
from tvm_ipu.frontends.onnx.prepare import prepare
from tvm_ipu.frontends.onnx.summary import summarize


def small(tmp_path):
    nodes = [
        node("Conv", "x w b", "c", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f v", "y"),
    ]
    weights = [
        constant("w", np.ones((8, 3, 3, 3)), "float32"),
        constant("b", np.ones(8), "float32"),
        constant("v", np.ones((8, 10)), "float32"),
    ]
    path = tmp_path / "small.onnx"
    onnx.save(make_model(nodes, [value("x", ["N", 3, 32, 32])], [value("y", ["N", 10])], weights), path)
    return path


def test_summary(tmp_path):
    summary = summarize(small(tmp_path), LoadOptions(batch=2))
    convolution, product = 2 * 8 * 16 * 16 * 27, 2 * 8 * 10
    assert summary.macs == convolution + product
    elements = 2 * 8 * 16 * 16
    assert summary.flops == 2 * (convolution + product) + 3 * elements  # bias, Relu, average
    assert summary.parameters == 8 * 27 + 8 + 80
    assert summary.parameter_bytes == 4 * summary.parameters
    assert [(o.op_type, o.count) for o in summary.operators][:2] == [("Conv", 1), ("GlobalAveragePool", 1)]
    assert [str(t.shape) for t in summary.inputs + summary.outputs] == ["[2,3,32,32]", "[2,10]"]
    assert summary.unsupported == ()
    assert summary.note == ""
    assert json.loads(json.dumps(summary.as_dict()))["facts"]["opset"] == 17


def test_without_shapes(tmp_path):
    summary = summarize(small(tmp_path))
    assert (summary.macs, summary.flops) == (None, None)
    assert summary.parameters == 8 * 27 + 8 + 80
    assert {o.op_type: o.count for o in summary.operators} == dict.fromkeys(
        ("Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"), 1
    )
    assert summary.inputs[0].shape == "[N,3,32,32]"
    assert "--batch N" in summary.note


def test_unsupported_nodes(tmp_path):
    proto = make_model(
        [node("Foo", "x", "y"), node("Relu", "y", "z")], [value("x", ["N"])], [value("z", None)]
    )
    path = tmp_path / "foo.onnx"
    onnx.save(proto, path)
    for options in (LoadOptions(), LoadOptions(batch=1)):
        (one,) = summarize(path, options).unsupported
        assert (one.op_type, one.node) == ("Foo", "Foo:y")
        assert "no converter" in one.reason


def test_inputs_that_images_do_not_have():
    nodes = [node("Equal", "x x", "y")]
    model = make_model(
        nodes, [value("x", [2], TensorProto.STRING)], [value("y", [2], TensorProto.BOOL)], opset=19
    )
    (found,) = summarize(model).unsupported
    assert (found.op_type, found.node) == ("Input", "x")
    assert "element type string, which images do not have" in found.reason


def test_wrong_shapes_are_an_error(tmp_path):
    path = tmp_path / "product.onnx"
    onnx.save(make_model([node("MatMul", "x x", "y")], [value("x", ["N", 3])], [value("y", None)]), path)
    assert summarize(path).macs is None
    with pytest.raises(ModelError, match="MatMul"):
        summarize(path, LoadOptions(batch=2))


COSTS = {
    "Conv groups": (
        node("Conv", "a w", "y", group=2),
        {"a": (1, 4, 6, 6), "w": (8, 2, 3, 3)},
        Cost(8 * 16 * 18, 2 * 8 * 16 * 18),
    ),
    "ConvTranspose": (
        node("ConvTranspose", "a w", "y", strides=[2, 2]),
        {"a": (1, 4, 5, 5), "w": (4, 3, 2, 2)},
        Cost(100 * 12, 2 * 100 * 12),
    ),
    "MatMul": (node("MatMul", "a w", "y"), {"a": (2, 3, 4), "w": (4, 5)}, Cost(2 * 3 * 5 * 4, 240)),
    "Gemm": (
        node("Gemm", "a w c", "y", transA=1),
        {"a": (4, 3), "w": (4, 5), "c": (5,)},
        Cost(3 * 5 * 4, 2 * 60 + 15),
    ),
    "Einsum": (
        node("Einsum", "a w", "y", equation="bij,jk->bik"),
        {"a": (2, 3, 4), "w": (4, 5)},
        Cost(2 * 3 * 4 * 5, 240),
    ),
    "LSTM": (
        node("LSTM", "a w r", "y", hidden_size=5),
        {"a": (7, 2, 3), "w": (1, 20, 3), "r": (1, 20, 5)},
        Cost(7 * 2 * 20 * 8, 2 * 7 * 2 * 20 * 8),
    ),
    "Add": (node("Add", "a w", "y"), {"a": (2, 3), "w": (3,)}, Cost(0, 6)),
    "ReduceMean": (node("ReduceMean", "a", "y", axes=[1]), {"a": (2, 3)}, Cost(0, 6)),
    "MaxPool": (node("MaxPool", "a", "y", kernel_shape=[2, 2]), {"a": (1, 1, 3, 3)}, Cost(0, 16)),
    "Softmax": (node("Softmax", "a", "y"), {"a": (2, 3)}, Cost(0, 30)),
    "Transpose": (node("Transpose", "a", "y"), {"a": (2, 3)}, Cost(0, 0)),
}


@pytest.mark.parametrize("case", COSTS)
def test_cost(case):
    one, shapes, expected = COSTS[case]
    inputs = [value(name, shape, FLOAT) for name, shape in shapes.items()]
    graph = prepare(read_proto(make_model([one], inputs, [value("y", None)])), LoadOptions(), lambda *_: True)
    assert node_cost(graph.ops[0]) == expected
