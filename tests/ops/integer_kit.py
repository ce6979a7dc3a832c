"""Quantised graphs of independent layers, run by an image and compared with what each layer should give."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from scripts.node_suite import compile_image
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import Target, load_target
from tvm_ipu.frontends.loaders import load_model
from tvm_ipu.passes.pipeline import run_phases
from tvm_ipu.quantize import reference as ref
from tvm_ipu.quantize.reference import Meaning, Operand
from tvm_ipu.runtime.build import build_runner
from tvm_ipu.runtime.session import Session
from tvm_ipu.simulate.interpreter import Interpreter

Array = np.ndarray


class Layer(Protocol):
    """One layer, or several that share an input."""

    def add(self, g: Graph) -> None:
        """Put the layer into a graph, with what it should give."""


@dataclass(frozen=True)
class Result:
    """An output.

    Attributes:
        name: In the model.
        dtype: Its type.
        expected: What it should be, bit for bit; None where nothing is known of it.
        layer: What it is the result of, for messages.
    """

    name: str
    dtype: str
    expected: Array | None
    layer: str


def combined(op: str, left: Operand, right: Operand, result: Meaning, family: str) -> Array:
    """What the oracle makes of two tensors by Add, Sub, Mul or Concat (of their channels)."""
    if op == "Mul":
        return ref.multiply(left, right, result, family)
    if op == "Concat":
        return np.concatenate([ref.rescale(o, result, family) for o in (left, right)], 1)
    if op == "Sub":
        right = replace(right, meaning=replace(right.meaning, scale=-right.meaning.scale))
    return ref.add([left, right], result, family)


class Graph:
    """Collects nodes; tensors are called by the names that its methods return.

    Attributes:
        family: Family of numerics that results are expected in.
        feeds: Integers of the inputs.
    """

    def __init__(self, family: str = "float-requant") -> None:
        self.family = family
        self.feeds: dict[str, Array] = {}
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._results: list[Result] = []
        self._layer = ""

    def add(self, layer: Layer) -> None:
        """A layer; messages about its outputs show it."""
        self._layer = repr(layer)
        layer.add(self)

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
        return self.op("DequantizeLinear", [self.whole(values), *self._parameters(meaning)])

    def whole(self, values: Array) -> str:
        """An input as it is, such as one of whole numbers."""
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

    def weight_of_4_bits(self, values: Array, scale: Any, axis: int = 0) -> str:
        """The numbers of a constant of type int4."""
        name = f"c{len(self._constants)}"
        packed = helper.make_tensor(name, TensorProto.INT4, values.shape, values.ravel())
        return self.weight(packed, scale, axis=axis)

    def result(self, real: str, meaning: Meaning, expected: Array | None = None) -> None:
        """An output of integers, which ``check`` compares with what is expected."""
        name = self.op("QuantizeLinear", [real, *self._parameters(meaning)])
        self._results.append(Result(name, meaning.dtype, expected, self._layer))

    def output(self, name: str, expected: Array) -> None:
        """An output as it is."""
        self._results.append(Result(name, expected.dtype.name, expected, self._layer))

    def _parameters(self, meaning: Meaning) -> list[str]:
        zero = np.asarray(meaning.zero, meaning.dtype)
        return [self.constant(np.float32(meaning.scale)), self.constant(zero)]

    def model(self) -> ModelProto:
        """All layers as one model."""
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in self.feeds.items()
        ]
        outputs = [
            helper.make_tensor_value_info(r.name, helper.np_dtype_to_tensor_dtype(np.dtype(r.dtype)), None)
            for r in self._results
        ]
        graph = helper.make_graph(self._nodes, "layers", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)

    def run(self, target: str | Target = "host", float_layers: bool = False, threads: int = 1) -> list[Array]:
        """Outputs of the graph's image; without ``float_layers`` all of it must have become integers."""
        model = self.model()
        with Session(compile_image(model, {}, target), threads=threads) as session:
            assert bool(session.metadata["float_layers"]) == float_layers, session.metadata["float_layers"]
            results = session.run(self.feeds)
        if not float_layers:
            simulated = simulate(model, target, self.feeds)
            for name, found in results.items():
                assert found.tobytes() == simulated[name].tobytes(), f"{name}: simulator and image differ"
        return [results[r.name] for r in self._results]

    def run_emulated(
        self, target: Target, emulator: Sequence[str], folder: Path, threads: int = 1
    ) -> list[Array]:
        """Expected outputs as ``ipu-run`` of the target gives them under an emulator."""
        image, files = folder / "layers.img", [folder / f"{name}.bin" for name in self.feeds]
        image.write_bytes(compile_image(self.model(), {}, target))
        for path, x in zip(files, self.feeds.values(), strict=True):
            path.write_bytes(x.tobytes())
        options = ["--threads", threads, "--output", folder, "--inputs", *files]
        command = [*emulator, *map(str, [build_runner(target), image, *options])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode} {done.stderr}"
        expected = [r.expected for r in self._results if r.expected is not None]
        return [
            np.fromfile(folder / f"output_{i}.bin", y.dtype).reshape(y.shape) for i, y in enumerate(expected)
        ]

    def compare(self, results: Sequence[Array]) -> None:
        """Fail where outputs are not what they should be, and say which layers are wrong."""
        wrong = []
        for result, got in zip(self._results, results, strict=True):
            expected = result.expected
            assert expected is not None
            assert (got.shape, got.dtype) == (expected.shape, expected.dtype), result.layer
            if got.tobytes() != expected.tobytes():
                places = np.argwhere(got != expected)
                at = tuple(int(i) for i in places[0])
                wrong.append(
                    f"{result.name} of {result.layer}: {len(places)} of {got.size} differ, "
                    f"at {at} {got[at]} instead of {expected[at]}"
                )
        assert not wrong, "\n".join(wrong)


def simulate(model: Any, target: str | Target, feeds: dict[str, Array]) -> dict[str, Array]:
    """Outputs of the fixed simulator."""
    loaded = load_model(model)
    chip = load_target(target) if isinstance(target, str) else target
    module = run_phases(loaded.module, chip, CompileOptions(), last="integer")
    return Interpreter(loaded.with_module(module)).run(feeds)
