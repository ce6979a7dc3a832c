"""Which products get 16 bits: those whose rounding costs the outputs most."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace

from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.quantize.places import Places
from tvm_ipu.quantize.probe import Probe

TARGET_DECIBELS = 30.0
"""Signal to noise of the outputs above which nothing is promoted."""

SHARE = 0.25
"""Share of a network's multiplications that may get 16 bits."""

TAIL = 0.01
"""Share of the multiplications, and of the weights, that may follow behind the tail of a network."""

_WIDE = 16
_log = logging.getLogger(__name__)


def sensitivities(places: Places, ranges: Mapping[str, TensorRange], probe: Probe) -> dict[str, float]:
    """Noise power at the outputs, by place: only it and the weights that multiply it are rounded."""
    found = {}
    for place in _groups(places, ranges):
        weights = [name for name, (source, _) in places.products.items() if source == place]
        found[place] = probe.measure({place: ranges[place]}, weights).power
    return found


def choose_promotions(
    graph: Graph,
    places: Places,
    ranges: Mapping[str, TensorRange],
    probe: Probe,
    noise: Mapping[str, float],
    fixed: frozenset[str] = frozenset(),
) -> list[str]:
    """Places whose products get 16 bits, the most sensitive first.

    Where the outputs have more noise than ``TARGET_DECIBELS`` the ``tail`` of the network is the first, and
    always where an output is a concatenation: its large operands hide the noise of the small ones. The others
    follow in the order of their noise until what is left, as measured with all of them together, is below
    that, or until they make up ``SHARE`` of the multiplications.

    Args:
        graph: Float network.
        places: What is quantised.
        ranges: By name, at 8 bits.
        probe: Measures.
        noise: As ``sensitivities`` gives it.
        fixed: Places whose bits are given.
    """
    cost = multiplications(graph, places)
    budget = SHARE * sum(cost.values())
    target = 10 ** (-TARGET_DECIBELS / 10)
    chosen: list[str] = []
    joined = any(places.place(spec.name) in places.joins for spec in graph.outputs)
    if joined or measured(places, ranges, chosen, probe) > target:
        chosen += [place for place in tail(graph, places) if place in ranges and place not in fixed]
    candidates = [p for p in sorted(noise, key=noise.__getitem__, reverse=True) if p not in fixed]
    while (power := measured(places, ranges, chosen, probe)) > target:
        excess, taken = power - target, 0.0
        for place in candidates:
            if place in chosen or cost.get(place, 0) > budget:
                continue
            chosen.append(place)
            budget -= cost.get(place, 0)
            taken += noise[place]
            if taken >= excess:
                break
        if not taken:
            _log.info("outputs stay at %.1f dB: more layers cannot get 16 bits", -10 * math.log10(power))
            break
    return chosen


def measured(places: Places, ranges: Mapping[str, TensorRange], promoted: list[str], probe: Probe) -> float:
    """Noise power with some places, and the weights that multiply them, at 16 bits."""
    mixed = {name: replace(one, bits=_WIDE) if name in promoted else one for name, one in ranges.items()}
    narrow = [name for name, (source, _) in places.products.items() if source not in promoted]
    return probe.measure(mixed, narrow).power


def multiplications(graph: Graph, places: Places) -> dict[str, int]:
    """Multiplications of the products that read a place, by place."""
    found: dict[str, int] = {}
    for weight, work in _work_by_weight(graph, places).items():
        place = places.products[weight][0]
        found[place] = found.get(place, 0) + work
    return found


def tail(graph: Graph, places: Places) -> list[str]:
    """Places behind which hardly anything is multiplied: 16 bits there cost next to nothing.

    They are the outputs and what leads to them: logits, boxes and scores in one tensor, and the like.
    """
    sizes = {name: graph.constants[name].size for name in places.weights}
    work = _work_by_weight(graph, places)
    behind: dict[str, frozenset[str]] = {}
    for node in reversed(graph.nodes):
        met = {name for name in node.inputs if name in sizes}
        met.update(*(behind.get(name, frozenset()) for name in node.outputs))
        for name in node.inputs:
            behind[name] = behind.get(name, frozenset()) | met
    found = []
    for place in places.tensors:
        reached = behind.get(place, frozenset())
        small = sum(sizes[name] for name in reached) <= TAIL * sum(sizes.values())
        cheap = sum(work[name] for name in reached) <= TAIL * sum(work.values())
        if place not in graph.constants and small and cheap:
            found.append(place)
    return found


def _work_by_weight(graph: Graph, places: Places) -> dict[str, int]:
    """Multiplications by weight."""
    found = {}
    for weight, (_, node) in places.products.items():
        spec = graph.spec(node.outputs[0])
        channels = graph.constants[weight].shape[places.weights[weight] or 0]
        positions = math.prod(spec.shape) // max(channels, 1) if spec else 1
        found[weight] = positions * graph.constants[weight].size
    return found


def _groups(places: Places, ranges: Mapping[str, TensorRange]) -> list[str]:
    """Places that products with weights read."""
    sources = dict.fromkeys(source for source, _ in places.products.values())
    return [name for name in sources if name in ranges and ranges[name].bits < _WIDE]
