"""A simplified ONNX graph: static shapes, weights as arrays, no control flow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, helper

CHECK = "onnx.checker.check_model says more about a model that is wrong"
"""Advice, in messages."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor whose value is known.

    Attributes:
        name: Unique in the graph.
        array: Its value; types that numpy lacks come from ``ml_dtypes``, strings are objects.
    """

    name: str
    array: Array

    @property
    def elem_type(self) -> int:
        """Element type as ``TensorProto.DataType``."""
        return int(helper.np_dtype_to_tensor_dtype(self.array.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        return self.array.shape


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that is computed when the model runs.

    Attributes:
        name: Unique in the graph.
        elem_type: ``TensorProto.DataType``; 0 where inference could not tell.
        shape: Static dimensions; None where they depend on data or inference could not tell.
    """

    name: str
    elem_type: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class List:
    """An ONNX sequence of known length.

    Attributes:
        items: Its elements.
    """

    items: tuple[Value, ...]


Value = Const | Tensor | List | None
"""What an ONNX name stands for; None is a missing optional."""


@dataclass(frozen=True)
class Op:
    """One node of the simplified graph.

    Attributes:
        node: The node; its inputs and outputs bear the unique names of the values.
        version: Opset version of the node's domain.
        inputs: One value for each input name; None for ``""``.
        outputs: One tensor for each output name; None for ``""``.
        refused: Why simplification could not do what this node needs; empty where it could.
    """

    node: NodeProto
    version: int
    inputs: tuple[Const | Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    refused: str = ""


@dataclass(frozen=True)
class Graph:
    """A simplified model.

    Attributes:
        name: Name of the model's graph.
        inputs: Tensors that the caller gives.
        outputs: The model's own name of each output, and its value.
        ops: Nodes in an order of execution.
        opsets: Opset versions of the model by domain.
        source: Facts about the file for the image's metadata.
        names: The model's own names of tensors that are computed, by those that they have here.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[tuple[str, Const | Tensor], ...]
    ops: tuple[Op, ...]
    opsets: dict[str, int]
    source: dict[str, object] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def constants(self) -> list[Const]:
        """The constants that nodes or outputs use, each once, in order of first use."""
        used: dict[str, Const] = {}
        for value in [v for op in self.ops for v in op.inputs] + [v for _, v in self.outputs]:
            if isinstance(value, Const):
                used.setdefault(value.name, value)
        return list(used.values())


def type_proto(value: Const | Tensor) -> TypeProto:
    """The ONNX type of a tensor; without a shape where that is unknown."""
    return helper.make_tensor_type_proto(value.elem_type, value.shape)


def nbytes(elem_type: int, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor (strings count 8 bytes each)."""
    return math.prod(shape) * int(helper.tensor_dtype_to_np_dtype(elem_type).itemsize)


def dtype_label(elem_type: int) -> str:
    """Name of an element type for messages and for TVM, such as ``float32``."""
    if elem_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return "string" if elem_type else "unknown"
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)))


def unique_name(name: str, taken: set[str]) -> str:
    """``name``, with a number behind it where it is among ``taken``, to which it is added."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}#{number}"
    taken.add(unique)
    return unique


def node_label(node: NodeProto) -> str:
    """The node's name, or its first output's where it has none."""
    label: str = node.name or next((name for name in node.output if name), node.op_type)
    return label


def domain_of(node: NodeProto) -> str:
    """The node's operator domain, ``""`` for the standard one in either spelling."""
    return "" if node.domain == "ai.onnx" else str(node.domain)


def attributes(node: NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values; strings are decoded, tensors stay ``TensorProto``."""
    return {attribute.name: _decode(helper.get_attribute_value(attribute)) for attribute in node.attribute}


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, list | tuple):
        return [_decode(v) for v in value]
    return value


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """Graphs in the node's attributes, such as the branches of an If."""
    return [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
