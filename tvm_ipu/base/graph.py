"""A network as a plain list of operators in ONNX's vocabulary, for stages that know no model format.

Calibration works on it: it reads and changes weights, asks which operator makes and which ones read a
tensor, and inserts ``QuantizeLinear`` and ``DequantizeLinear``. Frontends make it and turn it back into a
model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.tensor import DType, TensorSpec

Array = NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        name: Unique in the graph.
        op_type: ONNX operator, of the standard domain where ``domain`` is empty.
        inputs: Names of tensors or constants; ``""`` is a missing optional.
        outputs: Names of tensors, each made by one node only.
        attributes: Plain values: numbers, strings, lists of them, arrays.
        domain: Operator domain.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True)
class Graph:
    """A network with static shapes and no control flow.

    Attributes:
        name: Of the network.
        nodes: In an order of execution.
        constants: Weights and other constants by name; 4-bit types are those of ``ml_dtypes``.
        inputs: What the caller gives.
        outputs: What the caller gets; every name is a node's output, an input or a constant.
        tensors: Shape and type of every tensor that a node makes, as far as they are known.
        opset: Version of ONNX's standard operators.
        source: Facts about where it came from.
    """

    name: str
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    opset: int = 21
    source: dict[str, object] = field(default_factory=dict)

    def producer(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor or constant, in order."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    found.setdefault(name, []).append(node)
        return found

    def spec(self, name: str) -> TensorSpec | None:
        """Shape and type of a tensor, input or constant; None where they are not known."""
        if name in self.constants:
            array = self.constants[name]
            return None if array.dtype == object else TensorSpec(name, array.shape, _dtype(array))
        return self.tensors.get(name) or next((one for one in self.inputs if one.name == name), None)

    def with_outputs(self, names: Iterable[str]) -> Graph:
        """The same network with other tensors as outputs; nodes that they do not need are left out.

        Raises:
            KeyError: A tensor is not known, or its shape is not.
        """
        specs = []
        for name in names:
            spec = self.spec(name)
            if spec is None:
                raise KeyError(name)
            specs.append(spec)
        needed, nodes = {spec.name for spec in specs}, []
        for node in reversed(self.nodes):
            if needed.intersection(node.outputs):
                needed.update(node.inputs)
                nodes.append(node)
        kept = {name: value for name, value in self.constants.items() if name in needed}
        return replace(self, nodes=tuple(reversed(nodes)), constants=kept, outputs=tuple(specs))


def _dtype(array: Array) -> DType:
    return DType.parse(str(np.dtype(array.dtype)))
