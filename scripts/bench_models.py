"""Times the models of tests/models/zoo.py as images, beside other runtimes in the same run.

Prints one line a model and contender, and keeps all of it as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from tests.models import zoo
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.options import PRECISIONS, CompileOptions
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.bench.compare import Result, compare, open_images
from tvm_ipu.bench.machine import machine
from tvm_ipu.bench.peers import open_peer
from tvm_ipu.cli.arguments import add_threads, comma_list, numbers, positive, thread_count
from tvm_ipu.cli.terminal import print_table
from tvm_ipu.driver import compile_model

DEFAULT_MODELS = ("resnet50", "mobilenet_v2", "bert_base", "minilm_l6", "yolov8n")


def main() -> None:
    """Compile, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", type=comma_list, default=DEFAULT_MODELS, help=f"of {', '.join(zoo.names())}"
    )
    parser.add_argument("--batch", type=numbers, default=(1,), help="batch sizes")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument(
        "--against", type=comma_list, default=("onnxruntime", "openvino"), help="other runtimes"
    )
    parser.add_argument("--runs", type=positive, default=20, help="timed runs of each")
    parser.add_argument(
        "--folder", type=Path, default=Path("build/bench"), help="for images and results.json"
    )
    add_threads(parser)
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    rows, report = [], []
    for name in args.models:
        for batch in args.batch:
            seconds, results = measure(name, batch, args)
            report.append(
                {"model": name, "batch": batch, "compile_s": seconds, "results": [asdict(r) for r in results]}
            )
            rows += [_row(name, batch, seconds, result) for result in results]
    columns = (
        "model",
        ">batch",
        "contender",
        ">compile (s)",
        ">median (ms)",
        ">min (ms)",
        ">ratio",
        ">difference",
    )
    print_table(columns, rows)
    facts = {
        "machine": machine(),
        "threads": thread_count(args),
        "precision": args.precision,
        "models": report,
    }
    with whole_file(args.folder / "results.json") as file:
        file.write(json.dumps(facts, indent=1).encode())


def measure(name: str, batch: int, args: argparse.Namespace) -> tuple[float, list[Result]]:
    """Seconds to compile one model, and how its image and the other runtimes did."""
    model, image = zoo.get(name), args.folder / f"{name}-b{batch}-{args.precision}.img"
    start = time.perf_counter()
    shapes = [format_input_shapes(zoo.shapes(name, batch))]
    compile_model(model, "host", image, input_shapes=shapes, options=CompileOptions(precision=args.precision))
    seconds = time.perf_counter() - start
    contenders, inputs = open_images([image], 0, thread_count(args))
    contenders += [open_peer(peer, model, inputs, thread_count(args)) for peer in args.against]
    return seconds, compare(contenders, args.runs, warmup=3)


def _row(name: str, batch: int, seconds: float, result: Result) -> tuple[object, ...]:
    timing = result.timing
    times = (f"{seconds:.1f}", f"{timing.median:.3f}", f"{timing.min:.3f}")
    return name, batch, result.name, *times, f"{result.ratio:.3f}", f"{result.difference:.1e}"


if __name__ == "__main__":
    main()
