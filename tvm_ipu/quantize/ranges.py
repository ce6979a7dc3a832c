"""Ranges of all tensors and weights, from statistics, the contract and what the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

import numpy as np

from tvm_ipu.base.graph import Array, Graph
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.quantize import weights
from tvm_ipu.quantize.fit import METHODS
from tvm_ipu.quantize.operators import PRODUCTS
from tvm_ipu.quantize.places import Places
from tvm_ipu.quantize.statistics import Statistics

SHARED_RATIO = 2.0
"""A concatenation and an operand that others read too share a range where theirs differ by no more."""

SUM_ROOM = 2.0
"""How many times the largest sum of the samples an output of 16 bits holds."""

_FINE = 16


def activation_ranges(
    places: Places,
    statistics: Mapping[str, Statistics],
    bits: Mapping[str, int],
    known: Mapping[str, TensorRange],
    method: str,
    ends: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, TensorRange]:
    """The range of every place.

    Args:
        places: What is quantised.
        statistics: By place.
        bits: By place.
        known: Ranges that are given.
        method: One of ``fit.METHODS``, for places of 8 bits; 16 bits have room for all numbers.
        ends: The network's outputs, which are never narrowed, as the largest of them matter most, and how
            many times the samples' numbers they hold at 16 bits.
    """
    found = {}
    for name in places.tensors:
        if name in known:
            low, high = min(known[name].low), max(known[name].high)
        else:
            chosen = method if bits[name] < _FINE and name not in ends else "min_max"
            low, high = METHODS[chosen](statistics[name], bits[name])
            if bits[name] >= _FINE:
                low, high = low * ends.get(name, 1.0), high * ends.get(name, 1.0)
        found[name] = TensorRange(name, (float(low),), (float(high),), bits[name])
    return _shared(places, found, known)


def choose_ends(graph: Graph, places: Places) -> dict[str, float]:
    """Places that the network gives as outputs, and the room that they get at 16 bits.

    Sums such as logits are twice as large for other samples easily; functions and boxes have bounds.
    """
    made, found = graph.producer(), {}
    for spec in graph.outputs:
        if place := places.place(spec.name):
            is_sum = place in made and made[place].op_type in PRODUCTS
            found[place] = SUM_ROOM if is_sum else 1.0
    return found


def weight_ranges(
    graph: Graph, places: Places, bits: Mapping[str, int], clip: bool, threads: int = 1
) -> dict[str, TensorRange]:
    """The symmetric range of every output channel of the weights that have bits."""

    def of_one(name: str) -> TensorRange:
        value, axis = graph.constants[name], places.weights[name]
        finds = clip and bits[name] < _FINE
        high = weights.least_error(value, axis, bits[name]) if finds else weights.largest(value, axis)
        return weight_range(name, high, bits[name])

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        return {one.name: one for one in pool.map(of_one, bits)}


def weight_range(name: str, high: Array, bits: int, data: Array | None = None) -> TensorRange:
    """The range of weights with the given largest absolute values."""
    top = tuple(float(one) for one in np.atleast_1d(high))
    return TensorRange(name, tuple(-one for one in top), top, bits, data)


def _shared(
    places: Places, ranges: dict[str, TensorRange], known: Mapping[str, TensorRange]
) -> dict[str, TensorRange]:
    """Operands of a concatenation on its result's grid, so that it need not round again."""
    for joined, operands in reversed(places.joins.items()):
        whole = ranges[joined]
        for name in operands:
            own = ranges[name]
            span = max(max(own.high) - min(own.low), 1e-30)
            alone = name in places.only_joined
            near = max(whole.high) - min(whole.low) <= SHARED_RATIO * span
            if own.bits == whole.bits and name not in known and (alone or near):
                ranges[name] = TensorRange(name, whole.low, whole.high, own.bits)
    return ranges
