"""Puts ONNX nodes together; knows the type and shape of every tensor, and the value of small constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.evaluate import fold, infer_types
from tvm_ipu.frontends.onnx.graph import Const, Tensor
from tvm_ipu.frontends.tflite.model import Array

OPSET = 21
"""The first in which tensors are quantised to 16 bits."""

MAX_ELEMENTS = 2**31 - 1
FOLD_ELEMENTS = 4096
"""Whole numbers that are computed from constants are folded up to this size: shapes, axes, positions."""


class Builder:
    """The nodes of one model.

    Attributes:
        place: What the nodes that are added next stand for; part of their names.

    Args:
        reserved: Names of the source's tensors, which nothing else is called.
    """

    def __init__(self, reserved: Iterable[str]) -> None:
        self.place = ""
        self._reserved = frozenset(reserved)
        self._nodes: list[NodeProto] = []
        self._values: dict[str, Const | Tensor] = {}
        self._read: set[str] = set()

    # -- tensors --------------------------------------------------------------------------------------

    def input(self, tensor: Tensor) -> None:
        """A tensor that the model is given."""
        self._values[tensor.name] = tensor

    def source_constant(self, name: str, value: Array) -> str:
        """A constant of the source, under its name."""
        self._values[name] = Const(name, value)
        return name

    def constant(self, name: str, value: Any, dtype: str | None = None) -> str:
        """A constant that the source does not have as such."""
        name = self._fresh(name)
        self._values[name] = Const(name, np.asarray(value, dtype))
        return name

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._values

    def value(self, name: str) -> Array | None:
        """A constant's value; None for what is computed."""
        found = self._values[name]
        return found.array if isinstance(found, Const) else None

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        shape = self._values[name].shape
        assert shape is not None
        return shape

    def dtype(self, name: str) -> str:
        """A tensor's element type."""
        return str(helper.tensor_dtype_to_np_dtype(self._values[name].elem_type))

    # -- nodes ----------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; names its results.

        Raises:
            ModelError: Its inputs do not go together, or a result is too large.
        """
        number = len(self._nodes)
        names = [self._fresh(f"{self.place}/{op}" + (f":{i}" if i else "")) for i in range(outputs)]
        node = helper.make_node(op, list(inputs), names, f"{self.place}/{op}#{number}", **attributes)
        values = [self._values[name] if name else None for name in inputs]
        types = infer_types(node, OPSET, values)
        for name, (elem, shape) in zip(names, types, strict=True):
            if shape is None or elem == 0:
                raise ModelError(
                    f"{self.place}: the shape of a result depends on data, which images do not allow"
                )
            if math.prod(shape) > MAX_ELEMENTS:
                raise ModelError(f"{self.place}: a result of shape {list(shape)} is too large")
            self._values[name] = Tensor(name, elem, shape)
        if not self._folded(node, values):
            self._nodes.append(node)
            self._read.update(inputs)
        return names

    def _fresh(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._values or unique in self._reserved:
            count += 1
            unique = f"{name}#{count}"
        return unique

    def _folded(self, node: NodeProto, values: Sequence[Const | Tensor | None]) -> bool:
        """Compute a node on whole numbers now where it can be."""
        constants = [v for v in values if v is None or isinstance(v, Const)]
        results = [self._values[name] for name in node.output]
        sizes = [math.prod(v.shape or ()) for v in [*constants, *results] if v is not None]
        whole = all(v.elem_type in _WHOLE for v in results)
        if len(constants) < len(values) or max(sizes) > FOLD_ELEMENTS or not whole:
            return False
        arrays = fold(node, OPSET, constants, [(v.elem_type, v.shape) for v in results])
        if arrays is None:
            return False
        for name, array in zip(node.output, arrays, strict=True):
            self._values[name] = Const(name, array)
        return True

    def name_result(self, found: str, wanted: str) -> None:
        """Call a tensor by the name that it has in the source."""
        last = next((node for node in reversed(self._nodes) if found in node.output), None)
        value = self._values[found]
        if isinstance(value, Const):
            self._values[wanted] = Const(wanted, value.array)
        elif last is None or found in self._read:
            self._nodes.append(helper.make_node("Identity", [found], [wanted], f"{wanted}/Identity"))
            self._read.add(found)
            self._values[wanted] = Tensor(wanted, value.elem_type, value.shape)
        else:
            place = list(last.output).index(found)
            last.output[place] = wanted
            del self._values[found]
            self._values[wanted] = Tensor(wanted, value.elem_type, value.shape)

    # -- the model ------------------------------------------------------------------------------------

    def model(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
        """All of it; constants that nothing reads are left out."""
        self._read.update(outputs)
        used = [v for v in self._values.values() if isinstance(v, Const) and v.name in self._read]
        shown = {*inputs, *outputs}
        made = [n for node in self._nodes for n in node.output if n not in shown]
        graph = helper.make_graph(
            self._nodes,
            name,
            [self._info(n) for n in inputs],
            [self._info(n) for n in outputs],
            [numpy_helper.from_array(np.asarray(c.array, order="C"), c.name) for c in used],
            value_info=[self._info(n) for n in made],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        version = helper.find_min_ir_version_for(opsets)
        return helper.make_model(graph, producer_name="tvm_ipu", opset_imports=opsets, ir_version=version)

    def _info(self, name: str) -> Any:
        value = self._values[name]
        return helper.make_tensor_value_info(name, value.elem_type, value.shape)


_WHOLE = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})
