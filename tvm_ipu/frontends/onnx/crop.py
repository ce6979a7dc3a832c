"""Cut a graph down to what given outputs need, from given tensors on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference

from tvm_ipu.base.errors import OptionError
from tvm_ipu.frontends.onnx.graph import subgraphs
from tvm_ipu.frontends.onnx.inputs import unknown_names
from tvm_ipu.frontends.onnx.load import Source


def crop(source: Source, inputs: Sequence[str], outputs: Sequence[str]) -> Source:
    """The part of the model between two sets of tensors; without either, the model less its dead nodes.

    Args:
        source: The model.
        inputs: Tensors that become inputs in place of the model's own; empty keeps those.
        outputs: Tensors that become outputs; empty keeps the model's own.

    Raises:
        OptionError: A name is none of the model's tensors.
    """
    graph = source.graph
    own = [info.name for info in graph.input if info.name not in source.weights]
    known = own + [name for node in graph.node for name in node.output if name]
    for option, names in (("--input-arrays", inputs), ("--output-arrays", outputs)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise OptionError(unknown_names(f"{option}: there is no tensor", unknown, known))
    infos = _inputs(source, inputs) if inputs else {i.name: i for i in graph.input if i.name in own}
    wanted = list(outputs) or [o.name for o in graph.output]
    nodes, needed = live_nodes(graph.node, wanted, infos)
    cut = GraphProto(name=graph.name, node=nodes)
    cut.input.extend(info for name, info in infos.items() if name in needed or not (inputs or outputs))
    declared = {info.name: info for info in graph.output}
    cut.output.extend(declared.get(name, ValueInfoProto(name=name)) for name in wanted)
    return replace(source, graph=cut)


def live_nodes(
    nodes: Sequence[NodeProto], wanted: Iterable[str], stop: Iterable[str]
) -> tuple[list[NodeProto], set[str]]:
    """The nodes that ``wanted`` tensors depend on, in order, and the names of all tensors they need.

    Nodes that only compute tensors in ``stop`` do not count; the names include ``wanted``.
    """
    needed, stop = set(wanted), set(stop)
    live: list[NodeProto] = []
    for node in reversed(nodes):
        if (needed - stop).intersection(node.output):
            live.append(node)
            needed.update(reads(node))
    return live[::-1], needed


def reads(node: NodeProto) -> set[str]:
    """Names of the tensors that a node needs, in its subgraphs too."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        for inner in graph.node:
            names |= reads(inner)
        names.update(output.name for output in graph.output)
    return names


def _inputs(source: Source, names: Sequence[str]) -> dict[str, ValueInfoProto]:
    """Types of tensors that become inputs; floats of any shape where nothing is known of them."""
    known = known_types(source)
    untyped = [n for n in names if n not in known or not known[n].type.tensor_type.elem_type]
    return {
        n: helper.make_tensor_value_info(n, TensorProto.FLOAT, None) if n in untyped else known[n]
        for n in names
    }


def known_types(source: Source) -> dict[str, ValueInfoProto]:
    """Types of tensors in the graph as far as the file and ONNX's shape inference know them."""
    graph = GraphProto()
    graph.CopyFrom(source.graph)
    for name, array in source.weights.items():
        if name not in {info.name for info in graph.input}:
            elem = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(helper.make_tensor_value_info(name, elem, array.shape))
    opsets = [helper.make_opsetid(domain, version) for domain, version in source.opsets.items()]
    model = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets))
    return {
        i.name: i for part in (model.graph.value_info, model.graph.input, model.graph.output) for i in part
    }
