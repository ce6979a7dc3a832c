"""Partial evaluation of control flow: If, Loop, Scan, sequences and functions become plain graphs."""

import onnx
import pytest
from onnx import helper

from tests.unit.frontend_kit import (
    BOOL,
    FLOAT,
    INT64,
    check_against_onnxruntime,
    constant,
    make_model,
    node,
    op_types,
    simplified,
    value,
)
from tvm_ipu.base.errors import ModelError, UnsupportedOperatorError
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.frontends.onnx.importer import supports


def graph_of(nodes, inputs, outputs, weights=(), name="body"):
    return helper.make_graph(list(nodes), name, list(inputs), list(outputs), list(weights))


def branches():
    """x + 1 or x * 2."""
    one, two = constant("one", 1, "float32"), constant("two", 2, "float32")
    then = graph_of([node("Add", "x one", "p")], [], [value("p", [3])], [one], "then")
    other = graph_of([node("Mul", "x two", "p")], [], [value("p", [3])], [two], "else")
    return {"then_branch": then, "else_branch": other}


@pytest.mark.parametrize(("condition", "left"), [(True, "Add"), (False, "Mul")])
def test_if_with_known_condition(condition, left):
    nodes = [node("If", "c", "y", **branches())]
    proto = make_model(nodes, [value("x", [3])], [value("y", [3])], [constant("c", condition)])
    assert op_types(simplified(proto)) == [left]
    check_against_onnxruntime(proto)


def test_if_on_a_shape():
    """The condition of a dynamic model becomes known with its shapes."""
    nodes = [
        node("Size", "x", "size"),
        node("Equal", "size three", "c"),
        node("If", "c", "y", **branches()),
    ]
    proto = make_model(nodes, [value("x", ["N"])], [value("y", [3])], [constant("three", 3)])
    assert op_types(simplified(proto, LoadOptions({"x": (3,)}))) == ["Add"]


def test_if_on_data_computes_both():
    proto = make_model(
        [node("If", "c", "y", **branches())], [value("c", [], BOOL), value("x", [3])], [value("y", [3])]
    )
    assert sorted(op_types(simplified(proto))) == ["Add", "Mul", "Where"]
    for seed in range(4):
        check_against_onnxruntime(proto, seed=seed)


def test_nested_if_and_same_names_inside():
    inner = branches()
    then = graph_of([node("If", "d", "p", **inner)], [], [value("p", [3])], name="outer then")
    other = graph_of([node("Neg", "x", "p")], [], [value("p", [3])], name="outer else")
    proto = make_model(
        [node("If", "c", "a", then_branch=then, else_branch=other), node("If", "d", "b", **inner)],
        [value("c", [], BOOL), value("d", [], BOOL), value("x", [3])],
        [value("a", [3]), value("b", [3])],
    )
    for seed in range(6):
        check_against_onnxruntime(proto, seed=seed)


def loop_body():
    """s, keep_going = s * x + i, True; scan output: s."""
    nodes = [
        node("Cast", "i", "fi", to=FLOAT),
        node("Mul", "s x", "sx"),
        node("Add", "sx fi", "s_out"),
        node("Identity", "s_out", "scan"),
        node("Identity", "c", "c_out"),
    ]
    inputs = [value("i", [], INT64), value("c", [], BOOL), value("s", [3])]
    outputs = [value("c_out", [], BOOL), value("s_out", [3]), value("scan", [3])]
    return graph_of(nodes, inputs, outputs)


def loop_model(trips, **kwargs):
    weights = [constant("trips", trips)] if trips is not None else []
    inputs = [value("x", [3]), value("s0", [3])] + ([value("trips", [], INT64)] if trips is None else [])
    nodes = [helper.make_node("Loop", ["trips", "", "s0"], ["s", "all"], "loop", body=loop_body())]
    return make_model(nodes, inputs, [value("s", [3]), value("all", ["T", 3])], weights)


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_loop_is_unrolled(trips):
    model = check_against_onnxruntime(loop_model(trips))
    assert model.outputs[1].shape == (trips, 3)


def test_loop_names_its_iterations():
    names = [op.node.name for op in simplified(loop_model(2)).ops]
    assert "loop/0/Mul:sx" in names
    assert "loop/1/Add:s_out" in names
    assert len(set(names)) == len(names)


def test_loop_with_condition_that_ends():
    """while i < 3."""
    body = graph_of(
        [node("Add", "s x", "s_out"), node("Less", "i two", "c_out")],
        [value("i", [], INT64), value("c", [], BOOL), value("s", [3])],
        [value("c_out", [], BOOL), value("s_out", [3])],
        [constant("two", 2)],
    )
    nodes = [helper.make_node("Loop", ["", "", "s0"], ["s"], "loop", body=body)]
    proto = make_model(nodes, [value("x", [3]), value("s0", [3])], [value("s", [3])])
    assert op_types(simplified(proto)) == ["Add"] * 3
    check_against_onnxruntime(proto)


