"""Layer normalisation as exporters write it, in a plain graph, so that calibration sees one operator.

m = ReduceMean(x)          d = Sub(x, m)
v = ReduceMean(Pow(d, 2))  n = Div(d, Sqrt(Add(v, eps)))    ->    LayerNormalization(x, gamma, beta)
y = Add(Mul(n, gamma), beta)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tvm_ipu.base.graph import Array, Graph, Node

SMALLEST_EPSILON = 1e-20


def fuse_norms(graph: Graph) -> Graph:
    """The graph with ``LayerNormalization`` in place of its primitive operators.

    Deviations from the mean may be computed once or twice; quotients by ``Div`` or with ``Reciprocal``;
    factors and addends, if any, are constants over the normalised axes.
    """
    nodes = {node.name: node for node in graph.nodes}
    constants = dict(graph.constants)
    finder = _Finder(graph)
    for node in graph.nodes:
        found = finder.find(node)
        if found is not None:
            names = [f"{found.last.outputs[0]}/{what}" for what in ("gamma", "beta")]
            constants |= dict(zip(names, (found.gamma, found.beta), strict=True))
            attributes = {"axis": found.axis, "epsilon": found.epsilon}
            inputs, last = (found.x, *names), found.last
            nodes[last.name] = Node(last.name, "LayerNormalization", inputs, last.outputs, attributes)
    if len(constants) == len(graph.constants):
        return graph
    fused = replace(graph, nodes=tuple(nodes.values()), constants=constants)
    return replace(fused.with_outputs([spec.name for spec in graph.outputs]), outputs=graph.outputs)


def split_norms(graph: Graph) -> Graph:
    """The graph with ``ReduceL2`` as the square root of a sum: both can be quantised."""
    nodes, tensors = [], dict(graph.tensors)
    for node in graph.nodes:
        if node.op_type != "ReduceL2" or node.outputs[0] not in tensors:
            nodes.append(node)
            continue
        name = f"{node.outputs[0]}/squares"
        tensors[name] = replace(tensors[node.outputs[0]], name=name)
        nodes.append(replace(node, name=f"{node.name}/squares", op_type="ReduceSumSquare", outputs=(name,)))
        nodes.append(Node(node.name, "Sqrt", (name,), node.outputs))
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


@dataclass(frozen=True)
class _Norm:
    """A layer normalisation: what it reads and the last of its nodes."""

    x: str
    axis: int
    epsilon: float
    gamma: Array
    beta: Array
    last: Node


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._made = graph.producer()
        self._readers = graph.readers()
        self._outputs = {spec.name for spec in graph.outputs}

    def find(self, node: Node) -> _Norm | None:
        """The normalisation whose quotient a node is."""
        quotient = self._quotient(node)
        if quotient is None:
            return None
        distance, deviation = quotient
        source = self._centred(distance)
        variance = self._variance(deviation)
        if source is None or variance is None or variance[0] != source:
            return None
        (x, axis), epsilon = source, variance[1]
        spec = self._graph.spec(x)
        assert spec is not None
        shape = spec.shape[axis:]
        node, gamma = self._affine(node, "Mul", np.ones(shape, np.float32), len(spec.shape))
        last, beta = self._affine(node, "Add", np.zeros(shape, np.float32), len(spec.shape))
        return _Norm(x, axis, epsilon, gamma, beta, last)

    def _quotient(self, node: Node) -> tuple[str, str] | None:
        """Names of a dividend and a divisor."""
        if node.op_type == "Div":
            return node.inputs[0], node.inputs[1]
        if node.op_type != "Mul":
            return None
        for a, b in (node.inputs, node.inputs[::-1]):
            inverse = self._made.get(b)
            if inverse is None:
                continue
            if inverse.op_type == "Reciprocal":
                return a, inverse.inputs[0]
            if inverse.op_type == "Div" and self._number(inverse.inputs[0]) == 1:
                return a, inverse.inputs[1]
        return None

    def _variance(self, name: str) -> tuple[tuple[str, int], float] | None:
        """For the square root of a variance and a number: what the variance is of, and the number."""
        root = self._made.get(name)
        total = self._made.get(root.inputs[0]) if root is not None and root.op_type == "Sqrt" else None
        if total is None or total.op_type != "Add":
            return None
        for a, b in (total.inputs, total.inputs[::-1]):
            epsilon, mean = self._number(b), self._mean(a)
            if epsilon is None or epsilon < SMALLEST_EPSILON or mean is None:
                continue
            square = self._made.get(mean[0])
            if square is None or not self._is_square(square):
                continue
            source = self._centred(square.inputs[0])
            if source is not None and source[1] == mean[1]:
                return source, epsilon
        return None

    def _is_square(self, node: Node) -> bool:
        if node.op_type == "Pow":
            return self._number(node.inputs[1]) == 2
        return node.op_type == "Mul" and node.inputs[0] == node.inputs[1]

    def _centred(self, name: str) -> tuple[str, int] | None:
        """For a tensor less its own mean: the tensor, and the first of the last axes that are averaged."""
        node = self._made.get(name)
        if node is None or node.op_type != "Sub":
            return None
        mean = self._mean(node.inputs[1])
        return mean if mean is not None and mean[0] == node.inputs[0] else None

    def _mean(self, name: str) -> tuple[str, int] | None:
        """For a mean over the last axes, which are kept: the tensor, and the first of them."""
        node = self._made.get(name)
        if node is None or node.op_type != "ReduceMean" or not int(node.attributes.get("keepdims", 1)):
            return None
        spec, given = self._graph.spec(node.inputs[0]), self._graph.constants.get("".join(node.inputs[1:]))
        if spec is None or given is None:
            return None
        rank = len(spec.shape)
        axes = sorted(int(a) % rank for a in given.ravel())
        return (node.inputs[0], axes[0]) if axes == list(range(rank - len(axes), rank)) and axes else None

    def _affine(self, node: Node, op_type: str, plain: Array, rank: int) -> tuple[Node, Array]:
        """The node behind one, if that multiplies or adds constants over the normalised axes, and these."""
        name = node.outputs[0]
        readers = self._readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type != op_type or name in self._outputs:
            return node, plain
        (other,) = [n for n in readers[0].inputs if n != name] or [""]
        value = self._graph.constants.get(other)
        if (
            value is None
            or value.ndim > rank
            or math.prod(value.shape[: max(value.ndim - plain.ndim, 0)]) != 1
        ):
            return node, plain
        trailing = value.reshape(value.shape[max(value.ndim - plain.ndim, 0) :])
        try:
            return readers[0], np.ascontiguousarray(np.broadcast_to(trailing, plain.shape))
        except ValueError:
            return node, plain

    def _number(self, name: str) -> float | None:
        value = self._graph.constants.get(name)
        return float(value.item()) if value is not None and value.size == 1 else None
