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

    They are taken in the order of their noise until what the others add is below ``TARGET_DECIBELS``, as
    measured
    with all of them together, or until they make up ``SHARE`` of the multiplications.

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
    chosen: list[str] = []
    candidates = [p for p in sorted(noise, key=noise.__getitem__, reverse=True) if p not in fixed]
    target = 10 ** (-TARGET_DECIBELS / 10)
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
    for weight, (place, node) in places.products.items():
        spec = graph.spec(node.outputs[0])
        channels = graph.constants[weight].shape[places.weights[weight] or 0]
        positions = math.prod(spec.shape) // max(channels, 1) if spec else 1
        found[place] = found.get(place, 0) + positions * graph.constants[weight].size
    return found


def _groups(places: Places, ranges: Mapping[str, TensorRange]) -> list[str]:
    """Places that products with weights read."""
    sources = dict.fromkeys(source for source, _ in places.products.values())
    return [name for name in sources if name in ranges and ranges[name].bits < _WIDE]
