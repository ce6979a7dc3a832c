"""Where a network's tensors are quantised.

A *place* is a tensor that is rounded to a grid of its own. Between places lie parts that the integer kernels
compute without rounding: a product with its bias and activation, a sum and its ReLU, a formula of one tensor
such as ``x * sigmoid(x)``. Operators that only move numbers keep their input's grid.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from tvm_ipu.base.graph import Graph, Node
from tvm_ipu.base.tensor import DType
from tvm_ipu.quantize.operators import (
    BINARY,
    CLIPS,
    COMPARISONS,
    PRODUCTS,
    REGIONS,
    UNARY,
    is_move,
    weight_axis,
    weight_of,
)

TRANSFORMER_FLOAT = frozenset({"LayerNormalization", "RMSNormalization", "Softmax", "SkipLayerNormalization"})
"""Operators that 8 bits break in transformers; what only they read stays float with them."""


@dataclass(frozen=True)
class Places:
    """What of a graph is quantised.

    Attributes:
        tensors: Activations with a grid of their own, in order of execution; quantised constants among them.
        follows: Tensors that operators move, and the place whose grid they are on.
        joins: For each concatenation's result that is a place: the places among its operands.
        only_joined: Places that nothing but one concatenation reads.
        roots: Places that are functions of sums, and the sums: 16 bits ask for a place there too.
        weights: Weights of products, and the axis of their output channels (None: one scale for all).
        products: For each weight: the place that the first product that reads it multiplies, and the node.
        float_nodes: Nodes that compute in float, and read tensors before they are rounded.
        float_outputs: Outputs of the network that are read before they are rounded.
    """

    tensors: tuple[str, ...]
    follows: dict[str, str]
    joins: dict[str, tuple[str, ...]]
    only_joined: frozenset[str]
    roots: dict[str, str]
    weights: dict[str, int | None]
    products: dict[str, tuple[str, Node]]
    float_nodes: frozenset[str] = frozenset()
    float_outputs: frozenset[str] = frozenset()

    def place(self, name: str) -> str:
        """The place whose grid a tensor is on; empty where it is not quantised."""
        name = self.follows.get(name, name)
        return name if name in self.tensors else ""

    def kept_float(self, graph: Graph) -> frozenset[str]:
        """Tensors that something reads before they are rounded, places among them."""
        nodes = (node for node in graph.nodes if node.name in self.float_nodes)
        return self.float_outputs.union(*(node.inputs for node in nodes))

    def with_roots(self, names: Collection[str]) -> Places:
        """The same with the sums, of which some places are functions, as places before them."""
        tensors: list[str] = []
        for name in self.tensors:
            if name in names and name in self.roots and self.roots[name] not in tensors:
                tensors.append(self.roots[name])
            tensors.append(name)
        return replace(self, tensors=tuple(tensors))


class _Kind(Enum):
    """What a tensor is, as far as it matters for the operators that read it."""

    SUM = "sum"  # a product, with constants added and multiplied
    TOTAL = "total"  # an addition or another form that a clip may follow
    FUNCTION = "function"  # a formula of one tensor
    MOVED = "moved"
    OTHER = "other"


def find_places(graph: Graph, float_operators: Collection[str] = frozenset(), outputs: bool = True) -> Places:
    """Choose the tensors to be quantised.

    Args:
        graph: A float network.
        float_operators: Operators that stay float, with what is computed for them only.
        outputs: Whether what is computed for the network's outputs only is quantised too.
    """
    return _Finder(graph, frozenset(float_operators), outputs).find()


class _Finder:
    def __init__(self, graph: Graph, float_operators: frozenset[str], outputs: bool) -> None:
        self._graph = graph
        self._readers = graph.readers()
        self._made = graph.producer()
        self._order = {node.name: at for at, node in enumerate(graph.nodes)}
        self._float = float_operators
        self._outputs = {spec.name for spec in graph.outputs}
        self._keep_outputs = outputs
        self._real = self._real_tensors()
        self._wanted: dict[str, bool] = {}
        self._roots: dict[str, str] = {}
        self._kinds: dict[str, _Kind] = {}

    def find(self) -> Places:
        for node in reversed(self._graph.nodes):
            for name in node.outputs:
                self._wanted[name] = self._is_wanted(name)
        for spec in self._graph.inputs:
            self._wanted[spec.name] = self._is_wanted(spec.name)
            self._kinds[spec.name] = _Kind.OTHER
        for node in self._graph.nodes:
            for name in node.outputs:
                self._kinds[name] = self._kind(node, name)
        places = [s.name for s in self._graph.inputs if s.name in self._real and self._wanted[s.name]]
        follows: dict[str, str] = {}
        for node in self._graph.nodes:
            places += [name for name in self._constants(node) if name not in places]
            for name in node.outputs:
                if not name or name not in self._real or not self._wanted[name]:
                    continue
                source = follows.get(node.inputs[0], node.inputs[0]) if node.inputs else ""
                if self._kinds[name] is _Kind.MOVED and source in places:
                    follows[name] = source
                elif not self._is_inside(name):
                    places.append(name)
        return self._with_weights(places, follows)

    def _with_weights(self, places: list[str], follows: dict[str, str]) -> Places:
        weights: dict[str, int | None] = {}
        products: dict[str, tuple[str, Node]] = {}
        known = {*places, *follows}
        for node in self._graph.nodes:
            name = weight_of(node, self._graph)
            if name and name in self._real and node.inputs[0] in known and name not in known:
                axis = weight_axis(node, self._graph)
                weights[name] = axis if weights.get(name, axis) == axis else None
                products.setdefault(name, (follows.get(node.inputs[0], node.inputs[0]), node))
        joins = {}
        for node in self._graph.nodes:
            if node.op_type == "Concat" and node.outputs[0] in places:
                operands = dict.fromkeys(follows.get(name, name) for name in node.inputs)
                joins[node.outputs[0]] = tuple(name for name in operands if name in places)
        alone = frozenset(name for name in places if self._is_only_joined(name))
        return Places(
            tuple(places),
            follows,
            joins,
            alone,
            self._sums_below(places),
            weights,
            products,
            frozenset(node.name for node in self._graph.nodes if self._is_float(node)),
            frozenset() if self._keep_outputs else frozenset(self._outputs),
        )

    def _sums_below(self, places: list[str]) -> dict[str, str]:
        """The sum that each place is a function of, other than a clip."""
        found = {}
        for name in places:
            root = self._roots.get(name, "")
            if self._kinds.get(name) is _Kind.SUM:
                continue
            if root not in places and self._kinds.get(root) is _Kind.SUM and not self._is_clip_of(name, root):
                found[name] = root
        return found

    def _is_clip_of(self, name: str, root: str) -> bool:
        node = self._made[name]
        return name == root or (node.op_type in CLIPS and self._is_clip_of(node.inputs[0], root))

    def _is_only_joined(self, name: str) -> bool:
        """Whether one concatenation reads a tensor, possibly through moves, and nothing else does."""
        readers = self._readers.get(name, [])
        if len(readers) != 1 or name in self._outputs:
            return False
        return readers[0].op_type == "Concat" or (
            is_move(readers[0]) and self._is_only_joined(readers[0].outputs[0])
        )

    # -- which tensors are worth quantising ---------------------------------------------------------------

    def _real_tensors(self) -> set[str]:
        """Names of float32 tensors and constants."""
        specs = [*self._graph.inputs, *self._graph.tensors.values()]
        names = {spec.name for spec in specs if spec.dtype is DType.FLOAT32}
        return names | {name for name, value in self._graph.constants.items() if value.dtype == np.float32}

    def _is_wanted(self, name: str) -> bool:
        """Whether an operator on integers reads a tensor."""
        if name in self._outputs and self._keep_outputs:
            return True
        return any(self._wants(node, name) for node in self._readers.get(name, []))

    def _wants(self, node: Node, name: str) -> bool:
        if node.op_type in self._float:
            return False
        if node.op_type in REGIONS and name != node.inputs[0]:
            return False
        if node.op_type in PRODUCTS and name in node.inputs[:2]:
            return True
        if node.op_type in COMPARISONS:
            return bool(self._readers.get(node.outputs[0]))
        return any(self._wanted.get(output, False) for output in node.outputs)

    def _is_float(self, node: Node) -> bool:
        """Whether a node reads float tensors only."""
        return node.op_type in self._float or not any(self._wants(node, name) for name in node.inputs)

    def _constants(self, node: Node) -> list[str]:
        """Constants whose elements a node moves."""
        names = node.inputs if node.op_type == "Concat" else node.inputs[:1] if is_move(node) else ()
        found = [name for name in names if name in self._graph.constants and name in self._real]
        return [] if self._is_float(node) else found

    # -- what the integer kernels compute in one go ---------------------------------------------------------

    def _kind(self, node: Node, name: str) -> _Kind:
        if self._is_float(node):
            return _Kind.OTHER
        if self._is_sum_with_constant(node):
            root = self._root_of(node)
            if root:  # x / sqrt(2) of a GELU: a sum as good as x, and a function of it
                self._roots[name] = root
            return _Kind.SUM
        if node.op_type in PRODUCTS:
            return _Kind.SUM
        if is_move(node):
            return _Kind.MOVED
        if node.op_type in CLIPS and self._kinds.get(node.inputs[0]) is _Kind.TOTAL:
            return _Kind.TOTAL
        if node.op_type in UNARY or node.op_type in BINARY:
            root = self._root_of(node)
            if root:
                self._roots[name] = root
                return _Kind.FUNCTION
        if node.op_type in ("Add", "Mul", "AveragePool", "GlobalAveragePool", "ReduceMean", "Concat"):
            return _Kind.TOTAL
        return _Kind.OTHER

    def _root_of(self, node: Node) -> str:
        """The tensor that a node's result is a function of, through other such nodes; empty for several."""
        tensors = [name for name in node.inputs if name and not self._is_scalar(name)]
        roots = {self._roots.get(name, name) for name in tensors}
        return roots.pop() if len(roots) == 1 and not roots & set(self._graph.constants) else ""

    def _is_scalar(self, name: str) -> bool:
        return name in self._graph.constants and self._graph.constants[name].size == 1

    def _is_sum_with_constant(self, node: Node) -> bool:
        """Whether a node adds constants to a product, or multiplies it by them."""
        if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
            return False
        a, b = node.inputs
        if self._kinds.get(a) is not _Kind.SUM and node.op_type in ("Add", "Mul"):
            a, b = b, a
        spec, result = self._graph.spec(a), self._graph.spec(node.outputs[0])
        same = spec is not None and result is not None and spec.shape == result.shape
        return self._kinds.get(a) is _Kind.SUM and b in self._graph.constants and same

    def _is_inside(self, name: str) -> bool:
        """Whether everything that reads a tensor computes it without rounding it first."""
        readers = self._readers.get(name, [])
        if name in self._outputs or not readers:
            return False
        return all(self._absorbs(node, name, len(readers) == 1) for node in readers)

    def _absorbs(self, node: Node, name: str, alone: bool) -> bool:
        kind = self._kinds[name]
        if kind is _Kind.SUM and self._is_sum_with_constant(node) and node.inputs[0] != node.inputs[1]:
            return True
        root = self._roots.get(node.outputs[0], "")
        if kind in (_Kind.SUM, _Kind.FUNCTION) and root and root == self._roots.get(name, name):
            return True
        if not alone:
            return False
        if kind is _Kind.TOTAL and node.op_type in CLIPS:
            return True
        if node.op_type != "Add" or self._kinds[node.outputs[0]] is not _Kind.TOTAL:
            return False
        if kind is _Kind.TOTAL:
            return self._made[name].op_type == "Add"
        return kind is _Kind.SUM and name == self._latest_sum(node)

    def _latest_sum(self, node: Node) -> str:
        """The operand of an addition that is computed last of those that are sums."""
        sums = [i for i in node.inputs if self._kinds.get(i) is _Kind.SUM and len(self._readers[i]) == 1]
        return max(sums, key=lambda name: self._order[self._made[name].name], default="")
