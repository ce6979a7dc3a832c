"""The Relax module that the importer hands on, and what it says about nodes it cannot convert."""

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.unit.frontend_kit import (
    check_against_onnxruntime,
    constant,
    make_model,
    node,
    run_onnx,
    run_relax,
    value,
)
from tvm_ipu.base.errors import UnsupportedOperatorError
from tvm_ipu.frontends.loaders import load_model
from tvm_ipu.frontends.onnx import importer
from tvm_ipu.frontends.onnx.builder import NodeBuilder
from tvm_ipu.frontends.onnx.context import CONVERTERS, UnsupportedNode, converter


def bindings(model):
    return model.module["main"].body.blocks[0].bindings


def test_form_of_the_module():
    nodes = [node("Conv", "data:0 w", "c"), node("Relu", "c", "y")]
    weights = [constant("w", np.ones((4, 3, 1, 1)), "float32")]
    model = load_model(make_model(nodes, [value("data:0", [1, 3, 5, 5])], [value("y", None)], weights))
    main = model.module["main"]
    assert relax.analysis.well_formed(model.module) is not False
    assert [str(spec) for spec in model.inputs] == ["data:0: float32[1,3,5,5]"]
    assert [str(spec) for spec in model.outputs] == ["y: float32[1,4,5,5]"]
    assert len(main.params) == 1
    assert isinstance(main.ret_ty, relax.TupleType)
    assert len(main.body.blocks) == 1
    assert isinstance(main.body.blocks[0], relax.DataflowBlock)


def test_bindings_bear_the_names_of_nodes():
    nodes = [node("Relu", "x", "a/b:0"), node("Gemm", "a/b:0 w c", "y", alpha=0.5)]
    nodes[0].name = ""
    weights = [constant("w", np.ones((3, 2)), "float32"), constant("c", [1, 2], "float32")]
    model = load_model(make_model(nodes, [value("x", [2, 3])], [value("y", None)], weights))
    assert {b.var.name for b in bindings(model)[:-1]} == {"a/b:0", "Gemm:y"}


def test_nested_calls_are_bound_once_under_one_name():
    builder = NodeBuilder()
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            builder.hint = "node"
            shared = relax.op.exp(x)
            total = builder.emit(relax.op.add(shared, relax.op.multiply(shared, shared)))
            result = builder.emit_output(relax.Tuple([total]))
        builder.emit_func_output(result)
    names = [b.var.name for b in builder.get()["main"].body.blocks[0].bindings]
    assert names[:-1] == ["node"] * 3


def test_all_unsupported_nodes_are_listed_at_once():
    nodes = [
        node("Foo", "x", "a"),
        node("Relu", "a", "b"),
        node("Bar", "b", "c"),
        node("NonZero", "x", "d"),
    ]
    outputs = [value("c", [2]), value("d", [1, None], 7)]
    with pytest.raises(UnsupportedOperatorError) as error:
        load_model(make_model(nodes, [value("x", [2])], outputs))
    assert error.value.message.startswith("3 nodes of the model cannot be compiled:")
    for line in ("Foo 'Foo:a': no converter", "Bar 'Bar:c': no converter", "NonZero 'NonZero:d': "):
        assert f"\n  {line}" in error.value.message


def test_a_custom_domain_is_named():
    foo = node("Foo", "x", "y")
    foo.domain = "acme"
    proto = make_model([foo], [value("x", [2])], [value("y", [2])], domains=["acme"])
    with pytest.raises(UnsupportedOperatorError, match=r"acme\.Foo 'Foo:y': no converter"):
        load_model(proto)


@pytest.fixture
def own_relu(monkeypatch):
    """Registers a converter for Relu in place of the real one."""

    def register(fn):
        monkeypatch.delitem(CONVERTERS, ("", "Relu"), raising=False)
        monkeypatch.setitem(CONVERTERS, ("", "Relu"), fn)

    return register


