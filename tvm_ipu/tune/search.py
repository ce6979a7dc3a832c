"""The search: batches of decisions that the cost model likes, and some that it does not, task by task.

The template's own choice is measured first. Each batch then holds the decisions with the best predictions
among those not tried, and a share of random ones (epsilon-greedy). A batch's best is measured again with more
runs before it counts. Tasks take turns by the time that they may still gain: their share of the model's time,
less with every batch that has found nothing.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm.s_tir.meta_schedule.cost_model import CostModel

from tvm_ipu.tune.cost_model import Predictor, make_model
from tvm_ipu.tune.measure import Measured, TaskBench
from tvm_ipu.tune.tasks import Task

GAIN = 0.02
"""Share of the time that a decision has to save to be recorded: less is noise."""

CONFIRMATION = 4
"""How many times as many runs a batch's best is measured with before it counts."""


@dataclass(frozen=True)
class Limits:
    """When to stop, and how to search.

    Attributes:
        trials: Decisions of a task that are measured at most.
        seconds: Time for all tasks; 0 for no limit.
        early_stopping: Decisions of a task after which it is left, if none of them was better.
        batch: Decisions that are measured together.
        epsilon: Share of a batch that is random.
        tuner: ``xgb`` or ``random``.
        seed: Of the random choices.
    """

    trials: int = 64
    seconds: float = 0.0
    early_stopping: int = 32
    batch: int = 8
    epsilon: float = 0.2
    tuner: str = "xgb"
    seed: int = 0


@dataclass
class Progress:
    """Where the search of one task is.

    Attributes:
        task: The task.
        best: The best decision so far.
        result: Its measurement.
        trials: Decisions measured.
        earlier: Those of earlier runs among them.
        stale: Decisions measured since ``best`` was found.
        seconds: Time spent.
        wrong: Decisions whose kernel failed or computed something wrong, with the reason.
        done: Why the search has ended; empty while it goes on.
        tried: Decisions measured in this run, with their scores.
    """

    task: Task
    best: Any
    result: Measured | None = None
    trials: int = 0
    earlier: int = 0
    stale: int = 0
    seconds: float = 0.0
    wrong: list[tuple[Any, str]] = field(default_factory=list)
    done: str = ""
    tried: dict[Any, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """Share of the time of the template's own choice that the best decision saves."""
        return 1 - self.result.score if self.result and self.best != self.task.decisions[0] else 0.0

    @property
    def share(self) -> float:
        """Microseconds of the model's time that the task takes, one thread."""
        if self.result is None or not self.result.microseconds:
            return 0.0
        return self.task.calls * next(iter(self.result.microseconds.values()))[1]


Open = Callable[[Task], TaskBench]
Report = Callable[[Sequence[Progress], Progress], None]
"""Called with all tasks and the one that has just changed."""


class Search:
    """The search of all tasks.

    Args:
        tasks: Where each starts: ``best`` and ``trials`` may come from an earlier run.
        open_bench: Gets a task ready.
        limits: When to stop.
        report: Told of every step.
    """

    def __init__(self, tasks: Sequence[Progress], open_bench: Open, limits: Limits, report: Report) -> None:
        self.tasks = tasks
        self._open = open_bench
        self._limits = limits
        self._report = report
        self._benches: dict[str, TaskBench] = {}
        self._models: dict[str, CostModel] = {}
        self._predictors: dict[str, Predictor] = {}
        self._random = random.Random(limits.seed)

    def run(self) -> None:
        """Search until every task is done or the time is over."""
        start = time.monotonic()
        for progress in self.tasks:
            progress.done = self._reason(progress)
        while waiting := [progress for progress in self.tasks if not progress.done]:
            if self._limits.seconds and time.monotonic() - start > self._limits.seconds:
                for progress in waiting:
                    progress.done = "time is over"
                return
            progress = max(waiting, key=self._urgency)
            begin = time.monotonic()
            if progress.task.key not in self._benches:
                self._start(progress)
            else:
                self._step(progress)
            progress.seconds += time.monotonic() - begin
            progress.done = progress.done or self._reason(progress)
            self._report(self.tasks, progress)

    def _urgency(self, progress: Progress) -> float:
        if progress.task.key not in self._benches:
            return math.inf
        return progress.share / (1 + progress.stale / self._limits.batch) ** 2

    def _reason(self, progress: Progress) -> str:
        """Why a task should be left; empty where it should not."""
        if progress.trials >= min(self._limits.trials, len(progress.task.decisions)):
            return "all tried" if progress.trials >= len(progress.task.decisions) else "enough trials"
        return "no more gain" if progress.stale >= self._limits.early_stopping else ""

    def _start(self, progress: Progress) -> None:
        """Measure the template's own choice, then the best of an earlier run."""
        task = progress.task
        bench = self._benches[task.key] = self._open(task)
        earlier, progress.best = progress.best, task.decisions[0]
        own = bench.start()
        if own.error:
            progress.done = f"the template's own choice fails: {own.error}"
            progress.wrong.append((task.decisions[0], own.error))
            return
        progress.result = own
        progress.trials = max(progress.trials, 1)
        model = self._models.setdefault(task.template, make_model(self._limits.tuner))
        self._predictors[task.key] = Predictor(task, model)
        self._learn(progress, [task.decisions[0]], [Measured(1.0)])
        if earlier != progress.best:
            self._consider(progress, earlier, Measured(0.0))

    def _step(self, progress: Progress) -> None:
        """Measure one batch."""
        batch = self._next(progress)
        results = self._benches[progress.task.key].measure(batch)
        progress.trials += len(batch)
        progress.stale += len(batch)
        for decision, result in zip(batch, results, strict=True):
            if result.error:
                progress.wrong.append((decision, result.error))
        self._learn(progress, batch, results)
        best, result = min(zip(batch, results, strict=True), key=lambda pair: pair[1].score)
        self._consider(progress, best, result)

    def _next(self, progress: Progress) -> list[Any]:
        """Decisions to try: those with the best predictions, and random ones."""
        left = [decision for decision in progress.task.decisions if decision not in progress.tried]
        size = min(self._limits.batch, len(left), self._limits.trials - progress.trials)
        scores = self._predictors[progress.task.key].predict(left)
        if len(progress.tried) == 1:  # nothing learnt of this task: the template's own order is as good
            scores = [-float(rank) for rank in range(len(left))]
        greedy = size - round(self._limits.epsilon * size)
        order = sorted(range(len(left)), key=lambda i: -scores[i])
        chosen = order[:greedy] + self._random.sample(order[greedy:], size - greedy)
        return [left[i] for i in chosen]

    def _learn(self, progress: Progress, decisions: Sequence[Any], results: Sequence[Measured]) -> None:
        scores = [result.score for result in results]
        progress.tried.update(zip(decisions, scores, strict=True))
        self._predictors[progress.task.key].learn(decisions, scores)

    def _consider(self, progress: Progress, decision: Any, result: Measured) -> None:
        """Make a decision the best one if it still is when measured again."""
        best = progress.result.score if progress.result and progress.gain else 1.0
        if result.error or result.score > best * (1 - GAIN):
            return
        (again,) = self._benches[progress.task.key].measure([decision], CONFIRMATION)
        progress.tried[decision] = again.score
        if again.error:
            progress.wrong.append((decision, again.error))
        elif again.score <= best * (1 - GAIN) and again.worst <= 1 + GAIN:
            progress.best, progress.result, progress.stale = decision, again, 0
