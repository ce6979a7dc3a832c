"""A graph of fixed shapes at another batch size: as many single runs, by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.frontends.onnx.rebatch import rebatch


def model(nodes, inputs, outputs, **constants):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(graph, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(graph_to_onnx(graph), options)
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))


def attention_like():
    """Reshapes to constant shapes that hold the batch, alone and multiplied by something."""
    return model(
        [
            helper.make_node("Reshape", ["x", "heads"], ["a"]),
            helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["b", "flat"], ["c"]),
            helper.make_node("MatMul", ["c", "w"], ["d"]),
            helper.make_node("Reshape", ["d", "back"], ["e"]),
            helper.make_node("Expand", ["e", "wide"], ["f"]),
            helper.make_node("Add", ["f", "row"], ["y"]),
        ],
        {"x": [1, 6, 8]},
        {"y": [1, 2, 6, 4]},
        heads=np.array([1, 6, 2, 4]),
        flat=np.array([12, 4]),
        w=np.eye(4, dtype=np.float32) * 3,
        back=np.array([1, 2, 6, 4]),
        wide=np.array([1, 2, 6, 4]),
        row=np.arange(4, dtype=np.float32),
    )


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_batch_is_as_many_single_runs(batch):
    graph = load_graph(attention_like())
    x = np.random.default_rng(0).random((batch, 6, 8)).astype(np.float32)
    stacked = rebatch(graph, batch)
    assert [spec.shape for spec in stacked.outputs] == [(batch, 2, 6, 4)]
    singles = np.concatenate([run(graph, {"x": x[n : n + 1]})["y"] for n in range(batch)])
    np.testing.assert_array_equal(run(stacked, {"x": x})["y"], singles)


def test_inputs_without_a_batch_are_refused():
    net = model([helper.make_node("MatMul", ["x", "z"], ["y"])], {"x": [1, 4], "z": [4, 3]}, {"y": [1, 3]})
    with pytest.raises(
        ModelError, match=r"no common first dimension \(x: float32\[1,4\], z: float32\[4,3\]\)"
    ):
        rebatch(load_graph(net), 2)


def test_outputs_without_a_batch_are_refused():
    net = model([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], {"x": [1, 4]}, {"y": []})
    with pytest.raises(ModelError, match=r"output y: float32\[\] of 'net' does not begin with the batch"):
        rebatch(load_graph(net), 2)