RELU = make_model([node("Relu", "x", "y")], [value("x", [2])], [value("y", [2])], opset=18)


def test_a_converter_s_error_becomes_the_reason(own_relu):
    def broken(ctx, node):
        return relax.op.add(node.inputs[0], ctx.const(np.zeros(5, np.float32)))

    own_relu(broken)
    nodes = [node("Relu", "x", "y")]
    with pytest.raises(UnsupportedOperatorError, match="Relu 'Relu:y': "):
        load_model(make_model(nodes, [value("x", [2])], [value("y", [2])], opset=17))


def test_a_refusal_falls_back_to_the_function_body(own_relu):
    def refuse(ctx, node):
        raise UnsupportedNode("not today")

    own_relu(refuse)
    x = np.array([-1, 2], np.float32)
    np.testing.assert_array_equal(run_relax(load_model(RELU), {"x": x})[0], [0, 2])


@pytest.mark.parametrize(
    "result", [lambda x: relax.op.astype(x, "float64"), lambda x: relax.op.expand_dims(x, 0)]
)
def test_results_are_checked_against_onnx(own_relu, result):
    own_relu(lambda ctx, node: result(node.inputs[0]))
    proto = make_model([node("Relu", "x", "y")], [value("x", [2])], [value("y", [2])], opset=13)
    with pytest.raises(UnsupportedOperatorError, match=r"its converter gives .* where ONNX says float32"):
        load_model(proto)


def test_two_converters_for_one_operator_are_a_mistake():
    with pytest.raises(ValueError, match="two converters for own::Twice"):

        @converter("Twice", "Twice", domain="own")
        def twice(ctx, node):
            return node.inputs[0]

    CONVERTERS.pop(("own", "Twice"))


def test_context(own_relu):
    seen = {}

    def look(ctx, node):
        weight = ctx.const(np.arange(3))
        seen["value"] = ctx.value(weight)
        seen["no value"] = ctx.value(node.inputs[0])
        seen["shape"], seen["dtype"] = ctx.shape(node.inputs[0]), ctx.dtype(weight)
        seen["missing"] = node.input(4)
        with pytest.raises(UnsupportedNode, match="input 'k' must be a constant"):
            ctx.require_value(node, 0, "k")
        seen["sum"] = ctx.te(lambda a, k: tvm.topi.add(a, k), node.inputs[0], 1.0, name="plus")
        return seen["sum"]

    own_relu(look)
    np.testing.assert_array_equal(run_relax(load_model(RELU), {"x": np.zeros(2, np.float32)})[0], [1, 1])
    np.testing.assert_array_equal(seen["value"], [0, 1, 2])
    assert (seen["no value"], seen["shape"], seen["dtype"]) == (None, (2,), "int64")
    assert seen["missing"] is None


def test_node_of_a_converter(own_relu):
    nodes = []
    own_relu(lambda ctx, node: nodes.append(node) or relax.op.nn.relu(node.inputs[0]))
    load_model(RELU)
    (seen,) = nodes
    assert (seen.op_type, seen.domain, seen.name, seen.since) == ("Relu", "", "Relu:y", 18)
    assert seen.outputs == ("y",)
    assert seen.attrs == {}


def test_supports():
    assert importer.supports("", "Conv")
    assert not importer.supports("", "NoSuchOperator")
    assert not importer.supports("acme", "Conv")


