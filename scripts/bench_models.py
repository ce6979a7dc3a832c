"""Times real models as images beside other runtimes, and how far they are from the machine's limits.

For each model, precision and number of threads, the image and the other runtimes run in turn in one process.
The results go to FOLDER/results.json, beside those of earlier runs that this one does not repeat; --report
makes docs/benchmarks.md of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.bench_report import write_report
from scripts.peaks import measure_peaks
from tests.models import quantized, zoo
from tvm_ipu.base.errors import ToolError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.bench.compare import Result, compare, open_images
from tvm_ipu.bench.machine import machine
from tvm_ipu.bench.peers import open_peer
from tvm_ipu.bench.profile import profile
from tvm_ipu.cli.arguments import comma_list, numbers, positive
from tvm_ipu.cli.terminal import print_table
from tvm_ipu.driver import compile_model
from tvm_ipu.runtime import Session
from tvm_ipu.runtime.build import native_runner

MODELS = ("resnet50", "mobilenet_v2", "bert_base", "yolov8n", "minilm_l6")
PEERS = {
    "fp32": ("onnxruntime", "openvino"),
    "bf16": ("openvino:bf16",),
    "fp16": ("openvino:f16",),
    "int8": ("onnxruntime", "openvino", "openvino:bf16"),
}
"""By precision: what runs the same model in the same kind of arithmetic."""

HELD_TO = {"x86-64-v3": "AVX2", "x86-64-v4": "AVX512_CORE", "x86-64-vnni": "AVX512_CORE_VNNI"}
"""By target: ``ONEDNN_MAX_CPU_ISA`` that holds OpenVINO to its instructions; onnxruntime has no such."""

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


def main() -> None:
    """Compile, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=comma_list, default=MODELS, help=f"of {', '.join(zoo.names())}")
    parser.add_argument(
        "--precision", type=comma_list, default=("fp32", "bf16", "int8"), help=f"of {', '.join(PEERS)}"
    )
    parser.add_argument("--threads", type=numbers, default=(1, 2), help="numbers of threads")
    parser.add_argument("--target", default="host", help="target to compile for (default: host)")
    parser.add_argument(
        "--against", type=comma_list, help="other runtimes; by default those with the precision"
    )
    parser.add_argument("--runs", type=positive, default=50, help="timed runs of each")
    parser.add_argument("--seconds", type=positive, help="as many runs as fit into this time, but 5 at least")
    parser.add_argument("--no-cold-start", action="store_true", help="do not start processes")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="for images and results")
    args = parser.parse_args()
    if args.target in HELD_TO:  # before OpenVINO is imported
        os.environ["ONEDNN_MAX_CPU_ISA"] = HELD_TO[args.target]

    args.folder.mkdir(parents=True, exist_ok=True)
    kept = args.folder / "results.json"
    facts: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"cells": {}}
    facts["machine"], facts["peaks"] = machine(), measure_peaks()
    for name in args.models:
        for precision in args.precision:
            image, model, seconds = prepare(name, precision, args)
            for threads in args.threads:
                cell = measure(name, precision, threads, image, model, args)
                cell["compile_s"] = seconds
                facts["cells"][f"{name} {precision} {threads} {args.target}"] = cell
                with whole_file(kept) as file:
                    file.write(json.dumps(facts, indent=1).encode())
    if args.report:
        write_report(facts, Path("docs/benchmarks.md"))


def prepare(name: str, precision: str, args: argparse.Namespace) -> tuple[Path, Path, float]:
    """Image of a model, the model file that it was made from, and the seconds that took."""
    model = quantized.onnx_model(name) if precision == "int8" else zoo.get(name)
    image = args.folder / f"{name}-{precision}-{args.target}.img"
    start = time.perf_counter()
    shapes = [format_input_shapes(zoo.shapes(name))]
    options = CompileOptions(precision="fp32" if precision == "int8" else precision)
    compile_model(model, args.target, image, input_shapes=shapes, options=options)
    return image, model, time.perf_counter() - start


