"""Is a node what ONNX's definition of its operator allows? Checked before anything trusts it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto
from onnx.defs import OpSchema

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.evaluate import find_schema
from tvm_ipu.frontends.onnx.graph import domain_of, node_label, subgraphs

_GRAPH = OpSchema.AttrType.GRAPH


def check_graph(graph: GraphProto, opsets: Mapping[str, int]) -> None:
    """Check all nodes of a graph and of the graphs in it.

    Raises:
        ModelError: A name is no text, or a node has not the inputs, outputs or attributes of its operator.
    """
    infos: Iterable[ValueInfoProto] = [*graph.input, *graph.output]
    dims = [dim.dim_param for info in infos for dim in info.type.tensor_type.shape.dim]
    _check_names("graph", [graph.name, *dims, *(info.name for info in infos)])
    for info in infos:
        if info.type.tensor_type.elem_type not in TensorProto.DataType.values():
            raise ModelError(
                f"'{info.name}' has an element type that ONNX does not know: the model is damaged"
            )
    check_nodes(graph.node, opsets)


def check_nodes(nodes: Iterable[NodeProto], opsets: Mapping[str, int]) -> None:
    """As ``check_graph``, for the nodes of a graph or function."""
    for node in nodes:
        texts = [node.name, node.op_type, node.domain, *node.input, *node.output]
        _check_names(f"node '{node.name!r}'", texts + [a.name for a in node.attribute])
        _check_node(node, opsets.get(domain_of(node), 1))
        for graph in subgraphs(node):
            check_graph(graph, opsets)


def _check_names(place: str, names: Iterable[object]) -> None:
    if not all(isinstance(name, str) for name in names):  # protobuf gives bytes where it finds no UTF-8
        raise ModelError(f"a name in {place} is not text: the model is damaged")


def _check_node(node: NodeProto, version: int) -> None:
    schema = find_schema(node.op_type, version, domain_of(node))
    if schema is None:
        return
    label = f"node '{node_label(node)}' ({node.op_type})"
    for kind, found, least, most in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not least <= found <= most:
            raise ModelError(f"{label} has {found} {kind}, opset {version} allows {least} to {most}")
    given = {a.name: a for a in node.attribute}
    for name, expected in schema.attributes.items():
        attribute = given.get(name)
        if attribute is None and expected.required:
            raise ModelError(f"{label} lacks attribute '{name}'")
        if attribute is not None and attribute.type != expected.type.value:
            kind = AttributeProto.AttributeType.Name(attribute.type).lower()
            raise ModelError(f"{label}: attribute '{name}' is {kind}, not {expected.type.name.lower()}")
        if attribute is not None and expected.type == _GRAPH and not attribute.HasField("g"):
            raise ModelError(f"{label}: attribute '{name}' has no graph")
    unknown = sorted(set(given) - set(schema.attributes))
    if unknown:
        raise ModelError(
            f"{label} has attribute '{unknown[0]}', which opset {version} does not know",
            f"it knows {', '.join(schema.attributes) or 'none'}",
        )
