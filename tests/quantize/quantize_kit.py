"""Networks as plain graphs, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tvm_ipu.base.graph import Graph
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph

Array = NDArray[Any]


def run(graph: Graph) -> Callable[[dict[str, Array]], dict[str, Array]]:
    """The graph as a function of its inputs, by onnxruntime without its optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph_to_onnx(graph), options)
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, feed), strict=True))


def make_graph(nodes: list[tuple[Any, ...]], constants: dict[str, Any], inputs: dict, outputs: dict) -> Graph:
    """A graph of nodes ``(operator, inputs, output, attributes)``; shapes of inputs and outputs by name."""
    protos = [
        helper.make_node(op, list(names), [output], f"{output}_node", **(rest[0] if rest else {}))
        for op, names, output, *rest in nodes
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    ]
    graph = helper.make_graph(protos, "network", *sides, weights)
    return load_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def sqnr(expected: Array, found: Array) -> float:
    """Signal to noise in decibels."""
    noise = np.square(expected.astype(np.float64) - found).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(noise, 1e-30)))
