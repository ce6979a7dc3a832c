"""The tuned model against the untuned one: what a layer gains alone has to show there, or it is dropped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tvm.s_tir.meta_schedule.runner import Runner

from tvm_ipu.base.errors import RunError
from tvm_ipu.base.model import Model
from tvm_ipu.tune.runner import Job, quickest, read_times, save_arrays, write_job
from tvm_ipu.tune.tasks import Task

SHOWS = 0.99
"""A layer's tuned time over its untuned time in the model, from which on the gain does not show."""

LOSS = 1.01
"""The model's tuned time over its untuned one that is still noise, for one number of threads."""

RUNS = 30
Layers = dict[str, tuple[float, float]]
"""By layer: microseconds untuned and tuned."""


@dataclass(frozen=True)
class Whole:
    """The tuned model's times.

    Attributes:
        milliseconds: By number of threads: untuned, tuned.
        kept: Keys of the tasks whose decisions are kept.
        dropped: Keys of those that gain nothing in the model.
    """

    milliseconds: dict[int, tuple[float, float]]
    kept: frozenset[str]
    dropped: frozenset[str]


Compile = Callable[[Collection[str], Path], list[str]]
"""Compiles the model with the recorded decisions of the tasks with these keys; as ``measure.Build``."""


@dataclass(frozen=True)
class Bench:
    """Measures the model with some tasks' decisions in turns with the untuned one.

    Attributes:
        model: The model, for its outputs.
        inputs: Its inputs.
        compile_with: The compiler.
        runner: Runs jobs.
        library: What ``harness.build_harness`` made.
        folder: Folder for images; made when the first is.
        threads: Numbers of threads to measure with.
    """

    model: Model
    inputs: Sequence[np.ndarray[Any, Any]]
    compile_with: Compile
    runner: Runner
    library: Path
    folder: Path
    threads: tuple[int, ...]

    @cached_property
    def own_layers(self) -> list[str]:
        """The untuned image's layers, one a call."""
        self.folder.mkdir()
        return self.compile_with((), self._own)

    @cached_property
    def _saved(self) -> tuple[str, ...]:
        return save_arrays(self.folder, "input", self.inputs)

    @property
    def _own(self) -> Path:
        return self.folder / "untuned.img"

    @property
    def _tuned(self) -> Path:
        return self.folder / "tuned.img"

    def measure(self, keys: Collection[str]) -> tuple[dict[int, tuple[float, float]], dict[int, Layers]]:
        """Milliseconds of the model, untuned and tuned, and times of its layers, by number of threads.

        Raises:
            RunError: The images do not run.
        """
        own_layers, layers = self.own_layers, self.compile_with(keys, self._tuned)
        job = Job(
            library=str(self.library),
            images=(str(self._own), str(self._tuned)),
            calls=(len(own_layers), len(layers)),
            inputs=self._saved,
            outputs=(),
            dtypes=tuple(spec.dtype.label for spec in self.model.outputs),
            sizes=tuple(spec.nbytes for spec in self.model.outputs),
            threads=self.threads,
            runs=RUNS,
            evict=0,
        )
        (result,) = (future.result() for future in self.runner.run([write_job(self.folder, job)]))
        if result.error_msg is not None:
            raise RunError(f"the tuned model does not run: {result.error_msg}")
        times = dict(zip(self.threads, read_times(job, result), strict=True))
        totals = {
            number: (quickest(own.sum(axis=1)) / 1e6, quickest(tuned.sum(axis=1)) / 1e6)
            for number, (own, tuned) in times.items()
        }
        by_layer = {
            number: {
                layer: (_time(own, own_layers, layer), _time(tuned, layers, layer))
                for layer in set(own_layers)
            }
            for number, (own, tuned) in times.items()
        }
        return totals, by_layer


def check_whole(tasks: Sequence[Task], bench: Bench) -> Whole:
    """Measure the model with and without the tasks' decisions, turn by turn, and drop what does not gain.

    Args:
        tasks: Tasks with a decision of their own.
        bench: Measures the model.

    Raises:
        RunError: The images do not run.
    """
    keys = {task.key for task in tasks}
    totals, by_layer = bench.measure(keys)
    seen = [task for task in tasks if not set(bench.own_layers).isdisjoint(task.layers)]
    kept = keys - {task.key for task in seen if _ratio(task, by_layer) >= SHOWS}
    if kept and kept != keys:
        totals, _ = bench.measure(kept)
    ratios = [tuned / untuned for untuned, tuned in totals.values()]
    if max(ratios) > LOSS or _mean(ratios) >= 1:
        kept = set()
    if not kept:
        totals = {number: (untuned, untuned) for number, (untuned, _) in totals.items()}
    return Whole(totals, frozenset(kept), frozenset(keys - kept))


def _time(samples: np.ndarray[Any, Any], layers: list[str], layer: str) -> float:
    """Microseconds of a layer's calls."""
    calls = [number for number, name in enumerate(layers) if name == layer]
    return quickest(samples[:, calls].sum(axis=1)) / 1e3


def _ratio(task: Task, by_layer: dict[int, Layers]) -> float:
    """Tuned over untuned time of a task's layers, the mean of all numbers of threads."""
    ratios = []
    for layers in by_layer.values():
        own, tuned = np.sum([layers[name] for name in task.layers if name in layers], axis=0)
        ratios.append(tuned / own)
    return _mean(ratios)


def _mean(ratios: Sequence[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.mean(np.log(ratios))))
