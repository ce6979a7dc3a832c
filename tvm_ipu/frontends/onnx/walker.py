"""Partial evaluation of an ONNX graph: one walk in execution order that computes what is already known.

Every ONNX name stands for a ``Value``. A node either disappears, because a rule or the reference
implementation knows its result, or because it is replaced by the nodes of its subgraph or function body; or
it is emitted with the types of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.evaluate import OutputType, fold, infer_types
from tvm_ipu.frontends.onnx.graph import (
    CHECK,
    Array,
    Const,
    List,
    Op,
    Tensor,
    Value,
    attributes,
    domain_of,
    node_label,
    subgraphs,
)
from tvm_ipu.frontends.onnx.tensors import densify, read_tensor

INTEGER_USERS = frozenset({"Conv", "ConvTranspose", "Gather", "Gemm", "MatMul", "Transpose"})
"""Operators for which quantised weights are kept as integers."""

MAX_OPS = 200_000
"""Nodes after unrolling; a model with more is refused."""


class Refused(Exception):  # noqa: N818  a finding about one node, which stays in the graph with it
    """A rule knows the operator but not how to do without what this node needs."""


@dataclass(frozen=True)
class Scope:
    """Where a node stands.

    Attributes:
        env: Values by the names in the node's graph and in the graphs around it.
        opsets: Opset versions by domain.
        prefix: Path of enclosing nodes, for names; empty in the main graph.
        arguments: Attributes of the enclosing function's call, by name; None outside functions.
    """

    env: dict[str, Value]
    opsets: Mapping[str, int]
    prefix: str = ""
    arguments: Mapping[str, AttributeProto] | None = None

    def inner(self, env: Mapping[str, Value], part: str) -> Scope:
        """The scope of a subgraph that sees this one's values and has ``env`` of its own."""
        return Scope({**self.env, **env}, self.opsets, f"{self.prefix}{part}/", self.arguments)


@dataclass(frozen=True)
class Visit:
    """A node and all that a rule may need to know of it.

    Attributes:
        node: The node as written, attributes of an enclosing function filled in.
        inputs: Its values.
        attrs: Its attributes as Python values.
        version: Opset version of its domain.
        scope: Where it stands.
    """

    node: NodeProto
    inputs: tuple[Value, ...]
    attrs: dict[str, Any]
    version: int
    scope: Scope

    def input(self, index: int) -> Value:
        """Input ``index``, None where it is missing."""
        return self.inputs[index] if index < len(self.inputs) else None

    def array(self, index: int) -> Array | None:
        """Value of input ``index`` if it is constant."""
        value = self.input(index)
        return value.array if isinstance(value, Const) else None


Rule = Callable[["Walker", Visit], "Sequence[Value] | None"]
"""Gives the values of a node's outputs, or None where it does not apply."""


