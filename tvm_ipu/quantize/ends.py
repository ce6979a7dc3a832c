"""The tensors at which the noise of a network is measured: its outputs, or what they are chosen from.

A detector ends in a choice of boxes. A score that changes a little makes another box win, and the outputs say
nothing about how much was rounded:

    scores -> TopK -> GatherElements -> boxes        measured at scores, and at what is gathered from
"""

from __future__ import annotations

from collections.abc import Mapping

from tvm_ipu.base.graph import Graph, Node
from tvm_ipu.quantize.operators import PRODUCTS

CHOICES = frozenset({"ArgMax", "ArgMin", "Hardmax", "NonMaxSuppression", "TopK"})


def measured_tensors(graph: Graph) -> list[str]:
    """Outputs that depend on no choice, and of others the last tensors before it.

    Of concatenations these are the operands: large ones hide the noise of small ones. Where products follow a
    choice, the outputs after them are measured, too.
    """
    made = graph.producer()
    chosen, later = _after(graph)
    found: dict[str, None] = {}
    for spec in graph.outputs:
        ends = [spec.name] if spec.name not in chosen or spec.name in later else []
        for name in [*ends, *_before(made, chosen, spec.name)]:
            node = made.get(name)
            operands = node.inputs if node is not None and node.op_type == "Concat" else ()
            found.update(dict.fromkeys([operand for operand in operands if operand in made] or [name]))
    return list(found)


def _after(graph: Graph) -> tuple[set[str], set[str]]:
    """The tensors that depend on a choice, and of those the ones with a product in between."""
    chosen, later = set[str](), set[str]()
    for node in graph.nodes:
        inputs = set(node.inputs)
        if node.op_type in CHOICES or inputs & chosen:
            chosen.update(filter(None, node.outputs))
        if inputs & later or (node.op_type in PRODUCTS and inputs & chosen):
            later.update(filter(None, node.outputs))
    return chosen, later


def _before(made: Mapping[str, Node], chosen: set[str], output: str) -> list[str]:
    """The last computed tensors before the choices that an output depends on."""
    found: dict[str, None] = {}
    seen, waiting = {output}, [output] if output in chosen else []
    while waiting:
        for name in made[waiting.pop()].inputs:
            if name in chosen and name not in seen:
                seen.add(name)
                waiting.append(name)
            elif name in made and name not in chosen:
                found[name] = None
    return list(found)
