"""One model in one precision, measured beside other runtimes."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models import quantized, zoo
from tvm_ipu.base.errors import ToolError
from tvm_ipu.bench.compare import Contender, compare, difference, open_images
from tvm_ipu.bench.data import save_arrays
from tvm_ipu.bench.peers import open_peer
from tvm_ipu.cli.terminal import print_table
from tvm_ipu.runtime import Session
from tvm_ipu.runtime.build import native_runner

PEERS = {
    "fp32": ("onnxruntime", "openvino"),
    "bf16": ("openvino:bf16",),
    "fp16": ("openvino:f16",),
    "int8": ("onnxruntime", "openvino", "openvino:bf16"),
}
PEERS |= dict.fromkeys(("int8-here", "int8-bf16"), PEERS["int8"])
PEERS |= {f"{name}-all": PEERS[name] for name in ("bf16", "fp16")}
"""By precision: what runs the same model in the same kind of arithmetic."""

HELD_TO = {"x86-64-v3": "AVX2", "x86-64-v4": "AVX512_CORE", "x86-64-vnni": "AVX512_CORE_VNNI"}
"""By target: ``ONEDNN_MAX_CPU_ISA`` that holds OpenVINO to its instructions; onnxruntime has no such."""

PROFILE_NS = 2e9
LEAST_PROFILES, MOST_PROFILES = 11, 101
"""Time for runs with and without a profile, and how many there are of each."""

Array = NDArray[Any]
Inputs = Mapping[str, Array]

_COLD = """
import sys, numpy as np
sys.path.insert(0, {root!r})
from tvm_ipu.bench.peers import open_peer
with np.load({inputs!r}) as data:
    open_peer({peer!r}, __import__("pathlib").Path({model!r}), dict(data), 1).run()