OLD_FORMS = {
    "Squeeze": (node("Squeeze", "x", "y", axes=[0]), (1, 2, 6), 11),
    "Unsqueeze": (node("Unsqueeze", "x", "y", axes=[1, -1]), (2, 6), 11),
    "ReduceSum": (node("ReduceSum", "x", "y", axes=[1], keepdims=0), (2, 3, 4), 11),
    "ReduceMean": (node("ReduceMean", "x", "y", axes=[-1]), (2, 3, 4), 13),
    "Split": (node("Split", "x", "y z", axis=1, split=[1, 5]), (2, 6), 11),
    "Split halves": (node("Split", "x", "y z", axis=1), (2, 6), 13),
    "Clip": (node("Clip", "x", "y", min=-0.5, max=0.25), (2, 6), 7),
    "Pad": (node("Pad", "x", "y", pads=[0, 1, 2, 0], value=3.0), (2, 6), 7),
    "Slice": (node("Slice", "x", "y", axes=[1], starts=[1], ends=[-1]), (2, 6), 9),
    "TopK": (node("TopK", "x", "y z", axis=1, k=3), (2, 6), 9),
    "Softmax": (node("Softmax", "x", "y", axis=1), (2, 3, 4), 11),
    "Softmax default": (node("Softmax", "x", "y"), (2, 3, 4), 11),
    "LogSoftmax": (node("LogSoftmax", "x", "y", axis=2), (2, 3, 4), 11),
    "Dropout": (node("Dropout", "x", "y", ratio=0.3), (2, 6), 7),
    "Upsample": (node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 3.0]), (1, 2, 3, 4), 7),
    "AveragePool": (node("AveragePool", "x", "y", kernel_shape=[2, 2]), (1, 2, 5, 5), 7),
    "Gemm": (node("Gemm", "x x x", "y", transB=1), (4, 4), 7),
    "Flatten": (node("Flatten", "x", "y", axis=2), (2, 3, 4), 7),
    "Reshape": (node("Reshape", "x s", "y"), (2, 3, 4), 7),
    "MatMul": (node("MatMul", "x x", "y"), (3, 4, 4), 7),
    "Add": (node("Add", "x x", "y"), (2, 3), 7),
    "Cast": (node("Cast", "x", "y", to=7), (2, 3), 7),
    "LeakyRelu": (node("LeakyRelu", "x", "y"), (2, 3), 7),
}


@pytest.mark.parametrize("case", OLD_FORMS)
def test_old_forms_of_operators(case):
    """Attributes that have since become inputs, and meanings that have changed."""
    old, shape, opset = OLD_FORMS[case]
    outputs = [
        value(name, None, 7 if (case, name) in (("TopK", "z"), ("Cast", "y")) else 1) for name in old.output
    ]
    weights = [constant("s", [0, -1])] if case == "Reshape" else []
    check_against_onnxruntime(make_model([old], [value("x", shape)], outputs, weights, opset=opset))


def test_old_batch_normalization():
    weights = [
        constant(n, v, "float32") for n, v in zip("sbmv", ([1, 2], [0, 1], [1, 1], [2, 3]), strict=True)
    ]
    nodes = [node("BatchNormalization", "x s b m v", "y", epsilon=0.1)]
    proto = make_model(nodes, [value("x", [1, 2, 3, 3])], [value("y", None)], weights, opset=7)
    check_against_onnxruntime(proto)


def test_shapes_that_onnx_does_not_know():
    """ONNX has no definition of com.microsoft's operators: what follows takes its shapes from Relax."""
    gelu = node("FastGelu", "x", "g")
    gelu.domain = "com.microsoft"
    nodes = [
        gelu,
        node("Shape", "g", "shape"),
        node("Gather", "shape zero", "n"),
        node("Unsqueeze", "n zeros", "n1"),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "g target", "y"),
    ]
    weights = [constant("zero", 0), constant("zeros", [0]), constant("rest", [-1])]
    proto = make_model(
        nodes, [value("x", [2, 3, 4])], [value("y", [2, 12])], weights, domains=["com.microsoft"]
    )
    model = load_model(proto)
    assert [str(spec) for spec in model.outputs] == ["y: float32[2,12]"]
    feeds = {"x": np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)}
    (got,), (want,) = run_relax(model, feeds), run_onnx(proto, feeds, ["y"])
    np.testing.assert_allclose(got, want, atol=1e-5)
