"""Other runtimes: they compute the model, and what they lack is one clear error."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tvm_ipu.base.errors import OptionError, ToolError
from tvm_ipu.bench.compare import Contender, compare, difference
from tvm_ipu.bench.peers import open_peer


@pytest.fixture
def model(tmp_path):
    shape = ["batch", 3]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"]), helper.make_node("Sub", ["y", "x"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("y", "z")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_peer_computes_the_model(name, model):
    pytest.importorskip(name)
    x = np.array([[1.0, 2.0, 3.0]], np.float32)
    outputs = open_peer(name, model, {"x": x}, threads=1).run()
    assert [output.tolist() for output in outputs] == [[[1.0, 4.0, 9.0]], [[0.0, 2.0, 6.0]]]


def test_unknown_peer_names_those_that_exist(model):
    with pytest.raises(OptionError, match=r"unknown runtime 'tensorrt'.*onnxruntime, openvino"):
        open_peer("tensorrt", model, {}, threads=1)


def test_missing_package_says_how_to_get_it(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ToolError, match="pip install openvino"):
        open_peer("openvino", model, {}, threads=1)


def test_input_that_the_image_lacks(model):
    with pytest.raises(ToolError, match="input 'x' that the image lacks"):
        open_peer("onnxruntime", model, {"data": np.zeros(3)}, threads=1)


def test_damaged_model_is_a_tool_error(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ToolError, match="does not take"):
        open_peer("onnxruntime", path, {}, threads=1)


def test_comparison_is_relative_to_the_first():
    outputs = {"a": [np.array([1.0, -4.0])], "b": [np.array([1.0, -3.0])]}
    contenders = [Contender(name, "1", lambda name=name: outputs[name]) for name in "ab"]
    first, second = compare(contenders, repeat=2, warmup=0)
    assert (first.ratio, first.difference) == (1.0, 0.0)
    assert second.ratio == second.timing.median / first.timing.median
    assert second.difference == 0.25


def test_outputs_of_other_shapes_differ_infinitely():
    assert difference([np.zeros(3)], [np.zeros(2)]) == float("inf")
