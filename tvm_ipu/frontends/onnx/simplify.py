"""An ONNX model as a flat graph with static shapes and known values computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onnx import FunctionProto, NodeProto

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx import rules_control, rules_parts, rules_sequence, rules_static
from tvm_ipu.frontends.onnx.evaluate import find_schema
from tvm_ipu.frontends.onnx.functions import model_function, schema_function
from tvm_ipu.frontends.onnx.graph import (
    Array,
    Const,
    Graph,
    Op,
    Tensor,
    Value,
    attributes,
    domain_of,
    node_label,
)
from tvm_ipu.frontends.onnx.load import Source
from tvm_ipu.frontends.onnx.walker import Rule, Scope, Visit, Walker

RULES: dict[str, Rule] = {
    **rules_static.RULES,
    **rules_parts.RULES,
    **rules_control.RULES,
    **rules_sequence.RULES,
}

Supports = Callable[[str, str], bool]
"""Whether an operator, given by domain and type, shall remain; others are replaced by their function body."""


def simplify(
    source: Source, inputs: tuple[Tensor, ...], constants: Mapping[str, Array], supports: Supports
) -> Graph:
    """Evaluate the model as far as its inputs' shapes and its weights allow.

    Args:
        source: The model.
        inputs: Its inputs with static shapes.
        constants: Values of inputs that are not to be inputs any more.
        supports: Which operators to keep.

    Raises:
        ModelError: The graph is damaged, its shapes do not go together, or an output is a sequence.
    """
    names = (
        [n for node in source.graph.node for n in node.output]
        + [t.name for t in inputs]
        + list(source.weights)
    )
    walker = Walker(RULES, _expander(source.functions, supports), [*names, *constants], source.folder)
    values = {name: Const(name, array) for name, array in {**source.weights, **constants}.items()}
    env: dict[str, Value] = {**values, **{t.name: t for t in inputs}}
    results = walker.graph(source.graph, Scope(env, source.opsets))
    outputs = [
        (info.name, _tensor(info.name, v)) for info, v in zip(source.graph.output, results, strict=True)
    ]
    own = [name for node in source.graph.node for name in node.output]
    found = {name: env[name] for name in own if name in env}
    graph = Graph(
        source.name,
        inputs,
        tuple(outputs),
        tuple(walker.ops),
        dict(source.opsets),
        source.facts,
        {value.name: name for name, value in found.items() if isinstance(value, Tensor)},
    )
    return without_dead_ops(graph)


def expand_op(op: Op, opsets: Mapping[str, int], supports: Supports) -> Graph | None:
    """The function body of one node of a simplified graph, simplified; None where its operator has none."""
    walker = Walker(RULES, _expander({}, supports), [v.name for v in op.inputs if v], Path())
    scope = Scope({}, {**opsets, domain_of(op.node): op.version})
    visit = Visit(op.node, op.inputs, attributes(op.node), op.version, scope)
    body = schema_function(visit)
    if body is None:
        return None
    results = walker.call(body, visit)
    outputs = tuple((t.name, _tensor(t.name, v)) for t, v in zip(op.outputs, results, strict=False) if t)
    return without_dead_ops(Graph(node_label(op.node), (), outputs, tuple(walker.ops), dict(opsets)))


def handles(node: NodeProto, source: Source, supports: Supports) -> bool:
    """Whether there is a way to deal with the node's operator at all, whatever its inputs."""
    domain = domain_of(node)
    schema = find_schema(node.op_type, source.opsets.get(domain, 1), domain)
    return (
        (domain == "" and node.op_type in RULES)
        or (domain, node.op_type) in source.functions
        or supports(domain, node.op_type)
        or (schema is not None and (schema.has_function or schema.has_context_dependent_function))
    )


def without_dead_ops(graph: Graph) -> Graph:
    """The graph without nodes whose results nobody uses."""
    needed = {id(value) for _, value in graph.outputs}
    live: list[Op] = []
    for op in reversed(graph.ops):
        if any(id(t) in needed for t in op.outputs if t):
            live.append(op)
            needed.update(id(v) for v in op.inputs if v)
    return replace(graph, ops=tuple(reversed(live)))


def _expander(
    functions: Mapping[tuple[str, str], FunctionProto], supports: Supports
) -> Callable[[Visit], FunctionProto | None]:
    def expand(visit: Visit) -> FunctionProto | None:
        body = model_function(functions, visit)
        if body is not None or supports(domain_of(visit.node), visit.node.op_type):
            return body
        return schema_function(visit)

    return expand


def _tensor(name: str, value: Value) -> Const | Tensor:
    if isinstance(value, Const | Tensor):
        return value
    found = "a sequence" if value is not None else "an empty optional"
    raise ModelError(f"output '{name}' is {found}; only tensors can be outputs")
