"""``convert``: an optimised ONNX model that onnxruntime runs with the same results."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.unit.frontend_kit import FLOAT, INT64, constant, make_model, network, node, run_onnx, value
from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.onnx import write
from tvm_ipu.frontends.onnx.convert import convert


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.onnx"
    onnx.save(network(), path)
    return path


def converted(source, tmp_path, *args):
    path = tmp_path / "out.onnx"
    convert(source, path, LoadOptions({"x": (2, 3, 5, 5)}), *args)
    onnx.checker.check_model(path, full_check=True)
    return path


def assert_same_results(source, path, tolerance):
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 5)).astype(np.float32)
    expected = run_onnx(source, {"x": x}, ["y", "z"])
    for got, want in zip(run_onnx(path, {"x": x}, ["y", "z"]), expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


def test_optimised(source, tmp_path):
    path = converted(source, tmp_path)
    model = onnx.load(path)
    kinds = [n.op_type for n in model.graph.node]
    assert kinds == ["Conv", "Clip", "Reshape", "LayerNormalization", "Softmax", "ReduceSum"]
    dims = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert dims == {"x": [2, 3, 5, 5]}
    assert [o.name for o in model.graph.output] == ["y", "z"]
    assert model.opset_import[0].version == 17
    assert_same_results(source, path, 1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("version", [11, 12, 13, 16, 18, 22])
def test_opset(source, tmp_path, version, precision):
    path = converted(source, tmp_path, precision, version)
    assert onnx.load(path).opset_import[0].version == version
    assert_same_results(source, path, 1e-6 if precision == "fp32" else 4e-3)


def test_fp16_keeps_inputs_and_outputs(source, tmp_path):
    path = converted(source, tmp_path, "fp16")
    model = onnx.load(path)
    weights = {t.name: t.data_type for t in model.graph.initializer}
    assert TensorProto.FLOAT16 in weights.values()
    assert FLOAT not in [weights[n.input[1]] for n in model.graph.node if n.op_type == "Conv"]
    kinds = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    assert kinds == {"x": FLOAT, "y": FLOAT, "z": FLOAT}
    assert_same_results(source, path, 4e-3)


def test_fp16_leaves_small_epsilons_and_large_masks_sound(tmp_path):
    """1e-12 would be 0 in float16, -1e9 would be minus infinity."""
    nodes = [
        node("Mul", "x x", "square"),
        node("Add", "square epsilon", "safe"),
        node("Log", "safe", "l"),
        node("Mul", "mask huge", "m"),
        node("Add", "l m", "y"),
    ]
    weights = [constant("epsilon", 1e-12, "float32"), constant("huge", -1e9, "float32")]
    proto = make_model(nodes, [value("x", [4]), value("mask", [4])], [value("y", [4])], weights)
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(proto, path)
    convert(path, out, None, "fp16")
    feeds = {"x": np.array([0, 1e-5, 1, 3], np.float32), "mask": np.zeros(4, np.float32)}
    (got,), (want,) = run_onnx(out, feeds, ["y"]), run_onnx(path, feeds, ["y"])
    np.testing.assert_allclose(got, want, rtol=5e-3)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_batch_normalization_in_transposed_convolution(tmp_path, groups, bias):
    rng = np.random.default_rng(2)
    nodes = [
        node("ConvTranspose", "x w b" if bias else "x w", "c", strides=[2, 2], group=groups),
        node("BatchNormalization", "c scale shift mean var", "y"),
    ]
    channels = 3 * groups
    parts = {"scale": 1.0, "shift": 0.0, "mean": 0.0, "var": 2.0, "b": 0.0}
    weights = [constant(n, rng.uniform(0.1, 1, channels) + v, "float32") for n, v in parts.items()]
    weights.append(constant("w", rng.normal(0, 1, (4, 3, 2, 2)), "float32"))
    proto = make_model(nodes, [value("x", [1, 4, 3, 3])], [value("y", None)], weights)
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(proto, path)
    convert(path, out)
    assert [n.op_type for n in onnx.load(out).graph.node] == ["ConvTranspose"]
    feeds = {"x": rng.standard_normal((1, 4, 3, 3)).astype(np.float32)}
    np.testing.assert_allclose(run_onnx(out, feeds, ["y"])[0], run_onnx(path, feeds, ["y"])[0], atol=1e-5)


def test_a_convolution_that_others_read_keeps_its_batch_normalization(tmp_path):
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c one one one one", "n"),
        node("Add", "c n", "y"),
    ]
    weights = [constant("w", np.ones((1, 1, 1, 1)), "float32"), constant("one", [1], "float32")]
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(make_model(nodes, [value("x", [1, 1, 2, 2])], [value("y", None)], weights), path)
    convert(path, out)
    assert [n.op_type for n in onnx.load(out).graph.node] == ["Conv", "BatchNormalization", "Add"]


def test_old_opset_is_converted_up(tmp_path):
    proto = make_model([node("Add", "x x", "y")], [value("x", [3])], [value("y", [3])], opset=6)
    proto.ir_version = 3
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(proto, path)
    convert(path, out, None, "fp32", 13)
    np.testing.assert_array_equal(run_onnx(out, {"x": np.float32([-1, 0, 2])}, ["y"])[0], [-2, 0, 4])


def test_nodes_that_an_opset_cannot_express_are_all_listed(tmp_path):
    nodes = [node("ScatterElements", "x i x", "a", reduction="max"), node("GridSample", "p q", "b")]
    inputs = [
        value("x", [2, 2]),
        value("i", [2, 2], INT64),
        value("p", [1, 1, 2, 2]),
        value("q", [1, 2, 2, 2]),
    ]
    path = tmp_path / "in.onnx"
    onnx.save(make_model(nodes, inputs, [value("a", None), value("b", None)], opset=18), path)
    with pytest.raises(ModelError) as error:
        convert(path, tmp_path / "out.onnx", None, "fp32", 11)
    assert "ScatterElements 'ScatterElements:a': attribute 'reduction' is max" in str(error.value)
    assert "GridSample 'GridSample:b': the opset does not have the operator" in str(error.value)
    assert not (tmp_path / "out.onnx").exists()


def test_outputs_that_are_inputs_or_twice_the_same(tmp_path):
    nodes = [
        node("Identity", "x", "same"),
        node("Relu", "x", "r"),
        node("Identity", "r", "a"),
        node("Identity", "r", "b"),
    ]
    outputs = [value(name, [2]) for name in ("same", "a", "b", "r")]
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(make_model(nodes, [value("x", [2])], outputs), path)
    convert(path, out)
    x = np.float32([-1, 2])
    results = run_onnx(out, {"x": x}, ["same", "a", "b", "r"])
    np.testing.assert_array_equal(results, [x, [0, 2], [0, 2], [0, 2]])


def test_large_models_get_external_data(source, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "INLINE_LIMIT", 400)
    monkeypatch.setattr(write, "SMALL", 64)
    path = converted(source, tmp_path)
    assert (tmp_path / "out.onnx.data").stat().st_size > 400
    assert path.stat().st_size < source.stat().st_size
    assert_same_results(source, path, 1e-6)
    assert onnxruntime.InferenceSession(path).get_inputs()[0].shape == [2, 3, 5, 5]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("int8",), "--precision: 'int8' is not allowed"),
        (("fp32", 6), "--convert-version: 6 is not allowed"),
        (("fp32", 999), "--convert-version: 999 is not allowed"),
    ],
)
def test_bad_options(source, tmp_path, args, message):
    with pytest.raises(OptionError, match=message):
        converted(source, tmp_path, *args)


def test_output_folder_that_does_not_exist(source, tmp_path):
    with pytest.raises(ModelError, match="cannot write"):
        convert(source, tmp_path / "no" / "out.onnx", LoadOptions({"x": (1, 3, 5, 5)}))


def test_missing_shapes(source, tmp_path):
    with pytest.raises(ModelError, match="dynamic dimensions"):
        convert(source, tmp_path / "out.onnx")
