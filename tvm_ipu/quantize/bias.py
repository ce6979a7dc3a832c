"""Biases that make up for the mean error of rounded weights (bias correction)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tvm_ipu.base.graph import Array, Graph, Node
from tvm_ipu.quantize.operators import bias_of, weight_of


def with_biases(graph: Graph) -> Graph:
    """The network with a bias in every convolution and dense layer, zeros where it had none."""
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        if node.op_type in ("Conv", "Gemm") and len(node.inputs) == 2 and weight_of(node, graph):
            name = f"{node.name}/bias"
            spec = graph.spec(node.outputs[0])
            channels = spec.shape[1] if spec else graph.constants[node.inputs[1]].shape[0]
            constants[name] = np.zeros(channels, np.float32)
            node = replace(node, inputs=(*node.inputs, name))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def corrected(graph: Graph, products: Mapping[str, Node], errors: Mapping[str, Array]) -> dict[str, Array]:
    """New biases by name.

    Args:
        graph: The network.
        products: The product that each weight is for.
        errors: For each weight: the mean error of the product's result in each output channel.
    """
    readers = graph.readers()
    found = {}
    for weight, error in errors.items():
        if len(readers[weight]) > 1:  # one correction cannot suit several products
            continue
        name = _bias(graph, products[weight], readers)
        if name and len(readers[name]) == 1 and graph.constants[name].size == error.size:
            bias = graph.constants[name]
            found[name] = (bias.reshape(-1) - error).reshape(bias.shape).astype(np.float32)
    return found


def _bias(graph: Graph, node: Node, readers: Mapping[str, list[Node]]) -> str:
    """The constant that a product, or the addition right behind it, adds to each channel."""
    own = bias_of(node, graph)
    after = readers.get(node.outputs[0], [])
    if own or len(after) != 1 or after[0].op_type != "Add":
        return own
    return next((name for name in after[0].inputs if name in graph.constants), "")
