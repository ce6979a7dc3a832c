"""The search for better decisions, on made-up times."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.tune_kit import PROBLEM, TARGET
from tvm_ipu.kernels.templates import gemm
from tvm_ipu.tune.measure import Measured
from tvm_ipu.tune.search import GAIN, Limits, Progress, Search
from tvm_ipu.tune.tasks import Task


class MadeUp:
    """A bench with known scores; the decisions in ``wrong`` fail, and would be the fastest."""

    def __init__(self, task, wrong=()):
        self.best = task.decisions[len(task.decisions) // 2]
        self.wrong = set(wrong)
        self.measured = []

    def score(self, decision):
        distance = [
            abs(math.log2(1 + a) - math.log2(1 + b))
            for a, b in zip(self.fields(decision), self.fields(self.best), strict=True)
        ]
        return 0.5 + 0.1 * sum(distance)

    @staticmethod
    def fields(decision):
        return vars(decision).values()

    def start(self):
        return Measured(1.0, {"1": [100.0, 100.0]})

    def measure(self, decisions, times=1):
        self.measured += decisions
        return [
            Measured(math.inf, error="output 0 is wrong")
            if decision in self.wrong
            else Measured(self.score(decision), {"1": [100.0, 100 * self.score(decision)]})
            for decision in decisions
        ]


def made_up_task(rows=49):
    problem = replace(PROBLEM, rows=rows)
    return Task("gemm", problem, f"gemm {rows}", gemm.space(problem, TARGET), 1, None, None, 1, ["layer"])


@pytest.mark.parametrize("tuner", ["xgb", "random"])
def test_search_stops_at_its_limits_and_keeps_the_best(tuner):
    task = made_up_task()
    bench = MadeUp(task)
    limits = Limits(trials=60, early_stopping=1000, tuner=tuner)
    steps = []
    search = Search([Progress(task, task.decisions[0])], lambda _: bench, limits, lambda *s: steps.append(s))
    search.run()
    (found,) = search.tasks
    assert found.trials == 60
    assert found.done == "enough trials"
    # a decision that is better by less than GAIN does not displace the best
    assert bench.score(found.best) * (1 - GAIN) < min(map(bench.score, found.tried))
    assert found.gain == pytest.approx(1 - bench.score(found.best))
    assert len(steps) > 5


def test_the_cost_model_finds_what_chance_does_not():
    """On smooth made-up times xgboost's choices are better on average than random ones."""
    task = made_up_task()
    means = {}
    for tuner in ("xgb", "random"):
        search = Search(
            [Progress(task, task.decisions[0])],
            lambda _: MadeUp(task),
            Limits(trials=80, early_stopping=1000, tuner=tuner),
            lambda *_: None,
        )
        np.random.seed(0)  # MetaSchedule's random model uses numpy's
        search.run()
        means[tuner] = np.mean(list(search.tasks[0].tried.values())[40:])
    assert means["xgb"] < means["random"]


def test_search_never_keeps_a_decision_that_fails():
    task = made_up_task()
    bench = MadeUp(task, wrong=[d for d in task.decisions[1:] if d.rows > 4])
    search = Search(
        [Progress(task, task.decisions[0])],
        lambda _: bench,
        Limits(trials=40, early_stopping=1000, tuner="random"),
        lambda *_: None,
    )
    search.run()
    (found,) = search.tasks
    assert {decision for decision, _ in found.wrong} == bench.wrong & set(bench.measured)
    assert len(found.wrong) > 5
    assert found.best not in bench.wrong


def test_search_leaves_a_task_that_gains_nothing_and_stops_when_time_is_over():
    task = made_up_task()
    flat = MadeUp(task)
    flat.score = lambda decision: 0.99
    progress = Progress(task, task.decisions[0])
    Search([progress], lambda _: flat, Limits(early_stopping=16, tuner="random"), lambda *_: None).run()
    assert (progress.done, progress.trials, progress.gain) == ("no more gain", 17, 0.0)
    late = Progress(task, task.decisions[0])
    Search([late], lambda _: flat, Limits(seconds=1e-9, tuner="random"), lambda *_: None).run()
    assert late.done == "time is over"
