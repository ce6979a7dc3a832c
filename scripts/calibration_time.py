"""Time and memory of calibrating ResNet-50 beside NNCF: ``python -m scripts.calibration_time --runs 5``.

Each run is a process of its own, from the model file to the quantised network, with 100 samples; quantisers
take turns. Times do not depend on what the pictures show, so random ones do. NNCF has its defaults.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm_ipu.base.graph import Array

SHAPE = (1, 3, 224, 224)
SAMPLES = 100
THREADS = 2
NNCF = "nncf"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--levels", default=f"{NNCF},L2", help=f"levels or modes, and {NNCF}, with commas between"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    levels = args.levels.split(",")
    found: dict[str, list[tuple[float, float, float]]] = {level: [] for level in levels}
    for _ in range(args.runs):
        for level in levels:
            found[level].append(_run(level))
    print("| | process | without imports | memory |\n| --- | --- | --- | --- |")
    for level, runs in found.items():
        whole, after, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {level} | {whole:.1f} s | {after:.1f} s | {memory:.2f} GB |")


def _run(level: str) -> tuple[float, float, float]:
    """Seconds of a whole process, those after its imports, and its memory in GB."""
    begin = time.perf_counter()
    words = [sys.executable, "-m", "scripts.calibration_time", "--one", level]
    result = subprocess.run(words, check=True, capture_output=True, text=True)
    whole = time.perf_counter() - begin
    after, memory = json.loads(result.stdout.splitlines()[-1])
    return whole, after, memory


def measure(level: str) -> tuple[float, float]:
    """Seconds without imports, and this process's memory in GB."""
    seconds = _by_nncf() if level == NNCF else _by_level(level)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _by_level(level: str) -> float:
    """As the command does it."""
    from tvm_ipu.base.without_torch import import_tvm_without_torch

    import_tvm_without_torch()
    from tvm_ipu.frontends.onnx.plain import load_graph
    from tvm_ipu.frontends.options import LoadOptions
    from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
    from tvm_ipu.simulation import compile_runner

    begin = time.perf_counter()
    graph = load_graph(_model(), LoadOptions({"input": SHAPE}))
    options = CalibrationOptions(level, sample_count=SAMPLES, num_process=THREADS)
    calibrate(graph, samples, lambda part: compile_runner(part, THREADS), options)
    return time.perf_counter() - begin


def _by_nncf() -> float:
    import nncf
    import openvino

    begin = time.perf_counter()
    network = openvino.Core().read_model(_model())
    network.reshape({"input": list(SHAPE)})
    nncf.quantize(network, nncf.Dataset(list(samples())), subset_size=SAMPLES)
    return time.perf_counter() - begin


def samples() -> Iterator[dict[str, Array]]:
    """The same random pictures for all."""
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(SAMPLES):
        yield {"input": rng.standard_normal(SHAPE, np.float32)}


def _model() -> Path:
    from tests.models import zoo

    return zoo.get("resnet50")


if __name__ == "__main__":
    main()
