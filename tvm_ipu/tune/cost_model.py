"""MetaSchedule's xgboost cost model over the templates' own decisions.

MetaSchedule's objects stand for ours: a workload is an empty function that carries the problem, a candidate
its schedule with the decision's features as an annotation.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import tvm
from tvm import s_tir, te
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule import TuneContext, _ffi_api
from tvm.s_tir.meta_schedule.cost_model import CostModel, RandomModel, XGBModel
from tvm.s_tir.meta_schedule.cost_model.xgb_model import XGBConfig
from tvm.s_tir.meta_schedule.feature_extractor import PyFeatureExtractor
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvm_ipu.tune.tasks import Task

FEATURES = "tvm_ipu.features"
WARMUP = 16
"""Measurements before the model's predictions count."""


def make_model(tuner: str) -> CostModel:
    """A cost model: ``xgb``, or ``random``, which knows nothing."""
    if tuner == "random":
        return RandomModel()
    config = XGBConfig(nthread=1)  # a second thread costs more than it saves on so few samples
    return XGBModel(extractor=_Extractor(), config=config, num_warmup_samples=WARMUP, verbose_eval=0)


class Predictor:
    """Scores a task's decisions.

    Args:
        task: The task.
        model: Shared by all tasks of one template, whose features are of one kind.
    """

    def __init__(self, task: Task, model: CostModel) -> None:
        self._model = model
        self._problem = list(numbers(asdict(task.problem)))
        source = te.placeholder((1,), name="source")
        func = te.create_prim_func([source, te.compute((1,), lambda i: source[i], name="workload")])
        self._module = tvm.IRModule({"main": func.with_attr("tvm_ipu.problem", task.key)})
        self._context = _context(self._module)
        self._ranks = {decision: rank for rank, decision in enumerate(task.decisions)}

    def learn(self, decisions: Sequence[Any], scores: Sequence[float]) -> None:
        """Take in measured times, in any unit; infinite ones are failures."""
        results = [
            RunnerResult([score], None) if math.isfinite(score) else RunnerResult(None, "failed")
            for score in scores
        ]
        self._model.update(self._context, [self._candidate(d) for d in decisions], results)

    def predict(self, decisions: Sequence[Any]) -> list[float]:
        """Scores, the higher the better."""
        return [float(s) for s in self._model.predict(self._context, [self._candidate(d) for d in decisions])]

    def _candidate(self, decision: Any) -> MeasureCandidate:
        features = [*numbers(asdict(decision)), math.log2(1 + self._ranks[decision]), *self._problem]
        schedule = s_tir.Schedule(self._module)
        schedule.annotate(schedule.get_sblock("workload"), FEATURES, json.dumps(features))
        return MeasureCandidate(schedule, [])


def _context(module: tvm.IRModule) -> TuneContext:
    """A context of a workload; the class's own constructor parses scripts of GPU intrinsics for seconds."""
    return _ffi_api.TuneContext(module, None, None, None, "task", 1, 1, None)


def numbers(value: Any) -> Iterator[float]:
    """Fields as numbers; texts by a hash, sizes by their logarithm."""
    if isinstance(value, dict):
        for part in value.values():
            yield from numbers(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, str):
        yield float(zlib.crc32(value.encode()) & 0xFF)
    else:
        yield math.copysign(math.log2(1 + abs(value or 0)), value or 0)


@derived_object
class _Extractor(PyFeatureExtractor):  # type: ignore[misc]
    """The features that a candidate carries."""

    def extract_from(self, context: TuneContext, candidates: list[MeasureCandidate]) -> list[Any]:
        """One row for each candidate."""
        rows = []
        for candidate in candidates:
            block = candidate.sch.get(candidate.sch.get_sblock("workload"))
            features = json.loads(str(block.annotations[FEATURES]))
            rows.append(tvm.runtime.tensor(np.array([features], np.float32)))
        return rows