class Walker:
    """Walks graphs and collects the nodes that remain.

    Args:
        rules: Rules by operator of the standard domain, tried before folding.
        expand: Gives the function body for a node that shall not remain as it is, or None.
        reserved: Names that only the main graph may give to its tensors.
        folder: Where external data of tensors in attributes lie.

    Attributes:
        ops: Nodes that remain, in an order of execution.
        made: Those of them that make tensors, by the tensor's name.
        folder: As given.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        expand: Callable[[Visit], FunctionProto | None],
        reserved: Iterable[str],
        folder: Path,
    ) -> None:
        self.ops: list[Op] = []
        self.made: dict[str, Op] = {}
        self._rules = rules
        self._expand = expand
        self._names = set(reserved)
        self._integer_weights: set[str] = set()
        self.folder = folder

    def graph(self, graph: GraphProto, scope: Scope) -> list[Value]:
        """Walk a graph whose inputs ``scope.env`` holds; gives the values of its outputs."""
        for tensor in graph.initializer:
            scope.env[tensor.name] = self.constant(tensor.name, read_tensor(tensor, self.folder))
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            scope.env[name] = self.constant(name, densify(sparse, self.folder))
        self.nodes(graph.node, scope)
        return [self.lookup(output.name, scope, f"output of graph '{graph.name}'") for output in graph.output]

    def nodes(self, nodes: Iterable[NodeProto], scope: Scope) -> None:
        """Walk nodes in their order and bind their outputs in ``scope``."""
        nodes = list(nodes)
        self._integer_weights |= _integer_weights(nodes, scope.prefix)
        for node in nodes:
            inputs = tuple(
                self.lookup(name, scope, f"input of node '{node_label(node)}'") for name in node.input
            )
            outputs = self.visit(_bind_attributes(node, scope.arguments), inputs, scope)
            scope.env.update(zip(node.output, outputs, strict=False))

    def visit(self, node: NodeProto, inputs: tuple[Value, ...], scope: Scope) -> Sequence[Value]:
        """Values of the node's outputs; emits what cannot be known before the model runs."""
        domain = domain_of(node)
        visit = Visit(node, inputs, attributes(node), scope.opsets.get(domain, 1), scope)
        rule = self._rules.get(node.op_type) if domain == "" else None
        refused = ""
        try:
            known = rule(self, visit) if rule else None
            if known is not None:
                return known
            body = self._expand(visit)
            if body is not None:
                return self.call(body, visit)
        except Refused as err:
            refused = str(err)
        return self._fold_or_emit(visit, refused)

    def call(self, body: FunctionProto, visit: Visit) -> list[Value]:
        """Walk a function's body in place of the node that calls it."""
        arguments = {a.name: a for a in body.attribute_proto} | {a.name: a for a in visit.node.attribute}
        env = dict.fromkeys(body.input) | dict(zip(body.input, visit.inputs, strict=False))
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in body.opset_import}
        prefix = f"{visit.scope.prefix}{node_label(visit.node)}/"
        scope = Scope(env, {**visit.scope.opsets, **opsets}, prefix, arguments)
        self.nodes(body.node, scope)
        wanted = dict(zip(body.output, visit.node.output, strict=False))
        user = f"output of function '{body.name}'"
        return [self.lookup(name, scope, user) if wanted.get(name) else None for name in body.output]

    def emit(self, op_type: str, inputs: Sequence[Value], visit: Visit, **attrs: Any) -> Value:
        """Visit a new one-output node of the standard domain that stands in place of ``visit``'s node."""
        name = self.unique(f"{node_label(visit.node)}/{op_type}")
        names = [getattr(v, "name", "") for v in inputs]
        node = helper.make_node(op_type, names, [name], name, **attrs)
        return self.visit(node, tuple(inputs), visit.scope)[0]

    def types(self, visit: Visit) -> list[OutputType]:
        """Element types and shapes of the node's outputs."""
        node, inputs = _resolve(visit)
        return infer_types(node, visit.version, inputs)

    def constant(self, name: str, array: Array) -> Const:
        """A constant with a name as much like ``name`` as is free."""
        return Const(self.unique(name), array)

    def known(self, visit: Visit, array: Array, index: int = 0) -> Const:
        """The value of the node's output ``index``, which keeps its name in the main graph."""
        name, prefix = str(visit.node.output[index]), visit.scope.prefix
        return self.constant(prefix + name, array) if prefix else Const(name, array)

    def unique(self, name: str) -> str:
        """``name``, or ``name`` with a number where that is taken; it is taken from now on."""
        free, number = name, 0
        while free in self._names:
            number += 1
            free = f"{name}_{number}"
        self._names.add(free)
        return free

    @staticmethod
    def lookup(name: str, scope: Scope, user: str) -> Value:
        """The value called ``name``.

        Raises:
            ModelError: Nothing before the user in the graph has that name.
        """
        if name == "":
            return None
        if name not in scope.env:
            raise ModelError(f"tensor '{name}', {user}, is not computed before it is used", CHECK)
        return scope.env[name]

    def _fold_or_emit(self, visit: Visit, refused: str) -> Sequence[Value]:
        (node, inputs), scope = _resolve(visit), visit.scope
        if any(isinstance(v, List) for v in visit.inputs):
            refused = refused or "an input is a sequence"
        if subgraphs(node):
            refused = refused or "it has a subgraph"
        types = infer_types(node, visit.version, inputs)
        constants = [v for v in inputs if v is None or isinstance(v, Const)]
        kept = scope.prefix + visit.node.output[0] in self._integer_weights
        if len(constants) == len(inputs) and not refused and not kept:
            arrays = fold(node, visit.version, constants, types)
            if arrays is not None:
                return [self.known(visit, a, i) if node.output[i] else None for i, a in enumerate(arrays)]
        if scope.prefix:
            node.output[:] = [self.unique(scope.prefix + name) if name else "" for name in node.output]
            node.name = scope.prefix + node_label(visit.node)
        outputs = [Tensor(n, *t) if n else None for n, t in zip(node.output, types, strict=True)]
        self.ops.append(Op(node, visit.version, tuple(inputs), tuple(outputs), refused))
        self.made.update((tensor.name, self.ops[-1]) for tensor in outputs if tensor)
        if len(self.ops) > MAX_OPS:
            raise ModelError(f"the model has more than {MAX_OPS} nodes after its loops are unrolled")
        return outputs


def _resolve(visit: Visit) -> tuple[NodeProto, list[Const | Tensor | None]]:
    """A copy of the node with the unique names of its inputs, and those; a sequence counts as missing."""
    inputs = [None if isinstance(v, List) else v for v in visit.inputs]
    node = NodeProto()
    node.CopyFrom(visit.node)
    node.input[:] = [v.name if v else "" for v in inputs]
    return node, inputs


def _integer_weights(nodes: Sequence[NodeProto], prefix: str) -> set[str]:
    """Dequantised tensors that only operators with an integer form read."""
    users: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    return {
        prefix + node.output[0]
        for node in nodes
        if node.op_type == "DequantizeLinear"
        and INTEGER_USERS.issuperset(users.get(node.output[0], ["an output"]))
    }


def _bind_attributes(node: NodeProto, arguments: Mapping[str, AttributeProto] | None) -> NodeProto:
    """The node with references to the enclosing function's attributes replaced by their values."""
    if arguments is None or not any(a.ref_attr_name for a in node.attribute):
        return node
    bound = NodeProto()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            bound.attribute.append(attribute)
        elif attribute.ref_attr_name in arguments:
            copy = bound.attribute.add()
            copy.CopyFrom(arguments[attribute.ref_attr_name])
            copy.name = attribute.name
    return bound
