"""Statistics of tensors over samples that stream through once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Protocol

import numpy as np

from tvm_ipu.base.errors import CalibrationError
from tvm_ipu.base.graph import Array, Graph, Node
from tvm_ipu.quantize.checkpoint import Checkpoint, graph_key, part_of, sample_key
from tvm_ipu.quantize.histogram import Histogram
from tvm_ipu.quantize.statistics import Statistics

Sample = dict[str, Array]
Samples = Callable[[], Iterator[Sample]]
"""Gives the samples from the first one on, arrays by input."""

Runner = Callable[[Graph], Callable[[Sample], Sample]]
"""Turns a float network into a function from inputs to outputs, by name."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all); 0 steps where they are not known."""

SAVING_BYTES = 2**26
"""Bytes of tensors that are computed at a time when memory is saved."""

SECONDS_BETWEEN_FILES = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectOptions:
    """How statistics are made.

    Attributes:
        histograms: Whether histograms are kept.
        threads: How many tensors are looked at at a time; the results do not depend on it.
        memory_saving: Compute few tensors at a time, and go over the samples as often as that takes.
        checkpoint: File that an interrupted calibration goes on from; None for none.
        names: What samples are called in messages; their numbers by default.
        total: Number of samples where it is known, for the progress.
        channels: Tensors whose channels are looked at one by one.
    """

    histograms: bool = True
    threads: int = 1
    memory_saving: bool = False
    checkpoint: Path | None = None
    names: Sequence[str] = ()
    total: int = 0
    channels: frozenset[str] = frozenset()

    def name(self, sample: int) -> str:
        """What a sample is called."""
        return f"'{self.names[sample]}'" if sample < len(self.names) else f"number {sample + 1}"


def collect(
    graph: Graph,
    tensors: Sequence[str],
    samples: Samples,
    run: Runner,
    options: CollectOptions,
    progress: Progress | None = None,
) -> dict[str, Statistics]:
    """Statistics of tensors and constants of a float network, by name.

    Raises:
        CalibrationError: There are no samples, one lacks an input or has another shape, or a number in
            it is not finite.
    """
    statistics = {}
    computed = []
    inputs = {spec.name for spec in graph.inputs}
    for name in dict.fromkeys(tensors):
        if name in graph.constants:
            statistics[name] = _fresh(name, options)
            statistics[name].observe(graph.constants[name], -1)
        else:
            computed.append(name)
    for number, group in enumerate(_groups(graph, computed, options.memory_saving)):
        part = graph.with_outputs([name for name in group if name not in inputs])
        path = options.checkpoint and part_of(options.checkpoint, number)
        one = _Pass(part, graph, group, run, replace(options, checkpoint=path), progress)
        statistics |= one.over(samples)
    return {name: statistics[name] for name in dict.fromkeys(tensors)}


class Observer(Protocol):
    """Looks at a tensor of every sample."""

    def observe(self, values: Array, sample: int) -> bool:
        """Remember something of a tensor; False where a number in it is not finite."""


def observe(
    graph: Graph,
    observers: Mapping[str, Sequence[Observer]],
    samples: Samples,
    run: Runner,
    options: CollectOptions,
) -> None:
    """Show tensors of a float network to observers, in one pass over the samples that has no checkpoint.

    Raises:
        CalibrationError: As for ``collect``.
    """
    inputs = {spec.name for spec in graph.inputs}
    part = graph.with_outputs([name for name in observers if name not in inputs])
    function = run(part) if part.outputs else None
    with ThreadPoolExecutor(max(options.threads, 1)) as pool:
        for number, sample in enumerate(samples()):
            _check(graph, options.name(number), sample)
            values = {**sample, **(function(sample) if function else {})}
            looks = [
                (name, pool.submit(one.observe, values[name], number))
                for name, some in observers.items()
                for one in some
            ]
            for name, look in looks:
                if not look.result():
                    raise CalibrationError(
                        f"sample {options.name(number)}: tensor '{name}' holds a number that is not finite"
                    )


