"""Calibration: from a float network and samples to a quantised one (docs/calibration.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from tvm_ipu.base.chip import Chip
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.graph import Array, Graph
from tvm_ipu.base.quant_config import QuantConfig
from tvm_ipu.base.ranges import RangeTable, TensorRange
from tvm_ipu.quantize import checkpoint
from tvm_ipu.quantize.bias import corrected, with_biases
from tvm_ipu.quantize.bits import configured, initial_bits, promoted
from tvm_ipu.quantize.collect import CollectOptions, Progress, Runner, Sample, Samples, collect
from tvm_ipu.quantize.equalise import equalised, find_factors, find_pairs, scaled_weights
from tvm_ipu.quantize.inputs import bits_of_inputs, input_ranges
from tvm_ipu.quantize.insert import insert_quantizers
from tvm_ipu.quantize.levels import DEFAULT, Level, find_level, level_for
from tvm_ipu.quantize.migrate import find_divisors, migrated
from tvm_ipu.quantize.mixed import choose_mixture, recommended
from tvm_ipu.quantize.parameters import merged
from tvm_ipu.quantize.places import TRANSFORMER_FLOAT, Places, find_places
from tvm_ipu.quantize.probe import Probe
from tvm_ipu.quantize.promote import TARGET_DECIBELS, choose_promotions, multiplications, sensitivities
from tvm_ipu.quantize.ranges import activation_ranges, choose_ends, weight_ranges
from tvm_ipu.quantize.reconstruct import reconstruct
from tvm_ipu.quantize.statistics import Statistics

WORK, FEW, MANY = 4 * 10**10, 4, 32
"""Multiplications of one measurement of the whole network, and the least and most samples that it has."""


@dataclass(frozen=True)
class CalibrationOptions:
    """How to calibrate.

    Attributes:
        level: ``L1`` to ``L5``, or ``Q10`` to ``Q23``.
        transformer: Whether layer normalisation and softmax, and sums for them only, stay float; None
            decides by the network, and never does so where ``operator_bits`` is 16.
        operator_bits: Bits of tensors that no product reads.
        chip: Chip that the network is for, whose bits are kept to; None where all are allowed.
        num_process: Tensors that are looked at at a time; the results do not depend on it.
        memory_saving: Go over the samples several times, each time with few tensors.
        checkpoint: File that an interrupted calibration goes on from.
        sample_names: What samples are called in messages.
        sample_count: Number of samples where it is known, for the progress.
        parameters: Imported or preset ranges and bits; they win where they are reasonable.
        config: Iterations of reconstruction, and the mixture of bits.
    """

    level: str = DEFAULT
    transformer: bool | None = None
    operator_bits: int = 8
    chip: Chip | None = None
    num_process: int = 1
    memory_saving: bool = False
    checkpoint: Path | None = None
    sample_names: tuple[str, ...] = ()
    sample_count: int = 0
    parameters: tuple[TensorRange, ...] = ()
    config: QuantConfig = field(default_factory=QuantConfig)


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
        they were found.

    Raises:
        CalibrationError: There are no samples, or they do not fit the network.
        OptionError: An option does not fit.
        TargetError: Weights would get bits that the chip does not take.
    """
    options, contract = options or CalibrationOptions(), contract or Contract()
    found = _Calibration(graph, samples, run, options, contract, progress).run()
    if options.checkpoint is not None:
        checkpoint.remove(options.checkpoint)
    return found


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
        mixture = options.config.mixed_precisions
        self._level: Level = level_for(options.chip, find_level(options.level), mixture)
        self._graph = with_biases(graph) if self._level.correct_bias else graph
        self._samples = samples
        self._run = run
        self._options = options
        self._contract = contract
        self._progress = progress
        self._divisors: dict[str, Array] = {}
        self._told: set[str] = set()
        self._factors: dict[str, Array] = {}
        self._weights: dict[tuple[str, int], TensorRange] = {}
        if is_transformer(self._graph, options):
            self._divisors = find_divisors(self._graph, samples, run, self._collect_options())
            self._graph = migrated(self._graph, self._divisors)
        self._places = choose_places(self._graph, options)
        self._known = input_ranges(contract, self._places.tensors)
        self._ends = choose_ends(self._graph, self._places)

    def run(self) -> tuple[Graph, RangeTable]:
        bits = choose_bits(self._graph, self._places, self._options, self._contract)
        self._check_weights(bits)
        statistics = self._statistics()
        self._equalise(statistics)
        facts: dict[str, object] = {
            "level": self._level.name,
            "samples": max((one.count for one in statistics.values()), default=0),
            "extremes": self._extremes(statistics),
            "transformer": is_transformer(self._graph, self._options),
        }
        for what, found in (("divisors", self._divisors), ("factors", self._factors)):
            if found:
                facts[what] = {name: one.tolist() for name, one in found.items()}
        if self._factors:
            facts["scaled"] = scaled_weights(self._graph, self._factors)
        candidates = {name: self._ranges(bits, statistics, name) for name in self._level.activations}
        ranges = next(iter(candidates.values()))
        if self._level.is_measured and self._places.weights:
            ranges, chosen = self._refined(bits, statistics, candidates)
            facts |= chosen
        ranges = self._with_roots(ranges, statistics)
        return insert_quantizers(self._graph, self._places, ranges), RangeTable(ranges, facts)

    def _check_weights(self, bits: Mapping[str, int]) -> None:
        if self._options.chip is not None:
            given = {one.name: one.bits for one in self._options.parameters if one.bits}
            products = self._places.products.items()
            self._options.chip.check_weights({n.name: given.get(w, bits[w]) for w, (_, n) in products})

    def _refined(
        self,
        bits: Mapping[str, int],
        statistics: Mapping[str, Statistics],
        candidates: Mapping[str, dict[str, TensorRange]],
    ) -> tuple[dict[str, TensorRange], dict[str, object]]:
        """Ranges, bits and constants that measurements of the whole network choose, and facts about them."""
        self._report("measuring")
        ranges = next(iter(candidates.values()))
        probe = Probe(self._graph, self._places, ranges, self._few(), self._run)
        noise = {name: probe.measure(one) for name, one in candidates.items()}
        method = min(noise, key=lambda name: noise[name].power)
        ranges = candidates[method]
        facts: dict[str, object] = {"method": method, "decibels_8_bits": noise[method].decibels}
        if self._level.mixed:
            bits, mixture = self._mixed(bits, statistics, ranges, probe, method)
            ranges = self._ranges(bits, statistics, method)
            facts |= mixture
        narrow = [name for name in self._places.weights if ranges[name].bits < 16]
        if self._level.promote:
            ranges, chosen = self._promoted(bits, statistics, ranges, probe, method)
            facts["promoted"] = chosen
            narrow = [name for name in narrow if ranges[name].bits < 16]
        final = probe.measure(ranges, narrow)
        facts["decibels"] = final.decibels
        errors = {name: final.means[name] for name in narrow}
        if self._level.reconstruct:
            ranges, rebuilt = self._reconstructed(ranges)
            errors |= rebuilt
        if self._level.correct_bias:
            products = {name: node for name, (_, node) in self._places.products.items()}
            biases = corrected(self._graph, products, errors)
            self._graph = replace(self._graph, constants={**self._graph.constants, **biases})
        return ranges, facts

    def _mixed(
        self,
        bits: Mapping[str, int],
        statistics: Mapping[str, Statistics],
        ranges: dict[str, TensorRange],
        probe: Probe,
        method: str,
    ) -> tuple[dict[str, int], dict[str, object]]:
        """Bits of a mixture, and facts about it."""
        mixture = self._options.config.mixed_precisions or self._level.mixed or (8, 16)
        self._options.config.check_rate(mixture)
        rate = self._options.config.mp_rate
        low = mixture[0]
        given = {one.name for one in self._options.parameters if one.bits}
        free = [name for name in self._places.weights if name not in given]
        if low == 4:
            coarse = self._ranges({**bits, **dict.fromkeys(free, low)}, statistics, method)
            trial = Probe(self._graph, self._places, coarse, self._few(), self._run)
            noise = {name: trial.measure({}, [name]).power for name in free}
            base = probe.measure(ranges).power
        else:
            by_place = sensitivities(self._places, ranges, probe)
            products = self._places.products
            noise = {name: by_place[products[name][0]] for name in free}
            base = 10 ** (-TARGET_DECIBELS / 10) / 2
        sizes = {name: self._graph.constants[name].size for name in free}
        chosen = choose_mixture(sizes, noise, base, mixture, rate)
        found = {**bits, **dict.fromkeys(chosen.narrow, low)}
        if low == 8:
            wide = {self._places.products[name][0] for name in free if name not in chosen.narrow}
            found = promoted(found, wide - set(self._known), self._places)
        return found, {"mp_rate": recommended(chosen), "narrow": list(chosen.narrow)}

    def _few(self) -> list[Sample]:
        """The samples that the whole network is measured on."""
        work = sum(multiplications(self._graph, self._places).values())
        return list(islice(self._samples(), min(max(WORK // max(work, 1), FEW), MANY)))

    def _reconstructed(
        self, ranges: dict[str, TensorRange]
    ) -> tuple[dict[str, TensorRange], dict[str, Array]]:
        """Ranges with rounded weights, and the mean change of each product's result."""
        options = self._collect_options()
        iterations = self._options.config.retrain_iter_num
        found = reconstruct(
            self._graph, self._places, ranges, self._samples, self._run, options, iterations, self._progress
        )
        given = {one.name for one in self._options.parameters if one.data is not None}
        kept = {name: one for name, one in found.items() if name not in given}
        rounded = {name: replace(ranges[name], data=one.data) for name, one in kept.items()}
        return {**ranges, **rounded}, {name: one.error for name, one in kept.items()}

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
        options = self._collect_options()
        tensors = [*self._places.tensors]
        if self._level.promote or self._level.mixed or self._contract.conv.input_format:
            tensors += self._places.roots.values()
        tensors += self._roots_of(one.name for one in self._options.parameters)
        tensors += self._roots_of(self._contract.conv.tensors)
        return collect(self._graph, tensors, self._samples, self._run, options, self._progress)

    def _equalise(self, statistics: Mapping[str, Statistics]) -> None:
        """Scale channels; all tensors keep the ranges that they have."""
        peaks = {name: one.peaks for name, one in statistics.items() if one.peaks is not None}
        given = {one.name for one in self._options.parameters}
        self._factors = find_factors(self._graph, peaks, given)
        self._graph = equalised(self._graph, self._factors)

    def _roots_of(self, names: Iterable[str]) -> list[str]:
        """The sums that some tensors are functions of."""
        places = (self._places.follows.get(name, name) for name in names)
        return [self._places.roots[name] for name in places if name in self._places.roots]

    def _with_roots(
        self, ranges: dict[str, TensorRange], statistics: Mapping[str, Statistics]
    ) -> dict[str, TensorRange]:
        """Ranges of sums too, where a function of them has 16 bits: a table reads 16 bits then."""
        wide = [name for name in self._places.roots if ranges[name].bits == 16]
        self._places = self._places.with_roots(wide)
        found = dict(ranges)
        for name in self._roots_of(wide):
            one = statistics[name]
            found.setdefault(name, TensorRange(name, (one.low,), (one.high,), 16))
        return found

    def _collect_options(self) -> CollectOptions:
        return CollectOptions(
            self._level.needs_histograms,
            self._options.num_process,
            self._options.memory_saving,
            self._options.checkpoint,
            self._options.sample_names,
            self._options.sample_count,
            frozenset(pair.between for pair in find_pairs(self._graph))
            if self._level.equalise
            else frozenset(),
        )

    def _ranges(
        self, bits: Mapping[str, int], statistics: Mapping[str, Statistics], method: str
    ) -> dict[str, TensorRange]:
        found = activation_ranges(self._places, statistics, bits, self._known, method, self._ends)
        found |= self._weight_ranges(bits)
        return merged(found, self._options.parameters, self._told)

    def _weight_ranges(self, bits: Mapping[str, int]) -> dict[str, TensorRange]:
        asked = {name: bits[name] for name in self._places.weights}
        missing = dict(asked.items() - self._weights.keys())
        clip, threads = self._level.clip_weights, self._options.num_process
        found = weight_ranges(self._graph, self._places, missing, clip, threads)
        self._weights |= {(name, bits[name]): one for name, one in found.items()}
        return {key[0]: self._weights[key] for key in asked.items()}

    def _report(self, what: str) -> None:
        if self._progress is not None:
            self._progress(what, 0, 0)

    def _extremes(self, statistics: Mapping[str, Statistics]) -> dict[str, list[int]]:
        """The samples that hold the least and the largest number of each tensor."""
        return {name: [one.low_sample, one.high_sample] for name, one in statistics.items()}


def is_transformer(graph: Graph, options: CalibrationOptions) -> bool:
    """Whether normalisation and softmax stay float."""
    if options.transformer is not None:
        return options.transformer
    kinds = {node.op_type for node in graph.nodes}
    return bool(kinds & (TRANSFORMER_FLOAT - {"Softmax"})) and options.operator_bits == 8


def choose_places(graph: Graph, options: CalibrationOptions) -> Places:
    """Where to quantise, by the kind of network."""
    transformer = is_transformer(graph, options)
    found = find_places(graph, TRANSFORMER_FLOAT, outputs=False) if transformer else find_places(graph)
    wide = 16 in (find_level(options.level).bits, options.operator_bits)
    return found.with_roots(found.roots) if wide else found


def choose_bits(
    graph: Graph, places: Places, options: CalibrationOptions, contract: Contract
) -> dict[str, int]:
    """Bits by tensor and weight, before measurements change them."""
    bits = initial_bits(graph, places, find_level(options.level).bits, options.operator_bits)
    bits = configured(bits, graph, places, contract.conv)
    asked = bits_of_inputs(contract)
    return {name: asked.get(name, found) for name, found in bits.items()}
