"""A graph of fixed shapes at another batch size.

Shapes that were folded into constants hold the old batch: the targets of Reshape and Expand, which are
changed, and constants that were computed for every element of a batch, which cannot be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.graph import Graph, Node
from tvm_ipu.base.tensor import TensorSpec

SHAPED = ("Reshape", "Expand")
"""Operators whose second input is the shape of their result."""


def rebatch(graph: Graph, batch: int) -> Graph:
    """The same network for another number of elements, stacked in the first dimension of inputs and outputs.

    Args:
        graph: Its inputs have one first dimension in common.
        batch: First dimension of the inputs wanted.

    Raises:
        ModelError: Inputs have no common first dimension, or the network joins elements of a batch.
    """
    old = {spec.shape[0] if spec.shape else 0 for spec in graph.inputs}
    if len(old) != 1 or 0 in old:
        raise ModelError(
            f"--batch: the inputs of '{graph.name}' have no common first dimension "
            f"({', '.join(map(str, graph.inputs))})",
            "leave --batch out",
        )
    (before,) = old
    if batch == before:
        return graph
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        if node.op_type in SHAPED and not node.domain:
            node = _reshaped(graph, node, before, batch, constants)
        nodes.append(node)
    return replace(
        graph,
        nodes=tuple(nodes),
        constants=constants,
        inputs=tuple(replace(spec, shape=(batch, *spec.shape[1:])) for spec in graph.inputs),
        outputs=tuple(_scaled(spec, before, batch, graph.name) for spec in graph.outputs),
        tensors={},
    )


def _reshaped(graph: Graph, node: Node, before: int, batch: int, constants: dict[str, np.ndarray]) -> Node:
    """A Reshape or Expand whose constant shape begins with the batch, for the new one."""
    shape = graph.constants.get(node.inputs[1])
    source = graph.spec(node.inputs[0])
    if shape is None or source is None or node.inputs[0] in graph.constants or not shape.size:
        return node
    if not source.shape or source.shape[0] % before or int(shape[0]) % before or int(shape[0]) <= 0:
        return node
    target = shape.copy()
    target[0] = int(shape[0]) // before * batch
    name = f"{node.inputs[1]}/{node.name}/batch{batch}"
    constants[name] = target
    return replace(node, inputs=(node.inputs[0], name, *node.inputs[2:]))


def _scaled(spec: TensorSpec, before: int, batch: int, name: str) -> TensorSpec:
    if not spec.shape or spec.shape[0] % before:
        raise ModelError(
            f"--batch: output {spec} of '{name}' does not begin with the batch",
            "leave --batch out, or choose other outputs",
        )
    return replace(spec, shape=(spec.shape[0] // before * batch, *spec.shape[1:]))