def measure(
    name: str, precision: str, threads: int, image: Path, model: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """All that is known of one model in one precision on some threads."""
    contenders, inputs = open_images([image], 0, threads)
    for peer in args.against or PEERS[precision]:
        if args.target in HELD_TO and not peer.startswith("openvino"):
            continue
        its = quantized.openvino_model(name) if precision == "int8" and peer.startswith("openvino") else model
        try:
            contenders.append(open_peer(peer, its, inputs, threads))
        except ToolError as err:
            print(f"{name} {precision}: without {peer}: {err}")
    results = compare(contenders, _runs(contenders[0].run, len(contenders), args), warmup=3)
    session = Session(image, threads=threads)
    session.run(inputs)
    cell: dict[str, Any] = {
        "model": name,
        "precision": precision,
        "threads": threads,
        "target": args.target,
        "image_mb": image.stat().st_size / 2**20,
        "results": [_figures(result) for result in results],
        "layers": [asdict(call) for call in profile(session, 11)],
    }
    session.close()
    if args.target in HELD_TO:
        its = quantized.openvino_model(name) if precision == "int8" else model
        cell["openvino_kernels"] = openvino_kernels(its, inputs)
    if threads == 1 and not args.no_cold_start:
        others = sorted({result.name.partition(":")[0] for result in results[1:]})
        cell["cold"] = cold_starts(image, model, others, inputs, args)
    best = min((r for r in results[1:]), key=lambda r: r.timing.median, default=results[0])
    rows = [(r.name, f"{r.timing.median:.3f}", f"{r.timing.min:.3f}", f"{r.difference:.1e}") for r in results]
    print(f"\n{name} {precision}, threads: {threads}; ours / best peer: ", end="")
    print(f"{results[0].timing.median / best.timing.median:.3f}", flush=True)
    print_table(("contender", ">median (ms)", ">min (ms)", ">difference"), rows)
    return cell


def _runs(run: Any, contenders: int, args: argparse.Namespace) -> int:
    if not args.seconds:
        return int(args.runs)
    start = time.perf_counter()
    run()
    return max(5, int(args.seconds / (time.perf_counter() - start) / contenders / 1.2))


def _figures(result: Result) -> dict[str, Any]:
    timing = result.timing
    return {
        "name": result.name,
        "detail": result.detail,
        "median_ms": timing.median,
        "min_ms": timing.min,
        "runs": len(timing.samples),
        "difference": result.difference,
    }


def openvino_kernels(model: Path, inputs: Any) -> dict[str, int]:
    """How many layers OpenVINO runs with which kernels: tells whether it keeps to an instruction set."""
    import openvino

    network = openvino.Core().read_model(str(model))
    network.reshape({key: list(array.shape) for key, array in inputs.items()})
    settings = {"PERF_COUNT": "YES", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(network, "CPU", settings).create_infer_request()
    request.infer(inputs)
    ran = [info.exec_type for info in request.get_profiling_info() if info.real_time.total_seconds() > 0]
    return {kind: ran.count(kind) for kind in sorted(set(ran))}


def cold_starts(
    image: Path, model: Path, peers: list[str], inputs: Any, args: argparse.Namespace
) -> dict[str, Any]:
    """Best of five: milliseconds of a process that infers once, and its peak memory."""
    import numpy as np

    data = args.folder / "inputs.npz"
    np.savez(data, **inputs)
    root = str(Path(__file__).resolve().parent.parent)
    commands = {"ipu-run": [str(native_runner()), str(image), "--fill", "random", "--print-time"]}
    for peer in peers:
        program = _COLD.format(root=root, inputs=str(data), peer=peer, model=str(model))
        commands[peer] = [sys.executable, "-c", program]
    return {name: _best_process(command) for name, command in commands.items()}


def _best_process(command: list[str]) -> dict[str, float]:
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


if __name__ == "__main__":
    main()
