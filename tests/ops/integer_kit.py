"""Quantised graphs of one layer, run by an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from scripts.node_suite import compile_image
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import load_target
from tvm_ipu.frontends.loaders import load_model
from tvm_ipu.passes.pipeline import run_phases
from tvm_ipu.quantize.reference import Meaning
from tvm_ipu.runtime.session import Session
from tvm_ipu.simulate.interpreter import Interpreter

Array = np.ndarray


class Graph:
    """Collects nodes; tensors are called by the names that its methods return.

    Attributes:
        feeds: Integers of the inputs.
    """

    def __init__(self) -> None:
        self.feeds: dict[str, Array] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._results: list[tuple[str, str]] = []

    def constant(self, value: Any) -> str:
        """A constant of the model."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, op_type: str, inputs: Sequence[str], domain: str = "", **attrs: Any) -> str:
        """The result of a node."""
        name = f"{op_type}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, list(inputs), [name], name, domain=domain, **attrs))
        return name

    def input(self, values: Array, meaning: Meaning) -> str:
        """The numbers of a quantised input."""
        name = f"x{len(self.feeds)}"
        self.feeds[name] = values
        return self.op("DequantizeLinear", [name, *self._parameters(meaning)])

    def whole(self, values: Array) -> str:
        """An input of whole numbers."""
        name = f"x{len(self.feeds)}"
        self.feeds[name] = values
        return name

    def weight(self, values: Array | TensorProto, scale: Any, zero: Any = None, axis: int = 0) -> str:
        """The numbers of a quantised constant."""
        scale = np.asarray(scale, np.float32)
        if isinstance(values, TensorProto):
            self._constants.append(values)
            return self.op("DequantizeLinear", [values.name, self.constant(scale)], axis=axis)
        zero = (
            np.zeros(scale.shape, values.dtype) if zero is None else np.full(scale.shape, zero, values.dtype)
        )
        names = [self.constant(v) for v in (values, scale, zero)]
        return self.op("DequantizeLinear", names, axis=axis)

    def result(self, real: str, meaning: Meaning) -> None:
        """An output of integers."""
        name = self.op("QuantizeLinear", [real, *self._parameters(meaning)])
        self._results.append((name, meaning.dtype))

    def _parameters(self, meaning: Meaning) -> list[str]:
        zero = np.asarray(meaning.zero, meaning.dtype)
        return [self.constant(np.float32(meaning.scale)), self.constant(zero)]

    def run(self, target: str = "host", float_layers: bool = False) -> list[Array]:
        """Outputs of the graph's image; without ``float_layers`` all of it must have become integers."""
        types = {n: helper.np_dtype_to_tensor_dtype(np.dtype(d)) for n, d in self._results}
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in self.feeds.items()
        ]
        outputs = [helper.make_tensor_value_info(n, t, None) for n, t in types.items()]
        graph = helper.make_graph(self._nodes, "layer", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
        with Session(compile_image(model, {}, target)) as session:
            assert bool(session.metadata["float_layers"]) == float_layers, session.metadata["float_layers"]
            results = session.run(self.feeds)
        simulated = simulate(model, target, self.feeds)
        for name, found in results.items():
            if not float_layers:
                assert found.tobytes() == simulated[name].tobytes(), f"{name}: simulator and image differ"
        return [results[name] for name, _ in self._results]


def simulate(model: Any, target: str, feeds: dict[str, Array]) -> dict[str, Array]:
    """Outputs of the fixed simulator."""
    loaded = load_model(model)
    module = run_phases(loaded.module, load_target(target), CompileOptions(), last="integer")
    return Interpreter(loaded.with_module(module)).run(feeds)
