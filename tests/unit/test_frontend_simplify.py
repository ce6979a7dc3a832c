"""Partial evaluation: what is known before the model runs is gone, and the rest computes the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.frontend_kit import (
    FLOAT,
    INT64,
    check_against_onnxruntime,
    constant,
    make_model,
    node,
    op_types,
    run_relax,
    simplified,
    value,
)
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.frontends.onnx import evaluate


def test_shape_arithmetic_is_folded():
    """x.reshape(x.shape[0], -1) as exporters write it."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Unsqueeze", "n axes", "n1"),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    weights = [constant("zero", 0), constant("axes", [0]), constant("rest", [-1])]
    proto = make_model(nodes, [value("x", ["N", 3, 4])], [value("y", ["N", 12])], weights)
    graph = simplified(proto, LoadOptions(batch=2))
    assert op_types(graph) == ["Reshape"]
    assert [list(c.array) for c in graph.constants()] == [[2, -1]]
    assert graph.outputs[0][1].shape == (2, 12)


def test_nodes_that_change_nothing_are_gone():
    nodes = [
        node("Identity", "x", "a"),
        node("Dropout", "a", "b"),
        node("Cast", "b", "c", to=FLOAT),
        node("Transpose", "c", "d", perm=[0, 1]),
        node("Reshape", "d shape", "e"),
        node("Expand", "e shape", "f"),
        node("Concat", "f", "g", axis=0),
        node("Relu", "g", "y"),
    ]
    proto = make_model(nodes, [value("x", [2, 3])], [value("y", [2, 3])], [constant("shape", [2, 3])])
    assert op_types(simplified(proto)) == ["Relu"]
    check_against_onnxruntime(proto)


PARTS = {
    "split": ([node("Split", "c sizes", "p q", axis=1)], ["Relu", "Relu", "Exp", "Exp"]),
    "slices": (
        [node("Slice", "c zero four axis", "p"), node("Slice", "c four far axis_", "q")],
        ["Relu", "Relu", "Exp", "Exp"],
    ),
    "transposed": (
        [
            node("Transpose", "c", "t", perm=[0, 2, 1]),
            node("Slice", "t zero four last", "p_"),
            node("Slice", "t four far last", "q_"),
            node("Transpose", "p_", "p", perm=[0, 2, 1]),
            node("Transpose", "q_", "q", perm=[0, 2, 1]),
        ],
        ["Relu", "Relu", *["Transpose"] * 4, "Exp", "Exp"],
    ),
    "joined": (
        [node("Concat", "c x", "d", axis=1), node("Split", "d more", "p q", axis=1)],
        ["Relu", "Relu", "Concat", "Exp", "Exp"],
    ),
    "across": (
        [node("Split", "c uneven", "p q", axis=1)],
        ["Relu", "Relu", "Concat", "Split", "Exp", "Exp"],
    ),
    "strided": (
        [node("Slice", "c zero four axis two", "p"), node("Slice", "c four far axis one", "q")],
        ["Relu", "Relu", "Concat", "Slice", "Exp", "Exp"],
    ),
    "other axis": (
        [node("Slice", "c zero four last", "p"), node("Split", "c sizes", "unread q", axis=1)],
        ["Relu", "Relu", "Concat", "Slice", "Exp", "Exp"],
    ),
}
"""Ways to take [1, 4, 5] and [1, 3, 5] apart again, and what is left of each."""


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_concatenation_are_its_operands(name: str):
    nodes, left = PARTS[name]
    before = [node("Relu", "x", "a"), node("Relu", "y", "b"), node("Concat", "a b", "c", axis=1)]
    after = [node("Exp", "p", "u"), node("Exp", "q", "v")]
    numbers = {
        "zero": [0],
        "four": [4],
        "far": [2**63 - 1],
        "axis": [1],
        "axis_": [-2],
        "last": [2],
        "one": [1],
    }
    numbers |= {"two": [2], "sizes": [4, 3], "uneven": [3, 4], "more": [7, 4]}
    weights = [constant(key, one, "int64") for key, one in numbers.items()]
    inputs = [value("x", [1, 4, 5]), value("y", [1, 3, 5])]
    proto = make_model([*before, *nodes, *after], inputs, [value("u", None), value("v", None)], weights)
    assert op_types(simplified(proto)) == left
    check_against_onnxruntime(proto)


def test_dead_nodes_are_gone():
    nodes = [node("Relu", "x", "y"), node("NoSuchOperator", "x", "dead")]
    proto = make_model(nodes, [value("x", [2])], [value("y", [2])])
    assert op_types(simplified(proto)) == ["Relu"]


def test_a_node_that_only_gave_its_shape_is_gone():
    nodes = [node("NonZero", "x", "dead"), node("Relu", "x", "r"), node("Shape", "r", "y")]
    proto = make_model(nodes, [value("x", [2, 5])], [value("y", [2], INT64)])
    assert op_types(simplified(proto)) == []
    check_against_onnxruntime(proto)


