"""Measure a task's decisions: build each as an image, run it against the template's own choice, check it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tvm.s_tir.meta_schedule.runner import Runner, RunnerInput

from tvm_ipu.base.model import Model
from tvm_ipu.base.target import Target
from tvm_ipu.kernels.decisions import Choose, preferred
from tvm_ipu.tune.records import choose_one
from tvm_ipu.tune.reference import expected_outputs, is_close
from tvm_ipu.tune.runner import Job, Times, quickest, read_times, save_arrays, write_job, written_outputs
from tvm_ipu.tune.tasks import TUNED, Task, task_inputs, task_model

Build = Callable[[Model, Choose, Path], list[str]]
"""Compiles a model, writes its image to a file and returns the layer of each kernel call."""

MAX_RUNS = 200


@dataclass(frozen=True)
class Effort:
    """How a candidate is measured.

    Attributes:
        threads: Numbers of threads; a decision is judged by all of them.
        repeat: Timed runs.
        min_repeat_ms: Milliseconds that these take at least; more runs where they are shorter.
        jobs: Candidates that are compiled at the same time.
        evict: Bytes of other memory that the model touches between two runs of a layer.
    """

    threads: tuple[int, ...]
    repeat: int = 7
    min_repeat_ms: float = 0.0
    jobs: int = 2
    evict: int = 0


@dataclass(frozen=True)
class Measured:
    """How a decision did.

    Attributes:
        score: Its time over that of the template's own choice, the mean of all numbers of threads; infinite
            after a failure.
        microseconds: By number of threads: time of the template's own choice and its own.
        error: Why it failed.
    """

    score: float
    microseconds: dict[str, list[float]] = field(default_factory=dict)
    error: str = ""

    @property
    def worst(self) -> float:
        """Its time over that of the template's own choice, for the number of threads that likes it least."""
        return max((mine / max(own, 1e-3) for own, mine in self.microseconds.values()), default=self.score)


class TaskBench:
    """One task, ready to measure its decisions.

    Args:
        task: The task.
        target: Chip to compile for.
        build: The compiler.
        runner: Runs jobs.
        library: What ``harness.build_harness`` made.
        folder: Folder for this task's files.
        effort: How to measure.
    """

    def __init__(
        self,
        task: Task,
        target: Target,
        build: Build,
        runner: Runner,
        library: Path,
        folder: Path,
        effort: Effort,
    ) -> None:
        self.task = task
        self._target = target
        self._build = build
        self._runner = runner
        self._folder = folder
        self._effort = effort
        self._model = task_model(task)
        folder.mkdir()
        inputs = task_inputs(task)
        self._expected = expected_outputs(task, inputs)
        image = folder / "own.img"
        layers = build(self._model, preferred, image)
        self._own_calls = [number for number, layer in enumerate(layers) if layer == TUNED]
        self._job = Job(
            library=str(library),
            images=(str(image), str(image)),
            calls=(len(layers), len(layers)),
            inputs=save_arrays(folder, "input", inputs),
            outputs=(),
            dtypes=tuple(spec.dtype.label for spec in self._model.outputs),
            sizes=tuple(spec.nbytes for spec in self._model.outputs),
            threads=effort.threads,
            runs=effort.repeat,
            evict=effort.evict,
        )

    def start(self) -> Measured:
        """Check the template's own choice against the definition and measure it against itself."""
        folder = self._folder / "start"
        (result,) = self._measure([(folder, self._job, self._own_calls)])
        if result.error:
            return result
        outputs = written_outputs(folder, self._job)
        for number, (output, known) in enumerate(zip(outputs, self._expected, strict=True)):
            part = output.reshape(self._model.outputs[number].shape)[..., : known.shape[-1]]
            if not is_close(part, known):
                return Measured(math.inf, error=f"output {number} is not what its definition says")
        self._job = replace(self._job, outputs=save_arrays(self._folder, "expected", outputs))
        if self._effort.min_repeat_ms:
            longest = max(own for own, _ in result.microseconds.values()) / 1e3
            runs = math.ceil(self._effort.min_repeat_ms / max(longest, 1e-3))
            self._job = replace(self._job, runs=min(MAX_RUNS, max(self._job.runs, runs)))
        return result

    def measure(self, decisions: Sequence[Any], times: int = 1) -> list[Measured]:
        """Measure decisions with ``times`` as many runs as usual."""
        job = replace(self._job, runs=self._job.runs * times)
        folders = [self._folder / f"candidate{number}" for number in range(len(decisions))]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        with ThreadPoolExecutor(max_workers=self._effort.jobs) as threads:
            built = list(threads.map(self._candidate, decisions, folders))
        jobs = [
            (folder, replace(job, images=(job.images[0], image), calls=(job.calls[0], len(layers))), layers)
            for folder, (image, layers) in zip(folders, built, strict=True)
        ]
        return self._measure(
            [
                (folder, one, [number for number, layer in enumerate(layers) if layer == TUNED])
                for folder, one, layers in jobs
            ]
        )

    def _candidate(self, decision: Any, folder: Path) -> tuple[str, list[str]]:
        folder.mkdir()
        image = folder / "candidate.img"
        layers = self._build(self._model, choose_one(self.task.key, decision, self._target), image)
        return str(image), layers

    def _measure(self, jobs: Sequence[tuple[Path, Job, list[int]]]) -> list[Measured]:
        inputs: list[RunnerInput] = []
        for folder, job, _ in jobs:
            folder.mkdir(exist_ok=True)
            inputs.append(write_job(folder, job))
        results = [future.result() for future in self._runner.run(inputs)]
        measured = []
        for (_, job, calls), result in zip(jobs, results, strict=True):
            if result.error_msg is not None:
                measured.append(Measured(math.inf, error=str(result.error_msg)))
                continue
            measured.append(self._judge(job, read_times(job, result), calls))
        return measured

    def _judge(self, job: Job, times: Times, calls: list[int]) -> Measured:
        microseconds = {
            str(threads): [
                quickest(own[:, self._own_calls].sum(axis=1)) / 1e3,
                quickest(candidate[:, calls].sum(axis=1)) / 1e3,
            ]
            for threads, (own, candidate) in zip(job.threads, times, strict=True)
        }
        ratios = [candidate / max(own, 1e-3) for own, candidate in microseconds.values()]
        return Measured(float(np.exp(np.mean(np.log(ratios)))), microseconds)
