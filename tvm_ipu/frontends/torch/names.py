"""Names in the ONNX models that PyTorch makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import GraphProto, helper

from tvm_ipu.frontends.onnx.graph import subgraphs


def rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names, here and in the graphs inside."""
    if not names:
        return
    for named in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        named.name = names.get(named.name, named.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in subgraphs(node):
            rename(inner, names)


def rename_outputs(graph: GraphProto, names: Sequence[str]) -> None:
    """Give the outputs their names; an output that is an input, a weight or another output is copied."""
    kept = {one.name for one in (*graph.input, *graph.initializer)}
    tensors = kept | {name for node in graph.node for name in node.output}
    found: dict[str, str] = {}
    for output, wanted in zip(graph.output, names, strict=True):
        new, old = wanted, output.name
        while new in tensors and new != old:
            new = f"{new}_out"
        tensors.add(new)
        output.name = new
        if old in kept or old in found:
            graph.node.append(helper.make_node("Identity", [old], [new], new))
        else:
            found[old] = new
    rename(graph, {old: new for old, new in found.items() if old != new})
