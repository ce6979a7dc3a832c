"""Tune a model: find its tasks, search, check the whole, and keep the records on disk all the while."""

from __future__ import annotations

import fnmatch
import signal
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ipu import __version__
from tvm_ipu.base.errors import OptionError, TargetError, ToolError
from tvm_ipu.base.host import host_arch, read_host
from tvm_ipu.base.model import Model
from tvm_ipu.base.target import Target
from tvm_ipu.tune.harness import build_harness
from tvm_ipu.tune.measure import Build, Effort, TaskBench
from tvm_ipu.tune.records import (
    Record,
    Records,
    Warn,
    as_json,
    find_decision,
    read_records,
    warn_on_stderr,
    write_records,
)
from tvm_ipu.tune.runner import ImageRunner, Tracker
from tvm_ipu.tune.search import Limits, Progress, Report, Search
from tvm_ipu.tune.tasks import Task, find_tasks
from tvm_ipu.tune.whole import Bench, Whole, check_whole

WHOLE_TIMEOUT = 300.0
"""Seconds that measuring the whole model may take."""


@dataclass(frozen=True)
class TuneOptions:
    """How to tune.

    Attributes:
        limits: How long, and how to search.
        effort: How to measure; without threads, 1 and all cores.
        timeout: Seconds that a batch's candidate may take to run.
        tasks: Numbers or name patterns of the tasks to tune; all by default.
        prior: Files of records to start from, besides the output.
        tracker: Where to get a board from; this machine measures by default.
    """

    limits: Limits = field(default_factory=Limits)
    effort: Effort = field(default_factory=lambda: Effort(()))
    timeout: float = 20.0
    tasks: tuple[str, ...] = ()
    prior: tuple[Path, ...] = ()
    tracker: Tracker | None = None


@dataclass(frozen=True)
class TuneReport:
    """What a tuning run found.

    Attributes:
        output: File of records.
        tasks: Where the search of each task ended.
        whole: The check of the whole model; None where nothing was found, or Ctrl-C came before.
        interrupted: Whether Ctrl-C ended the run.
    """

    output: Path
    tasks: tuple[Progress, ...]
    whole: Whole | None
    interrupted: bool


def tune(
    models: Sequence[Model],
    inputs: Sequence[np.ndarray[Any, Any]],
    target: Target,
    output: Path,
    options: TuneOptions,
    build: Build,
    runtime: Path,
    report: Report | None = None,
    warn: Warn = warn_on_stderr,
) -> TuneReport:
    """Search the decisions of fused models' kernels, and write the best ones to ``output``.

    Args:
        models: One for each set of input shapes; the first is measured as a whole.
        inputs: Inputs of the first.
        target: Chip to tune for.
        output: File of records; what it holds already is where the search starts.
        options: How to tune.
        build: The compiler.
        runtime: Folder of the C runtime's sources.
        report: Told of every step.
        warn: Told of records that cannot be used.

    Raises:
        TargetError: This machine cannot run the target's code, and no tracker is given.
        OptionError: A file of records cannot be read, or no task has the wanted name.
        ToolError: No compiler, or xgboost is missing.
    """
    _check_machine(target, options)
    effort = _complete(options.effort, models, target, options.tracker)
    records = _earlier([*options.prior, *([output] if output.exists() else [])], warn)
    everything = find_tasks(models, target)
    tasks = select_tasks(everything, options.tasks)
    progresses = [_start(task, records.get(task.key)) for task in tasks]
    library = build_harness(target, runtime)

    def step(all_tasks: Sequence[Progress], changed: Progress) -> None:
        if changed.result is not None:
            records[changed.task.key] = _record(changed, target, models[0].name)
        write_records(output, records.values())
        if report:
            report(all_tasks, changed)

    def compile_with(keys: Collection[str], path: Path) -> list[str]:
        chosen = [record for key, record in records.items() if key in keys]
        return build(models[0], Records(chosen, target, warn).choose, path)

    with tempfile.TemporaryDirectory(prefix="tvm_ipu-tune-") as name, noted_interrupts() as interrupts:
        folder = Path(name)
        runner = ImageRunner(options.timeout, options.tracker)
        try:
            search = Search(
                progresses, _opener(target, build, runner, library, folder, effort), options.limits, step
            )
            search.run()
            gains = [task for task in everything if task.key in records and records[task.key].gain]
            whole = None
            if gains:
                slow = ImageRunner(WHOLE_TIMEOUT, options.tracker)
                place = folder / "whole"
                bench = Bench(models[0], inputs, compile_with, slow, library, place, effort.threads)
                whole = check_whole(gains, bench)
                records.update((t.key, _dropped(records[t.key], t)) for t in gains if t.key in whole.dropped)
                write_records(output, records.values())
        except (KeyboardInterrupt, Exception) as err:
            if not (interrupts or isinstance(err, KeyboardInterrupt)):
                raise
            return TuneReport(output, tuple(progresses), None, interrupted=True)
    return TuneReport(output, tuple(progresses), whole, interrupted=False)


@contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """Notes every Ctrl-C: one that passes through TVM or a linker comes out as some other exception."""
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield seen
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def select_tasks(tasks: Sequence[Task], wanted: Sequence[str]) -> list[Task]:
    """Tasks by number, from 0, or by a pattern of their names; all where nothing is wanted.

    Raises:
        OptionError: There is no such task.
    """
    chosen: dict[str, Task] = {}
    for word in wanted:
        found = [task for task in tasks if fnmatch.fnmatch(task.name, word) or task.template == word]
        if word.isdigit():
            found = list(tasks[int(word) : int(word) + 1])
        if not found:
            raise OptionError(
                f"--tasks: no task is called '{word}'",
                f"a number from 0 to {len(tasks) - 1}, a template or a pattern; '--tasks list' shows them",
            )
        chosen.update((task.key, task) for task in found)
    return list(chosen.values()) if wanted else list(tasks)


def _check_machine(target: Target, options: TuneOptions) -> None:
    """Whether candidates can be measured, and searched for."""
    missing = sorted(set(target.requires) - read_host().features)
    if options.tracker is None and (host_arch() != target.arch or missing):
        lacks = f"it has no {', '.join(missing)}" if host_arch() == target.arch else f"it is {host_arch()}"
        raise TargetError(
            f"--target: this machine cannot run code for '{target.name}': {lacks}",
            "tune on a board of that kind with --rpc-tracker HOST:PORT --rpc-key KEY",
        )
    if options.limits.tuner == "xgb":
        try:
            import xgboost  # noqa: F401 - MetaSchedule imports it when it first learns
        except ImportError as err:
            raise ToolError(
                "the cost model needs xgboost", "run: pip install 'tvm_ipu[tune]', or use --tuner random"
            ) from err


def _complete(effort: Effort, models: Sequence[Model], target: Target, tracker: Tracker | None) -> Effort:
    """The effort with its defaults worked out."""
    cores = target.cores if tracker else min(target.cores, read_host().cores)
    cache = target.l3_bytes or 2 * target.l2_bytes
    weights = max(sum(_constant_bytes(model)) for model in models)
    return Effort(
        threads=effort.threads or tuple(sorted({1, cores})),
        repeat=effort.repeat,
        min_repeat_ms=effort.min_repeat_ms,
        jobs=effort.jobs,
        evict=effort.evict or min(weights, cache),
    )


def _constant_bytes(model: Model) -> Iterable[int]:
    import tvm_ffi
    from tvm.ir.expr import GenericConst

    sizes: list[int] = []
    tvm_ffi.structural_walk(
        model.module["main"], (GenericConst, lambda node: sizes.append(node.value.numpy().nbytes))
    )
    return sizes


def _opener(
    target: Target, build: Build, runner: ImageRunner, library: Path, folder: Path, effort: Effort
) -> Callable[[Task], TaskBench]:
    """Gives every task a folder of its own."""
    numbers = iter(range(1 << 30))
    return lambda task: TaskBench(
        task, target, build, runner, library, folder / f"task{next(numbers)}", effort
    )


def _earlier(files: Sequence[Path], warn: Warn) -> dict[str, Record]:
    return {record.key: record for file in files for record in read_records(file, warn)}


def _start(task: Task, record: Record | None) -> Progress:
    """Where the search of a task starts."""
    decision = find_decision(record.decision, task.decisions) if record else None
    if record is None or decision is None:
        return Progress(task, task.decisions[0])
    return Progress(task, decision, trials=record.trials)


def _dropped(record: Record, task: Task) -> Record:
    """The record of a task whose own choice is as good in the model."""
    own = {threads: [times[0], times[0]] for threads, times in record.microseconds.items()}
    return replace(record, decision=as_json(task.decisions[0]), gain=0.0, microseconds=own)


def _record(progress: Progress, target: Target, model: str) -> Record:
    task, times = progress.task, progress.result.microseconds if progress.result else {}
    return Record(
        template=task.template,
        problem=as_json(task.problem),
        target=target.machine,
        cores=target.cores,
        decision=as_json(progress.best),
        gain=round(progress.gain, 4),
        microseconds={threads: [round(time, 2) for time in pair] for threads, pair in times.items()},
        trials=progress.trials,
        model=model,
        tool=__version__,
        machine=read_host().model,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
