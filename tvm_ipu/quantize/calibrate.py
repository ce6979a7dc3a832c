"""Calibration: from a float network and samples to a quantised one (docs/calibration.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import RangeTable, TensorRange
from tvm_ipu.quantize.bits import configured, initial_bits
from tvm_ipu.quantize.collect import CollectOptions, Progress, Runner, Samples, collect
from tvm_ipu.quantize.inputs import bits_of_inputs, input_ranges
from tvm_ipu.quantize.insert import insert_quantizers
from tvm_ipu.quantize.levels import DEFAULT, Level, find_level
from tvm_ipu.quantize.parameters import merged
from tvm_ipu.quantize.places import TRANSFORMER_FLOAT, Places, find_places
from tvm_ipu.quantize.ranges import activation_ranges, weight_ranges
from tvm_ipu.quantize.statistics import Statistics


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
        self._graph = graph
        self._samples = samples
        self._run = run
        self._options = options
        self._contract = contract
        self._progress = progress
        self._level: Level = find_level(options.level)
        self._places = _places(graph, options)
        self._known = input_ranges(contract, self._places.tensors)

    def run(self) -> tuple[Graph, RangeTable]:
        bits = self._bits()
        statistics = self._statistics()
        ranges = self._ranges(bits, statistics, self._level.activations[0])
        ranges = merged(ranges, self._options.parameters)
        facts: dict[str, object] = {
            "level": self._level.name,
            "samples": max((one.count for one in statistics.values()), default=0),
            "extremes": self._extremes(statistics),
        }
        return insert_quantizers(self._graph, self._places, ranges), RangeTable(ranges, facts)

    def _bits(self) -> dict[str, int]:
        bits = initial_bits(self._graph, self._places, self._level.bits, self._options.operator_bits)
        bits = configured(bits, self._graph, self._places, self._contract.conv)
        asked = bits_of_inputs(self._contract)
        return {name: asked.get(name, found) for name, found in bits.items()}

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
        return found | weight_ranges(self._graph, self._places, bits, self._level.clip_weights)

    def _extremes(self, statistics: Mapping[str, Statistics]) -> dict[str, list[int]]:
        """The samples that hold the least and the largest number of each tensor."""
        return {name: [one.low_sample, one.high_sample] for name, one in statistics.items()}


def _places(graph: Graph, options: CalibrationOptions) -> Places:
    """Where to quantise, by the kind of network."""
    transformer = options.transformer
    if transformer is None:
        kinds = {node.op_type for node in graph.nodes}
        transformer = bool(kinds & (TRANSFORMER_FLOAT - {"Softmax"})) and options.operator_bits == 8
    return find_places(graph, TRANSFORMER_FLOAT, outputs=False) if transformer else find_places(graph)


def with_bits(ranges: Mapping[str, TensorRange], bits: Mapping[str, int]) -> dict[str, TensorRange]:
    """Ranges with other bits."""
    return {name: replace(one, bits=bits.get(name, one.bits)) for name, one in ranges.items()}
