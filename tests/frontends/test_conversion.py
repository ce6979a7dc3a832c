"""``convert_model``: what its arguments mean, and what its result is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import tvm_ipu
from tests.unit.frontend_kit import constant, make_model, network, node, value
from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.conversion import _inputs, example_shapes
from tvm_ipu.quantization import Dataset, compile_model, quantize, serialize

X = np.random.default_rng(3).normal(0, 1, (2, 3, 5, 5)).astype(np.float32)


def expected(x: np.ndarray, name: str = "y") -> np.ndarray:
    session = onnxruntime.InferenceSession(network().SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([name], {"x": x})[0]


def shape_of(model: onnx.ModelProto, name: str) -> list[int | str]:
    (info,) = [info for info in model.graph.input if info.name == name]
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in info.type.tensor_type.shape.dim]


@pytest.mark.parametrize(
    ("given", "shapes", "types"),
    [
        ([("ids", [1, -1], np.int64), ("mask", (1, -1), "bool")], {"ids": (1, -1), "mask": (1, -1)}, None),
        ([("ids", np.int64)], {}, {"ids": "int64"}),
        ([([1, 3], np.float32), ([2], "int8")], [(1, 3), (2,)], ("float32", "int8")),
        ([[1, 3], (2, None)], [(1, 3), (2, -1)], ()),
        ([1, 3, 8, 8], [(1, 3, 8, 8)], ()),
        (("x", [1, 2]), {"x": (1, 2)}, {}),
        ({"x": [1, 2]}, {"x": (1, 2)}, {}),
        ([("x", np.dtype("float16")), ("y", np.bool_)], {}, {"x": "float16", "y": "bool"}),
    ],
)
def test_inputs(given: Any, shapes: Any, types: Any) -> None:
    found = _inputs(given)
    assert found == (shapes, {"ids": "int64", "mask": "bool"} if types is None else types)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([("x", [1, -2])], "below -1"),
        ([("x", [1, "n"])], "is not a shape"),
        ([("x", [1], "quaternion")], "unknown element type 'quaternion'"),
        ([("x", [1]), ("x", [1])], "or with the same"),
        ([("x", [1]), ([1],)], "without a name"),
        ([([1],), ("float32",)], "inputs without a name"),
        (3, "input is a int"),
        ([3.5], "does not describe an input"),
    ],
)
def test_wrong_inputs(given: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        tvm_ipu.convert_model(network(), input=given)


def test_input_and_input_shape_exclude_each_other() -> None:
    with pytest.raises(OptionError, match="input or input_shape, not both"):
        tvm_ipu.convert_model(network(), input=[[1, 3, 5, 5]], input_shape=[1, 3, 5, 5])


@pytest.mark.parametrize(
    "given",
    [
        {"input_shape": [2, 3, 5, 5]},
        {"input_shape": {"x": [2, 3, 5, 5]}},
        {"input_shape": "x:[2,3,5,5]"},
        {"input": [("x", [2, 3, 5, 5], np.float32)]},
        {"example_input": X},
        {"example_input": {"x": X}},
        {"example_input": [X]},
    ],
)
def test_shapes_become_the_models_own(given: dict[str, Any]) -> None:
    original = network()
    model = tvm_ipu.convert_model(original, **given)
    assert shape_of(model, "x") == [2, 3, 5, 5]
    assert original == network()


def test_shapes_of_examples() -> None:
    assert example_shapes({"a": X, "b": 1, "c": "text"}) == {"a": X.shape, "b": ()}
    assert example_shapes((X, 2.0)) == [X.shape, ()]
    assert example_shapes([X, "text"]) == []


def test_open_dimensions_are_fixed_when_the_model_is_compiled() -> None:
    model = tvm_ipu.convert_model(network(), input=[("x", [-1, 3, 5, 5], np.float32)])
    assert shape_of(model, "x")[1:] == [3, 5, 5]
    with pytest.raises(ModelError, match="dynamic dimensions: x"):
        compile_model(model)
    with compile_model(model, input_shapes=["x:[2,3,5,5]"]) as run:
        found = run({"x": X})
        np.testing.assert_allclose(found["y"], expected(X), rtol=1e-4, atol=1e-6)
        assert np.array_equal(found[0], found["y"])


def test_open_dimensions_are_those_of_the_first_sample() -> None:
    model = tvm_ipu.convert_model(network(), input_shape=[-1, 3, 5, 5])
    fixed = quantize(model, Dataset([X, X + 0.1]), quant_level="L1")
    with compile_model(fixed) as run:
        found = run(X)["y"]
    assert np.abs(found - expected(X)).max() < 0.1


def test_a_model_is_cut_at_tensors(tmp_path: Path) -> None:
    model = tvm_ipu.convert_model(network(), input_shape=[2, 3, 5, 5], output_arrays=["n"])
    assert [info.name for info in model.graph.output] == ["n"]
    assert {tensor.name for tensor in model.graph.initializer} == {"w", "b", "scale", "bias", "mean", "var"}
    onnx.checker.check_model(model)
    serialize(model, tmp_path / "cut.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "cut.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": X})[0].shape == (2, 4, 5, 5)


def test_files(tmp_path: Path) -> None:
    """External data are read into the model, and a float stage is made of it."""
    weights = [constant("w", range(4096), "float32")]
    made = make_model([node("Add", "x w", "y")], [value("x", [4096])], [value("y", [4096])], weights)
    path = tmp_path / "model.onnx"
    onnx.save_model(made, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = tvm_ipu.convert_model(str(path))
    (tmp_path / "weights.bin").unlink()
    assert np.array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), np.arange(4096.0))
    serialize(model, tmp_path / "model.sim")
    with compile_model(tmp_path / "model.sim") as run:
        assert np.array_equal(run(np.ones(4096, np.float32))["y"], np.arange(4096.0) + 1)


def test_wrong_shapes() -> None:
    with pytest.raises(OptionError, match="there is no input 'z'"):
        tvm_ipu.convert_model(network(), input_shape={"z": [1, 3, 5, 5]})
    with pytest.raises(OptionError, match="input 'x' has 4 dimensions, 2 are given"):
        tvm_ipu.convert_model(network(), input_shape=[1, 3])


def test_unknown_object() -> None:
    with pytest.raises(ModelError, match=r"no loader for objects of type builtins\.int"):
        tvm_ipu.convert_model(3)