def test_folding_does_not_blow_up_the_model(monkeypatch):
    monkeypatch.setattr(evaluate, "MAX_GROWTH", 3000)
    nodes = [node("Expand", "small shape", "wide"), node("Add", "x wide", "y")]
    weights = [constant("small", [1], "float32"), constant("shape", [1001])]
    proto = make_model(nodes, [value("x", [1001])], [value("y", [1001])], weights)
    assert op_types(simplified(proto)) == ["Expand", "Add"]
    monkeypatch.setattr(evaluate, "MAX_GROWTH", 5000)
    assert op_types(simplified(proto)) == ["Add"]


def test_random_numbers_are_not_folded():
    proto = make_model([node("RandomNormal", "", "y", shape=[3])], [], [value("y", [3])])
    assert op_types(simplified(proto)) == ["RandomNormal"]


def test_constants_of_every_kind():
    nodes = [
        helper.make_node("Constant", [], ["a"], value_floats=[1.0, 2.0]),
        helper.make_node("Constant", [], ["b"], value_int=3),
        helper.make_node("Constant", [], ["c"], value=constant("", [4, 5], "float32")),
        node("Cast", "b", "bf", to=FLOAT),
        node("Sum", "x a bf c", "y"),
    ]
    proto = make_model(nodes, [value("x", [2])], [value("y", [2])])
    assert op_types(simplified(proto)) == ["Sum"]
    check_against_onnxruntime(proto)


def test_outputs_that_are_inputs_constants_or_each_other():
    nodes = [
        node("Identity", "x", "same"),
        node("Relu", "x", "r"),
        node("Identity", "r", "again"),
        node("Shape", "x", "shape"),
    ]
    outputs = [value("same", [2]), value("r", [2]), value("again", [2]), value("shape", [1], INT64)]
    model = check_against_onnxruntime(make_model(nodes, [value("x", [2])], outputs))
    results = model.module["main"].body.blocks[0].bindings[-1].value.fields
    assert len({str(var) for var in results} | {"x"}) == 5


@pytest.mark.parametrize("shape", [(), (1,), (0, 3)])
def test_scalars_and_empty_tensors(shape):
    proto = make_model([node("Neg", "x", "y")], [value("x", shape)], [value("y", shape)])
    check_against_onnxruntime(proto)


def test_float64_and_int64_constants_keep_their_types():
    nodes = [node("Add", "x w", "y"), node("Mul", "i k", "j")]
    weights = [constant("w", [1e-9, 1.0]), constant("k", [2**40, 3])]
    inputs = [value("x", [2], TensorProto.DOUBLE), value("i", [2], INT64)]
    outputs = [value("y", [2], TensorProto.DOUBLE), value("j", [2], INT64)]
    model = check_against_onnxruntime(make_model(nodes, inputs, outputs, weights))
    assert [str(spec) for spec in model.outputs] == ["y: float64[2]", "j: int64[2]"]


def test_inferred_shapes_agree_with_numpy():
    x = np.ones((2, 3, 8, 8), np.float32)
    nodes = [node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]), node("Flatten", "p", "y")]
    proto = make_model(nodes, [value("x", x.shape)], [value("y", None)])
    assert simplified(proto).outputs[0][1].shape == x[:, :, ::2, ::2].reshape(2, -1).shape


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]], ids=["linear", "by axis"])
@pytest.mark.parametrize("where", ["initializer", "node"])
def test_sparse_constants(indices, where):
    sparse = onnx.SparseTensorProto(dims=[2, 3])
    sparse.values.CopyFrom(constant("w", [7, 8], "float32"))
    sparse.indices.CopyFrom(constant("", indices))
    nodes = [node("Add", "x w", "y")]
    if where == "node":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], "w", sparse_value=sparse))
    proto = make_model(nodes, [value("x", [2, 3])], [value("y", [2, 3])])
    if where == "initializer":
        proto.graph.sparse_initializer.append(sparse)
    got = run_relax(load_model(proto), {"x": np.zeros((2, 3), np.float32)})[0]
    np.testing.assert_array_equal(got, [[0, 7, 0], [0, 0, 8]])


def test_bfloat16_and_float16_weights():
    nodes = [node("Cast", "w", "f", to=FLOAT), node("Cast", "h", "g", to=FLOAT), node("Sum", "x f g", "y")]
    weights = [
        helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.5, -2.0]),
        constant("h", [0.25, 3], "float16"),
    ]
    proto = make_model(nodes, [value("x", [2])], [value("y", [2])], weights)
    assert op_types(simplified(proto)) == ["Sum"]
    np.testing.assert_array_equal(run_relax(load_model(proto), {"x": np.ones(2, np.float32)})[0], [2.75, 2])


def test_constants_keep_their_names():
    nodes = [
        helper.make_node("Constant", [], ["w"], "w", value=constant("", [1, 2], "float32")),
        node("Neg", "w", "minus_w"),
        node("Mul", "x w", "m"),
        node("Add", "m minus_w", "y"),
    ]
    proto = make_model(nodes, [value("x", [2])], [value("y", [2])])
    assert [c.name for c in simplified(proto).constants()] == ["w", "minus_w"]
