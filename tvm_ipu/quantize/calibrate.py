"""Calibration: from a float network and samples to a quantised one (docs/calibration.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import RangeTable, TensorRange
from tvm_ipu.quantize.bias import corrected, with_biases
from tvm_ipu.quantize.bits import configured, initial_bits, promoted
from tvm_ipu.quantize.collect import CollectOptions, Progress, Runner, Samples, collect
from tvm_ipu.quantize.inputs import bits_of_inputs, input_ranges
from tvm_ipu.quantize.insert import insert_quantizers
from tvm_ipu.quantize.levels import DEFAULT, Level, find_level
from tvm_ipu.quantize.parameters import merged
from tvm_ipu.quantize.places import TRANSFORMER_FLOAT, Places, find_places
from tvm_ipu.quantize.probe import Probe
from tvm_ipu.quantize.promote import choose_promotions, multiplications, sensitivities
from tvm_ipu.quantize.ranges import activation_ranges, weight_ranges
from tvm_ipu.quantize.statistics import Statistics

WORK, FEW, MANY = 4 * 10**10, 4, 32
"""Multiplications of one measurement of the whole network, and the least and most samples that it has."""


@dataclass(frozen=True)
class CalibrationOptions:
    """How to calibrate.

    Attributes:
        level: ``L1`` to ``L5``, or ``Q10`` to ``Q23``.
        transformer: Whether layer normalisation and softmax, and sums for them only, stay float; None
            decides by the
            network, and never does so where ``operator_bits`` is 16.
        operator_bits: Bits of tensors that no product reads.
        num_process: Tensors that are looked at at a time; the results do not depend on it.
        memory_saving: Go over the samples several times, each time with few tensors.
        checkpoint: File that an interrupted calibration goes on from.
        sample_names: What samples are called in messages.
        sample_count: Number of samples where it is known, for the progress.
        parameters: Imported or preset ranges and bits; they win where they are reasonable.
    """

    level: str = DEFAULT
    transformer: bool | None = None
    operator_bits: int = 8
    num_process: int = 1
    memory_saving: bool = False
    checkpoint: Path | None = None
    sample_names: tuple[str, ...] = ()
    sample_count: int = 0
    parameters: tuple[TensorRange, ...] = ()


def calibrate(
    graph: Graph,
    samples: Samples,
    run: Runner,
    options: CalibrationOptions | None = None,
    contract: Contract | None = None,
    progress: Progress | None = None,
) -> tuple[Graph, RangeTable]:
    """Quantise a network.

    Args:
        graph: Float network: static shapes, normalisation folded into the products.
        samples: Gives the samples, arrays by input as the float network takes them.
        run: Computes a float network on this machine.
        options: How to calibrate.
        contract: What the board feeds and reads; empty by default.
        progress: Told what is being done.

    Returns:
        The network with ``QuantizeLinear`` and ``DequantizeLinear``, and its ranges with facts about how
        they were
        found.

    Raises:
        CalibrationError: There are no samples, or they do not fit the network.
        OptionError: An option does not fit.
    """
    options, contract = options or CalibrationOptions(), contract or Contract()
    return _Calibration(graph, samples, run, options, contract, progress).run()


class _Calibration:
    def __init__(
        self,
        graph: Graph,
        samples: Samples,
        run: Runner,
        options: CalibrationOptions,
        contract: Contract,
        progress: Progress | None,
    ) -> None:
        self._level: Level = find_level(options.level)
        self._graph = with_biases(graph) if self._level.correct_bias else graph
        self._samples = samples
        self._run = run
        self._options = options
        self._contract = contract
        self._progress = progress
        self._places = choose_places(self._graph, options)
        self._known = input_ranges(contract, self._places.tensors)

    def run(self) -> tuple[Graph, RangeTable]:
        bits = choose_bits(self._graph, self._places, self._options, self._contract)
        statistics = self._statistics()
        facts: dict[str, object] = {
            "level": self._level.name,
            "samples": max((one.count for one in statistics.values()), default=0),
            "extremes": self._extremes(statistics),
        }
        candidates = {name: self._ranges(bits, statistics, name) for name in self._level.activations}
        ranges = next(iter(candidates.values()))
        if self._level.is_measured and self._places.weights:
            ranges, found = self._refined(bits, statistics, candidates)
            facts |= found
        return insert_quantizers(self._graph, self._places, ranges), RangeTable(ranges, facts)

    def _refined(
        self,
        bits: Mapping[str, int],
        statistics: Mapping[str, Statistics],
        candidates: Mapping[str, dict[str, TensorRange]],
    ) -> tuple[dict[str, TensorRange], dict[str, object]]:
        """Ranges, bits and constants that measurements of the whole network choose, and facts about them."""
        self._report("measuring")
        work = sum(multiplications(self._graph, self._places).values())
        few = list(islice(self._samples(), min(max(WORK // max(work, 1), FEW), MANY)))
        ranges = next(iter(candidates.values()))
        probe = Probe(self._graph, self._places, ranges, few, self._run)
        noise = {name: probe.measure(one) for name, one in candidates.items()}
        method = min(noise, key=lambda name: noise[name].power)
        ranges = candidates[method]
        facts: dict[str, object] = {"method": method, "decibels_8_bits": noise[method].decibels}
        narrow = [name for name in self._places.weights if ranges[name].bits < 16]
        if self._level.promote:
            ranges, chosen = self._promoted(bits, statistics, ranges, probe, method)
            facts["promoted"] = chosen
            narrow = [name for name in narrow if ranges[name].bits < 16]
        final = probe.measure(ranges, narrow)
        facts["decibels"] = final.decibels
        if self._level.correct_bias:
            products = {name: node for name, (_, node) in self._places.products.items()}
            errors = {name: final.means[name] for name in narrow}
            self._graph = replace(
                self._graph,
                constants={**self._graph.constants, **corrected(self._graph, products, errors)},
            )
        return ranges, facts

    def _promoted(
        self,
        bits: Mapping[str, int],
        statistics: Mapping[str, Statistics],
        ranges: dict[str, TensorRange],
        probe: Probe,
        method: str,
    ) -> tuple[dict[str, TensorRange], list[str]]:
        """Ranges with 16 bits where they help most, and the tensors there."""
        conv = self._contract.conv.input_format
        given = {one.name for one in self._options.parameters if one.bits}
        if conv:  # the user has chosen: no recommendations
            return ranges, []
        noise = sensitivities(self._places, ranges, probe)
        fixed = frozenset({*given, *self._known, *bits_of_inputs(self._contract)})
        chosen = choose_promotions(self._graph, self._places, ranges, probe, noise, fixed)
        return self._ranges(promoted(bits, chosen, self._places), statistics, method), chosen

    def _statistics(self) -> dict[str, Statistics]:
        options = CollectOptions(
            self._level.needs_histograms,
            self._options.num_process,
            self._options.memory_saving,
            self._options.checkpoint,
            self._options.sample_names,
            self._options.sample_count,
        )
        return collect(self._graph, self._places.tensors, self._samples, self._run, options, self._progress)

    def _ranges(
        self, bits: Mapping[str, int], statistics: Mapping[str, Statistics], method: str
    ) -> dict[str, TensorRange]:
        found = activation_ranges(self._places, statistics, bits, self._known, method)
        found |= weight_ranges(self._graph, self._places, bits, self._level.clip_weights)
        return merged(found, self._options.parameters)

    def _report(self, what: str) -> None:
        if self._progress is not None:
            self._progress(what, 0, 0)

    def _extremes(self, statistics: Mapping[str, Statistics]) -> dict[str, list[int]]:
        """The samples that hold the least and the largest number of each tensor."""
        return {name: [one.low_sample, one.high_sample] for name, one in statistics.items()}


def choose_places(graph: Graph, options: CalibrationOptions) -> Places:
    """Where to quantise, by the kind of network."""
    transformer = options.transformer
    if transformer is None:
        kinds = {node.op_type for node in graph.nodes}
        transformer = bool(kinds & (TRANSFORMER_FLOAT - {"Softmax"})) and options.operator_bits == 8
    return find_places(graph, TRANSFORMER_FLOAT, outputs=False) if transformer else find_places(graph)


def choose_bits(
    graph: Graph, places: Places, options: CalibrationOptions, contract: Contract
) -> dict[str, int]:
    """Bits by tensor and weight, before measurements change them."""
    bits = initial_bits(graph, places, find_level(options.level).bits, options.operator_bits)
    bits = configured(bits, graph, places, contract.conv)
    asked = bits_of_inputs(contract)
    return {name: asked.get(name, found) for name, found in bits.items()}
