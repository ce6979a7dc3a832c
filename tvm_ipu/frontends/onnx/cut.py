"""Where to cut a model whose end cannot be compiled.

Such an end is post-processing, NonMaxSuppression say, or anything else with shapes that depend on data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tvm_ipu.frontends.onnx.cost import node_cost
from tvm_ipu.frontends.onnx.graph import Graph, Op, Tensor
from tvm_ipu.frontends.onnx.simplify import without_dead_ops

SHARE = 0.9
"""Least share of a model's multiply-accumulates that has to lie before a cut that is worth a word."""


def suggest_cut(graph: Graph, lost: Iterable[Tensor]) -> tuple[str, ...]:
    """Tensors to end the model at, so that nothing of it is lost but its end.

    Args:
        graph: The model.
        lost: Tensors that cannot be computed, with all that depend on them.

    Returns:
        The last tensors before those that matter to the model's work, by the model's own names; nothing where
        a cut would leave out more than a tenth of the work.
    """
    without = {id(tensor) for tensor in lost}
    edge = _edge(graph, without)
    while unnamed := {id(tensor) for tensor in edge if tensor.name not in graph.names}:
        ends = [op for op in graph.ops if any(id(t) in unnamed for t in op.outputs if t)]
        without.update(id(t) for op in ends for t in op.outputs if t)
        edge = _edge(graph, without)
    edge = [tensor for tensor in edge if _macs(_before(graph, [tensor]))]
    if not edge or _macs(_before(graph, edge)) < SHARE * _macs(graph.ops):
        return ()
    return tuple(graph.names[tensor.name] for tensor in edge)


def _edge(graph: Graph, without: set[int]) -> list[Tensor]:
    """What is computed, and read by what is not or an output of the model, in the model's order."""
    outside = [op for op in graph.ops if _is_lost(op, without)]
    read = {id(v) for op in outside for v in op.inputs} | {id(v) for _, v in graph.outputs}
    inside = [op for op in graph.ops if not _is_lost(op, without)]
    return [t for op in inside for t in op.outputs if t is not None and id(t) in read]


def _is_lost(op: Op, without: set[int]) -> bool:
    return any(id(t) in without for t in op.outputs if t is not None)


def _before(graph: Graph, tensors: Iterable[Tensor]) -> tuple[Op, ...]:
    return without_dead_ops(replace(graph, outputs=tuple((t.name, t) for t in tensors))).ops


def _macs(ops: Iterable[Op]) -> int:
    return sum(cost.macs for cost in map(node_cost, ops) if cost is not None)
