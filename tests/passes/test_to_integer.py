"""Quantised networks become integer kernels that agree with onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from scripts.node_suite import compile_image
from tvm_ipu.runtime.session import Session

SHAPE = (1, 3, 32, 32)


class _Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._samples = iter([{"x": random.normal(size=SHAPE).astype(np.float32)} for _ in range(8)])

    def get_next(self):
        return next(self._samples, None)


def network() -> onnx.ModelProto:
    """A small network with every kind of layer that has an integer form."""
    random = np.random.default_rng(1)
    weights = [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0), ("high", 6))]

    def weight(name: str, *shape: int) -> str:
        values = random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(op: str, inputs: list[str], output: str, **attrs):
        return helper.make_node(op, inputs, [output], output, **attrs)

    pads = [1, 1, 1, 1]
    nodes = [
        node("Conv", ["x", weight("w1", 16, 3, 3, 3), weight("b1", 16)], "conv", pads=pads, strides=[2, 2]),
        node("Relu", ["conv"], "relu"),
        node("MaxPool", ["relu"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=pads),
        node("Conv", ["pool", weight("w2", 16, 1, 3, 3), weight("b2", 16)], "depthwise", pads=pads, group=16),
        node("Clip", ["depthwise", "low", "high"], "relu6"),
        node("Conv", ["relu6", weight("w3", 16, 16, 1, 1), weight("b3", 16)], "pointwise"),
        node("Add", ["pointwise", "pool"], "residual"),
        node("Conv", ["residual", weight("w4", 24, 8, 3, 3), weight("b4", 24)], "groups", pads=pads, group=2),
        node("Sigmoid", ["groups"], "gate"),
        node("Mul", ["groups", "gate"], "swish"),
        node("Concat", ["swish", "residual"], "concat", axis=1),
        node("AveragePool", ["concat"], "average", kernel_shape=[3, 3], pads=pads),
        node("GlobalAveragePool", ["average"], "mean"),
        node("Flatten", ["mean"], "flat"),
        node("Gemm", ["flat", weight("w5", 10, 40), weight("b5", 10)], "y", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, "network", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("form", "activations", "weights"),
    [
        ("QDQ", "QUInt8", "QInt8"),
        ("QDQ", "QInt8", "QInt8"),
        ("QOperator", "QUInt8", "QInt8"),
        ("QOperator", "QUInt8", "QUInt8"),
        ("QDQ", "QInt16", "QInt16"),
        ("QDQ", "QUInt16", "QInt8"),
    ],
)
def test_network_runs_on_integers(tmp_path: Path, form: str, activations: str, weights: str):
    source, quantised = tmp_path / "float.onnx", tmp_path / "quantised.onnx"
    model = network()
    model.opset_import[0].version = 21 if "16" in activations else 17
    onnx.save(model, source)
    quantize_static(
        source,
        quantised,
        _Calibration(),
        quant_format=QuantFormat[form],
        activation_type=QuantType[activations],
        weight_type=QuantType[weights],
        per_channel=weights != "QUInt8",
    )
    model = onnx.load(quantised)
    scales = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    step = float(scales["y_scale"])
    x = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = onnxruntime.InferenceSession(str(quantised), options).run(None, {"x": x})[0]
    for target in ("host",) if "16" in activations else ("host", "ipu-ref"):
        with Session(compile_image(model, {}, target)) as session:
            result = session.run({"x": x})["y"]
            assert session.metadata["float_layers"] == []
            bits = ["16" if "16" in kind else "8" for kind in (activations, weights)]
            bits[1] = "16" if weights == "QUInt8" else bits[1]  # less their zero point they need more than 8
            assert {line.partition(": ")[2] for line in session.metadata["bits"]} == {" x ".join(bits)}
        assert np.abs(result - expected).max() < 1.5 * step
        assert np.unique(np.rint(result / step)).size > 5