class _Pass:
    """Once over all samples."""

    def __init__(
        self,
        part: Graph,
        graph: Graph,
        tensors: Sequence[str],
        run: Runner,
        options: CollectOptions,
        progress: Progress | None,
    ) -> None:
        self._inputs = {spec.name: spec for spec in graph.inputs}
        self._part, self._shown = _channels_last(part)
        self._tensors = tensors
        self._run = run
        self._options = options
        self._progress = progress
        self._checkpoint = Checkpoint(
            options.checkpoint, graph_key(graph, list(tensors), options.histograms, sorted(options.channels))
        )
        self._statistics: dict[str, Statistics] = {}

    def over(self, samples: Samples) -> dict[str, Statistics]:
        found = self._checkpoint.read()
        self._statistics = found or {name: _fresh(name, self._options) for name in self._tensors}
        known = len(self._checkpoint.samples)
        if known:
            _log.warning("calibration goes on after %d samples of '%s'", known, self._options.checkpoint)
        function, count, saved = None, 0, monotonic()
        pending: list[Future[None]] = []
        # the least and largest numbers take less than the next sample's tensors, whose threads want all cores
        threads = max(self._options.threads, 1) if self._options.histograms else 1
        with ThreadPoolExecutor(threads) as pool:
            try:
                for number, sample in enumerate(samples()):
                    self._report(number)
                    count = number + 1
                    if self._was_seen(number, sample):
                        continue
                    _check(self._part, self._options.name(number), sample)
                    if function is None and self._part.outputs:
                        function = self._run(self._part)
                    values = {**sample, **(function(sample) if function else {})}
                    _wait(pending)
                    self._checkpoint.samples.append(sample_key(sample) if self._options.checkpoint else "")
                    pending = [
                        pool.submit(self._observe, name, self._value(values, name), number)
                        for name in self._tensors
                    ]
                    if self._options.checkpoint and monotonic() - saved > SECONDS_BETWEEN_FILES:
                        _wait(pending)
                        self._checkpoint.write(self._statistics)
                        saved = monotonic()
                _wait(pending)
            except KeyboardInterrupt:
                _wait(pending)
                self._checkpoint.write(self._statistics)
                raise
        if not count:
            raise CalibrationError("there are no samples to calibrate on")
        self._report(count)
        self._checkpoint.write(self._statistics)
        return self._statistics

    def _was_seen(self, number: int, sample: Sample) -> bool:
        """Whether the checkpoint knows a sample; another one than it saw makes it worthless.

        Raises:
            CalibrationError: It is another one.
        """
        seen = self._checkpoint.samples
        if number >= len(seen) or not seen[number]:
            return False
        if seen[number] != sample_key(sample):
            raise CalibrationError(
                f"sample {self._options.name(number)} is another one than in '{self._options.checkpoint}'",
                "delete that file to start again",
            )
        return True

    def _value(self, values: Sample, name: str) -> Array:
        shown = self._shown.get(name)
        return values[name] if shown is None else np.moveaxis(values[shown], -1, 1)

    def _observe(self, name: str, values: Array, number: int) -> None:
        if not self._statistics[name].observe(values, number):
            kind = "NaN" if np.isnan(values).any() else "an infinite number"
            role = "input" if name in self._inputs else "tensor"
            raise CalibrationError(f"sample {self._options.name(number)}: {role} '{name}' holds {kind}")

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress("samples", done, max(self._options.total, done))


def _channels_last(part: Graph) -> tuple[Graph, dict[str, str]]:
    """The network with its pictures channels last, the order they are computed in, and what they are called.

    Statistics do not depend on the order, and putting 50 pictures of a sample into another one takes as long
    as half the network.
    """
    shown, nodes, outputs, tensors = {}, list(part.nodes), [], dict(part.tensors)
    for spec in part.outputs:
        if len(spec.shape) == 4:
            n, c, h, w = spec.shape
            name = shown[spec.name] = f"{spec.name}/channels_last"
            nodes.append(Node(name, "Transpose", (spec.name,), (name,), {"perm": [0, 2, 3, 1]}))
            tensors[name] = spec = replace(spec, name=name, shape=(n, h, w, c))
        outputs.append(spec)
    return replace(part, nodes=tuple(nodes), outputs=tuple(outputs), tensors=tensors), shown


def _check(graph: Graph, label: str, sample: Sample) -> None:
    for spec in graph.inputs:
        if spec.name not in sample:
            raise CalibrationError(f"sample {label} has no input '{spec.name}'")
        if tuple(sample[spec.name].shape) != spec.shape:
            raise CalibrationError(
                f"sample {label}: input '{spec.name}' has shape {list(sample[spec.name].shape)}",
                f"the model takes {list(spec.shape)}",
            )


def _fresh(name: str, options: CollectOptions) -> Statistics:
    histogram = Histogram() if options.histograms else None
    return Statistics(histogram=histogram, peaks=np.zeros(0) if name in options.channels else None)


def _groups(graph: Graph, tensors: Sequence[str], saving: bool) -> list[list[str]]:
    """Tensors that are computed together."""
    if not saving:
        return [list(tensors)] if tensors else []
    groups: list[list[str]] = []
    room = 0
    for name in tensors:
        spec = graph.spec(name)
        size = spec.nbytes if spec else 0
        if not groups or size > room:
            groups.append([])
            room = SAVING_BYTES
        groups[-1].append(name)
        room -= size
    return groups


def _wait(pending: Sequence[Future[None]]) -> None:
    for one in pending:
        one.result()