def test_loop_on_data_is_refused():
    with pytest.raises(UnsupportedOperatorError, match="Loop 'loop': its trip count depends on data"):
        load_model(loop_model(None))


def test_endless_loop_is_refused():
    with pytest.raises(UnsupportedOperatorError, match="it runs more than 1024 times"):
        load_model(loop_model(2**40))


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("opset", [9, 17])
def test_scan(backwards, opset):
    """Running sum along axis 1, also stacked along axis 1."""
    body = graph_of(
        [node("Add", "s e", "s_out"), node("Identity", "s_out", "scan")],
        [value("s", [2]), value("e", [2])],
        [value("s_out", [2]), value("scan", [2])],
    )
    scan = node(
        "Scan",
        "s0 x",
        "last all",
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
        scan_input_directions=[backwards],
        scan_output_directions=[backwards],
    )
    proto = make_model(
        [scan],
        [value("s0", [2]), value("x", [2, 4])],
        [value("last", [2]), value("all", [2, 4])],
        opset=opset,
    )
    check_against_onnxruntime(proto)


def test_sequences():
    nodes = [
        node("SplitToSequence", "x", "parts", axis=1, keepdims=1),
        node("SequenceEmpty", "", "none"),
        node("SequenceAt", "parts last", "p"),
        node("SequenceErase", "parts zero", "fewer"),
        node("SequenceInsert", "fewer p zero", "more"),
        node("SequenceLength", "more", "n"),
        node("ConcatFromSequence", "more", "y", axis=1),
        node("ConcatFromSequence", "parts", "z", axis=0, new_axis=1),
    ]
    weights = [constant("last", -1), constant("zero", 0)]
    outputs = [value("y", [2, 3]), value("z", [3, 2, 1]), value("n", [], INT64)]
    check_against_onnxruntime(make_model(nodes, [value("x", [2, 3])], outputs, weights))


@pytest.mark.parametrize("split", [2, [1, 4]])
def test_split_to_sequence_of_known_sizes(split):
    nodes = [node("SplitToSequence", "x split", "parts", axis=0), node("SequenceAt", "parts one", "y")]
    weights = [constant("split", split), constant("one", 1)]
    check_against_onnxruntime(make_model(nodes, [value("x", [5, 2])], [value("y", None)], weights))


def test_sequence_output_is_refused():
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [2]))
    proto = make_model(
        [node("SequenceConstruct", "x x", "y")], [value("x", [2])], [helper.make_value_info("y", kind)]
    )
    with pytest.raises(ModelError, match="output 'y' is a sequence"):
        load_model(proto)


def scaled(domain="own"):
    """Function (x) -> x * factor + 1 with an attribute."""
    one = helper.make_node("Constant", [], ["one"], value_float=1.0)
    factor = helper.make_node("Constant", [], ["factor"])
    reference = factor.attribute.add(name="value_float", type=onnx.AttributeProto.FLOAT)
    reference.ref_attr_name = "by"
    nodes = [one, factor, node("Mul", "x factor", "m"), node("Add", "m one", "y")]
    return helper.make_function(
        domain, "Scaled", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)], attributes=["by"]
    )


def test_model_functions():
    nodes = [
        helper.make_node("Scaled", ["x"], ["a"], "first", domain="own", by=2.0),
        helper.make_node("Scaled", ["a"], ["y"], "second", domain="own", by=3.0),
    ]
    proto = make_model(nodes, [value("x", [3])], [value("y", [3])], functions=[scaled()], domains=["own"])
    assert [op.node.name for op in simplified(proto).ops] == [
        "first/Mul:m",
        "first/Add:y",
        "second/Mul:m",
        "second/Add:y",
    ]
    check_against_onnxruntime(proto)


@pytest.mark.parametrize(
    ("op_type", "opset", "attrs"),
    [
        ("Mish", 18, {}),
        ("LayerNormalization", 17, {"axis": -1}),
        ("Selu", 18, {"gamma": 2.0}),
        ("Celu", 17, {"alpha": 0.5}),
        ("MeanVarianceNormalization", 13, {"axes": [1]}),
        ("Softmax", 13, {"axis": 1}),
        ("Shrink", 18, {"lambd": 0.2}),
    ],
)
def test_function_bodies_stand_in_for_operators(op_type, opset, attrs):
    """With no converter for it, the operator is computed by ONNX's own definition."""
    inputs = "x w" if op_type == "LayerNormalization" else "x"
    proto = make_model(
        [node(op_type, inputs, "y", **attrs)],
        [value("x", [2, 3])],
        [value("y", [2, 3])],
        [constant("w", [1, 2, 3], "float32")],
        opset=opset,
    )
    graph = simplified(proto, keep=lambda domain, name: name != op_type and supports(domain, name))
    assert op_type not in op_types(graph)
    assert op_types(graph)
    check_against_onnxruntime(proto)
