"""Accuracy of calibrated networks on real data: ``python -m scripts.accuracy --network N --levels L1,L5``.

The networks, what they are judged by and what they are calibrated on are in ``tests.models.tasks``. Levels
are run by images for this machine; other quantisers (``PEERS``), named in place of a level, by onnxruntime.
The packages come from the package indexes the first time (npm is needed).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from tests.models import quantized
from tests.models.tasks import TASKS, Judgement, Run, Sample, Task
from tvm_ipu import Session, compile_model
from tvm_ipu.base.graph import Array
from tvm_ipu.frontends.onnx.plain import graph_to_onnx
from tvm_ipu.image.stage import FIXED, Stage, write_stage
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.simulation import compile_runner

LEVELS = "L1,L2,L3,L4,L5,Q10,Q13,Q21,Q22,Q23"
PEERS: dict[str, Callable[[onnx.ModelProto, Sequence[Sample]], bytes]] = {
    "nncf": quantized.by_nncf,
    "nncf-transformer": partial(quantized.by_nncf, transformer=True),
    "ort": quantized.by_onnxruntime,
    "ort-entropy": partial(quantized.by_onnxruntime, method="Entropy"),
    "ort-percentile": partial(quantized.by_onnxruntime, method="Percentile"),
}
"""Other quantisers, with the same samples."""
FACTS = ("method", "promoted", "mp_rate")
THREADS = 2


@dataclass(frozen=True)
class Result:
    """One level.

    Attributes:
        level: Its name.
        score: Share of what is right, or MiniLM's correlation.
        decibels: Signal to noise of the outputs.
        facts: What calibration chose.
        seconds: Of calibration.
    """

    level: str
    score: float
    decibels: float
    facts: dict[str, object]
    seconds: float = 0.0


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=TASKS, default="cifar_resnet")
    parser.add_argument("--levels", default=LEVELS)
    args = parser.parse_args()
    print("| level | score | SQNR | calibration | |\n| --- | --- | --- | --- | --- |", flush=True)
    for result in measure(TASKS[args.network](), args.levels.split(",")):
        chosen = "; ".join(f"{key} {_brief(result.facts[key])}" for key in FACTS if key in result.facts)
        figures = f"{result.score:.4f} | {result.decibels:.1f} dB | {result.seconds:.0f} s"
        print(f"| {result.level} | {figures} | {chosen} |", flush=True)


def measure(task: Task, levels: Sequence[str]) -> Iterator[Result]:
    """The float network, then each level or quantiser."""
    floating = _by_onnxruntime(graph_to_onnx(task.graph))
    expected = task.judge(lambda feeds: floating(task.preprocess(feeds)))
    yield Result("float", expected.score, np.inf, {})
    for level in levels:
        start = time.monotonic()
        if level in PEERS:
            run = _by_onnxruntime(_of_peer(level, task))
            seconds = time.monotonic() - start
            found = task.judge(lambda feeds: run(task.preprocess(feeds)))  # noqa: B023
            yield _result(level, found, expected, {}, seconds)
            continue
        options = CalibrationOptions(level, sample_count=len(task.samples), config=task.config)
        source = lambda: (task.preprocess(feeds) for feeds in task.samples)  # noqa: E731
        quantised, table = calibrate(
            task.graph, source, lambda part: compile_runner(part, THREADS), options, task.contract
        )
        seconds = time.monotonic() - start
        stage = Stage(FIXED, graph_to_onnx(quantised), task.contract, "host", table)
        yield _result(level, by_image(stage, task), expected, table.facts, seconds)


def by_image(stage: Stage, task: Task) -> Judgement:
    """What the image of a stage does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fixed.sim"
        write_stage(stage, path)
        compile_model(path, "host", path.with_suffix(".img"))
        with Session(path.with_suffix(".img"), threads=THREADS) as session:
            return task.judge(lambda feeds: next(iter(session.run(feeds).values())))


def _result(
    level: str, found: Judgement, expected: Judgement, facts: dict[str, object], seconds: float
) -> Result:
    signal = np.square(expected.outputs.astype(np.float64)).sum()
    noise = np.square(found.outputs.astype(np.float64) - expected.outputs).sum()
    return Result(level, found.score, float(10 * np.log10(signal / noise)), dict(facts), seconds)


def _brief(fact: object) -> object:
    return len(fact) if isinstance(fact, list) else fact


def _by_onnxruntime(model: bytes) -> Run:
    """Without optimisations: those for integers change results."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options)

    def run(feeds: Sample) -> Array:
        return np.asarray(session.run(None, feeds)[0])

    return run


def _of_peer(name: str, task: Task) -> bytes:
    """The network by another quantiser, as ONNX."""
    model = onnx.load_from_string(graph_to_onnx(task.graph))
    samples = [task.preprocess(feeds) for feeds in task.samples]
    return PEERS[name](model, samples)


if __name__ == "__main__":
    main()
