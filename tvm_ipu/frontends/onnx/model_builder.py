"""An ONNX model written node by node, with the shapes and types of its tensors known at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.evaluate import infer_types
from tvm_ipu.frontends.onnx.graph import Array, Const, Tensor, unique_name

OPSET = 21
"""Opset of the models: that of plain graphs, so that nothing is converted twice."""


class ModelBuilder:
    """Collects inputs, nodes and outputs.

    Attributes:
        name: Name of the graph.
        location: Where in the source the nodes that are added come from; their names begin with it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.location = "model"
        self._nodes: list[Any] = []
        self._values: dict[str, Const | Tensor] = {}
        self._inputs: list[Tensor] = []
        self._outputs: list[str] = []
        self._reserved: set[str] = set()
        self._node_names: set[str] = set()
        self._renamed: dict[str, str] = {}

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._values

    def input(self, name: str, elem_type: int, dims: tuple[int, ...]) -> str:
        """Declare an input of the model; an open dimension is -1."""
        tensor = Tensor(name, elem_type, dims)
        self._inputs.append(tensor)
        self._reserved.add(name)
        self._values[name] = tensor if -1 not in dims else Tensor(name, elem_type, None)
        return name

    def output(self, name: str) -> None:
        """Make a tensor an output of the model."""
        self._outputs.append(name)

    def constant(self, array: Array, name: str = "") -> str:
        """A constant tensor; gives its name."""
        name = unique_name(name or f"{self.location}/constant", self._reserved)
        self._values[name] = Const(name, np.asarray(array))
        return name

    def add(self, op_type: str, *inputs: str | Array | None, **attributes: Any) -> str:
        """Append a node of one output, and give that tensor's name.

        Args:
            op_type: Operator of ONNX's own domain.
            inputs: Names of tensors, arrays that become constants, or None where one is left out.
            attributes: Of the node.

        Raises:
            ModelError: The inputs' types or shapes do not go together.
        """
        return self.add_many(op_type, *inputs, count=1, **attributes)[0]

    def add_many(self, op_type: str, *inputs: str | Array | None, count: int, **attributes: Any) -> list[str]:
        """As ``add``, for a node of ``count`` outputs."""
        names = ["" if i is None else i if isinstance(i, str) else self.constant(i) for i in inputs]
        name = unique_name(self.location, self._node_names)
        outputs: list[str] = []
        for _ in range(count):
            outputs.append(unique_name(f"{self.location}/{op_type}", self._reserved))
        node = helper.make_node(op_type, names, outputs, name, **attributes)
        values = [self._values[n] if n else None for n in names]
        known = all(v is None or v.elem_type for v in values)
        types = infer_types(node, OPSET, values) if known else [(0, None)] * count
        for output, (elem_type, shape) in zip(outputs, types, strict=True):
            self._values[output] = Tensor(output, elem_type, shape)
        self._nodes.append(node)
        return outputs

    def foreign(
        self, op_type: str, inputs: Sequence[str], results: Sequence[tuple[int, tuple[int, ...]]], domain: str
    ) -> list[str]:
        """Append a node for what ONNX has no operator for; the loader refuses all such nodes at once.

        Args:
            op_type: What the source calls it.
            inputs: Tensors that it reads.
            results: Element type and shape of each tensor that it makes.
            domain: Of the source.
        """
        outputs = [unique_name(f"{self.location}/{op_type}", self._reserved) for _ in results]
        name = unique_name(self.location, self._node_names)
        self._nodes.append(helper.make_node(op_type, inputs, outputs, name, domain=domain))
        self._values |= {o: Tensor(o, *result) for o, result in zip(outputs, results, strict=True)}
        return outputs

    def rename(self, old: str, new: str) -> str:
        """Give a tensor that a node makes another name."""
        value = self._values.pop(old)
        self._values[new] = Tensor(new, value.elem_type, value.shape)
        self._renamed[old] = new
        self._reserved.add(new)
        return new

    def shape(self, name: str) -> tuple[int, ...]:
        """The static shape of a tensor.

        Raises:
            ModelError: It is not known before the model runs.
        """
        shape = self._values[name].shape
        if shape is None:
            raise ModelError(f"'{self.location}': the shape of '{name}' is not known before the model runs")
        return shape

    def elem_type(self, name: str) -> int:
        """The element type of a tensor as ``TensorProto.DataType``."""
        return self._values[name].elem_type

    def value(self, name: str) -> Array | None:
        """The value of a constant, None for other tensors."""
        found = self._values.get(name)
        return found.array if isinstance(found, Const) else None

    def model(self, producer: str = "tvm_ipu") -> ModelProto:
        """The model, with the constants that its nodes use."""
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [self._renamed.get(name, name) for name in names]
        self._renamed.clear()
        used = dict.fromkeys(name for node in self._nodes for name in node.input)
        used |= dict.fromkeys(self._outputs)
        weights = [_initializer(v) for v in (self._values.get(n) for n in used) if isinstance(v, Const)]
        inputs = [
            helper.make_tensor_value_info(t.name, t.elem_type, _dims(t.name, t.shape or ()))
            for t in self._inputs
        ]
        outputs = [self._output_info(name) for name in self._outputs]
        graph = helper.make_graph(self._nodes, self.name or "model", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", OPSET)]
        version = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, producer_name=producer, opset_imports=opsets, ir_version=version)

    def _output_info(self, name: str) -> Any:
        value = self._values[name]
        return helper.make_tensor_value_info(name, value.elem_type or TensorProto.FLOAT, value.shape)


def _dims(name: str, shape: Sequence[int]) -> list[int | str]:
    return [f"{name}_{i}" if dim < 0 else dim for i, dim in enumerate(shape)]


def _initializer(constant: Const) -> TensorProto:
    return numpy_helper.from_array(constant.array, constant.name)