with open("/proc/self/status") as status:
    (peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
print("peak memory:", int(peak) / 1024, "MB")
"""


@dataclass(frozen=True)
class Case:
    """A model of ``tests.models.zoo`` in one precision, as an image for one target.

    Attributes:
        name: The model's.
        precision: A key of ``PEERS``.
        target: What the image is for.
        image: The image's file.
    """

    name: str
    precision: str
    target: str
    image: Path

    @cached_property
    def model(self) -> Path:
        """The ONNX file that the image is made from."""
        if self.precision == "int8-here":
            return quantized.quantize_here(self.name, self.image.with_suffix(".onnx"))
        return quantized.onnx_model(self.name) if self.precision.startswith("int8") else zoo.get(self.name)

    def measure(
        self, threads: int, runs: int, seconds: int | None, peers: Sequence[str] | None, cold: bool
    ) -> dict[str, Any]:
        """All that is known of the image on some threads, as JSON values.

        Args:
            threads: Threads of the image and of the other runtimes.
            runs: Timed runs of each.
            seconds: As many runs as fit into this time, instead.
            peers: Other runtimes; None for those of ``PEERS``.
            cold: Whether to time processes that start, too.
        """
        contenders, inputs = open_images([self.image], 0, threads, zoo.inputs(self.name))
        for peer in peers or PEERS[self.precision]:
            if self.target in HELD_TO and not peer.startswith("openvino"):
                continue
            try:
                contenders.append(open_peer(peer, self._model_of(peer), inputs, threads))
            except ToolError as err:
                print(f"without {peer}: {err}")
        results = compare(contenders, _fitting(contenders, seconds) if seconds else runs, warmup=3)
        reference = open_peer("onnxruntime", zoo.get(self.name), inputs, threads).run()
        figures = [
            {
                "name": result.name,
                "detail": result.detail,
                "median_ms": result.timing.median,
                "min_ms": result.timing.min,
                "runs": len(result.timing.samples),
                "error": difference(contender.run(), reference),
            }
            for contender, result in zip(contenders, results, strict=True)
        ]
        cell = {
            "model": self.name,
            "precision": self.precision,
            "threads": threads,
            "target": self.target,
            "results": figures,
            **self._profile(threads, inputs),
        }
        if self.target in HELD_TO:
            cell["openvino_kernels"] = openvino_kernels(self._model_of("openvino"), inputs)
        if cold:
            others = sorted({contender.name.partition(":")[0] for contender in contenders[1:]})
            cell["cold"] = self._cold_starts(others, inputs)
        _show(figures)
        return cell

    def _model_of(self, peer: str) -> Path:
        if self.precision.startswith("int8") and peer.startswith("openvino"):
            return quantized.openvino_model(self.name)
        return self.model

    def _profile(self, threads: int, inputs: Inputs) -> dict[str, Any]:
        """Nanoseconds of each layer; what share of runs in between their sum is. Medians."""
        with Session(self.image, threads=threads) as session:
            session.run(inputs)
            count = min(MOST_PROFILES, max(LEAST_PROFILES, int(PROFILE_NS / session.time_runs(1)[0] / 2)))
            pairs = [(session.time_runs(1)[0], session.profile()) for _ in range(count)]
        layers = [asdict(call) for call in pairs[0][1]]
        for i, layer in enumerate(layers):
            layer["ns"] = int(np.median([calls[i].ns for _, calls in pairs]))
        total = np.median([sum(call.ns for call in calls) for _, calls in pairs])
        return {"layers": layers, "profiled": float(total / np.median([run for run, _ in pairs]))}

    def _cold_starts(self, peers: Sequence[str], inputs: Inputs) -> dict[str, Any]:
        """Best of five: milliseconds of a process that infers once, and its peak memory."""
        root = str(Path(__file__).resolve().parent.parent)
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "inputs.npz"
            save_arrays(data, inputs)
            commands = {
                "ipu-run": [str(native_runner()), str(self.image), "--fill", "random", "--print-time"]
            }
            for peer in peers:
                program = _COLD.format(root=root, inputs=str(data), peer=peer, model=str(self.model))
                commands[peer] = [sys.executable, "-c", program]
            return {name: _best_process(command) for name, command in commands.items()}


def openvino_kernels(model: Path, inputs: Inputs) -> dict[str, int]:
    """How many layers OpenVINO runs with which kernels: tells whether it keeps to an instruction set."""
    import openvino

    network = openvino.Core().read_model(str(model))
    network.reshape({key: list(array.shape) for key, array in inputs.items()})
    settings = {"PERF_COUNT": "YES", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(network, "CPU", settings).create_infer_request()
    request.infer(dict(inputs))
    ran = [info.exec_type for info in request.get_profiling_info() if info.real_time.total_seconds() > 0]
    return {kind: ran.count(kind) for kind in sorted(set(ran))}


def _fitting(contenders: Sequence[Contender], seconds: int) -> int:
    start = time.perf_counter()
    for contender in contenders:
        contender.run()
    return max(5, int(seconds / (time.perf_counter() - start)))


def _best_process(command: Sequence[str]) -> dict[str, float]:
    found: list[tuple[float, float]] = []
    for _ in range(5):
        start = time.perf_counter()
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.perf_counter() - start
        memory = re.search(r"peak memory: ([\d.]+) MB", text)
        if memory is None:
            raise RuntimeError(f"{command[0]} does not tell its peak memory")
        found.append((seconds * 1e3, float(memory[1])))
    return {"ms": min(ms for ms, _ in found), "memory_mb": min(memory for _, memory in found)}


def _show(figures: Sequence[dict[str, Any]]) -> None:
    ours, *others = figures
    best = min(others, key=lambda one: one["median_ms"], default=ours)
    print(f"ours / best peer: {ours['median_ms'] / best['median_ms']:.3f}")
    rows = [
        (one["name"], f"{one['median_ms']:.3f}", f"{one['min_ms']:.3f}", f"{one['error']:.1e}")
        for one in figures
    ]
    print_table(("contender", ">median (ms)", ">min (ms)", ">error"), rows)
