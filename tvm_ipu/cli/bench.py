"""``tvm-ipu bench``: images side by side, also against other runtimes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.files import check_output
from tvm_ipu.cli.arguments import add_threads, count, positive, thread_count
from tvm_ipu.cli.terminal import print_table

if TYPE_CHECKING:
    from tvm_ipu.bench.compare import Result


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="images with the same inputs")
    parser.add_argument(
        "--against",
        nargs=2,
        metavar=("RUNTIMES", "MODEL"),
        help="other runtimes (onnxruntime,openvino,openvino:bf16) and the model that they run",
    )
    parser.add_argument(
        "--plan", type=count, default=0, metavar="N", help="plan of the images to run (default: 0)"
    )
    add_threads(parser)
    parser.add_argument(
        "--runs", type=positive, default=50, metavar="N", help="timed runs of each (default: 50)"
    )
    parser.add_argument(
        "--warmup", type=count, default=5, metavar="N", help="runs of each before the timed ones (default: 5)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times as JSON")


def execute(args: argparse.Namespace) -> int:
    """Measure, and print medians and ratios."""
    from tvm_ipu.bench.compare import compare, open_images
    from tvm_ipu.bench.peers import open_peers

    model = Path(args.against[1]) if args.against else None
    check_output("--json", args.json, *args.images, model)
    threads = thread_count(args)
    contenders, inputs = open_images(args.images, args.plan, threads)
    if model is not None:
        contenders += open_peers(args.against[0], model, inputs, threads)
    results = compare(contenders, args.runs, args.warmup)
    rows = [_row(result) for result in results]
    print_table(
        (
            "",
            "target or version",
            ">median (ms)",
            ">min (ms)",
            ">max (ms)",
            ">std (ms)",
            ">ratio",
            ">difference",
        ),
        rows,
    )
    if args.json:
        _write_json(results, args)
    return 0


def _row(result: Result) -> tuple[str, ...]:
    timing = result.timing
    times = (f"{value:.4f}" for value in (timing.median, timing.min, timing.max, timing.std))
    return result.name, result.detail, *times, f"{result.ratio:.3f}", f"{result.difference:.1e}"


def _write_json(results: list[Result], args: argparse.Namespace) -> None:
    from tvm_ipu.base.files import whole_file
    from tvm_ipu.bench.machine import machine

    rows = [{"median_ms": result.timing.median, **asdict(result)} for result in results]
    report = {"machine": machine(), "threads": thread_count(args), "results": rows}
    with whole_file(args.json) as file:
        file.write(json.dumps(report, indent=1).encode() + b"\n")
