"""Times real models as images beside other runtimes, and how far they are from the machine's limits.

For each model and precision, the model is compiled; for each number of threads, the image and the other
runtimes run in turn in one process. Each of these steps ends with FOLDER/results.json written. Steps whose
result is there already are left out, so that a run that was stopped goes on where it was, and --limit makes
runs of a few minutes out of a long one. --again repeats steps; --report makes docs/benchmarks.md of all.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from scripts.bench_case import HELD_TO, PEERS, Case
from scripts.bench_report import write_report
from scripts.peaks import measure_peaks
from tests.models import zoo
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.bench.machine import machine
from tvm_ipu.cli.arguments import comma_list, numbers, positive
from tvm_ipu.driver import compile_model

MODELS = ("resnet50", "mobilenet_v2", "bert_base", "yolov8n", "minilm_l6")
PRECISIONS = ("fp32", "bf16", "int8")

Step = tuple[str, Callable[[], None]]
"""A name and what to do."""


class Results:
    """What is known so far, in a file.

    Attributes:
        facts: ``machine``, ``peaks``, ``images`` (by model, precision and target) and ``cells`` (by those
            and the number of threads).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.facts: dict[str, Any] = {"images": {}, "cells": {}}
        if path.exists():
            self.facts |= json.loads(path.read_text())

    def keep(self) -> None:
        """Write the file."""
        with whole_file(self._path) as file:
            file.write(json.dumps(self.facts, indent=1).encode())


def main() -> None:
    """Do the steps that are left, and print what they find."""
    args = _arguments()
    if args.target in HELD_TO:  # before OpenVINO is imported
        os.environ["ONEDNN_MAX_CPU_ISA"] = HELD_TO[args.target]
    args.folder.mkdir(parents=True, exist_ok=True)
    results = Results(args.folder / "results.json")
    start, left = time.perf_counter(), 0
    for name, step in _steps(results, args):
        if args.limit and time.perf_counter() - start > args.limit:
            left += 1
            continue
        print(f"\n== {name}", flush=True)
        step()
        results.keep()
    if left:
        print(f"\n{left} steps or more are left: run the same command again, without --again")
    if args.report:
        write_report(results.facts, Path("docs/benchmarks.md"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=comma_list, default=MODELS, help=f"of {', '.join(zoo.names())}")
    parser.add_argument(
        "--precision",
        type=comma_list,
        default=PRECISIONS,
        help=f"of {', '.join(PEERS)}; -all: no layer is kept in float32; -here: calibrated here, not by NNCF;"
        f" -bf16: what is not integer is bf16 (default: {','.join(PRECISIONS)})",
    )
    parser.add_argument("--threads", type=numbers, default=(1, 2), help="numbers of threads")
    parser.add_argument("--target", default="host", help="target to compile for (default: host)")
    parser.add_argument(
        "--against", type=comma_list, help="other runtimes; by default those with the precision"
    )
    parser.add_argument("--runs", type=positive, default=50, help="timed runs of each")
    parser.add_argument("--seconds", type=positive, help="as many runs as fit into this time, but 5 at least")
    parser.add_argument("--no-cold-start", action="store_true", help="do not start processes")
    parser.add_argument("--compile-only", action="store_true", help="only the images, nothing that is timed")
    parser.add_argument("--again", action="store_true", help="repeat steps that are done")
    parser.add_argument("--limit", type=positive, metavar="S", help="begin no step after so many seconds")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="for images and results")
    return parser.parse_args()


def _steps(results: Results, args: argparse.Namespace) -> Iterator[Step]:
    """What is to be done, in order; a step is asked for after those before it are done, or left out."""
    facts = results.facts
    if not args.compile_only and ("peaks" not in facts or args.again):
        yield "peaks of this machine", partial(_measure_machine, facts)
    for name in args.models:
        for precision in args.precision:
            key = f"{name} {precision} {args.target}"
            case = Case(name, precision, args.target, args.folder / f"{key.replace(' ', '-')}.img")
            if args.again or key not in facts["images"] or not case.image.exists():
                yield f"compile {key}", partial(_compile, case, facts["images"], key)
            image = facts["images"].get(key)
            if args.compile_only or image is None:
                continue
            for threads in args.threads:
                cell = f"{name} {precision} {threads} {args.target}"
                if args.again or facts["cells"].get(cell, {}).get("image") != image["sha256"]:
                    yield (
                        f"measure {cell}",
                        partial(_measure, case, threads, image, facts["cells"], cell, args),
                    )


def _measure_machine(facts: dict[str, Any]) -> None:
    facts["machine"], facts["peaks"] = machine(), measure_peaks()


def _compile(case: Case, images: dict[str, Any], key: str) -> None:
    shapes = [format_input_shapes(zoo.shapes(case.name))]
    precision, _, kind = case.precision.partition("-")
    options = CompileOptions(precision="fp32" if precision == "int8" else precision)
    if kind in ("all", "bf16"):
        options = CompileOptions(precision="bf16" if kind == "bf16" else precision, max_error=0)
    model = case.model  # made before the clock starts
    start = time.perf_counter()
    compile_model(model, case.target, case.image, input_shapes=shapes, options=options)
    seconds = time.perf_counter() - start
    data = case.image.read_bytes()
    images[key] = {"compile_s": seconds, "mb": len(data) / 2**20, "sha256": sha256(data).hexdigest()}
    print(f"{seconds:.1f} s, {len(data) / 2**20:.1f} MB")


def _measure(
    case: Case, threads: int, image: dict[str, Any], cells: dict[str, Any], key: str, args: argparse.Namespace
) -> None:
    cold = threads == 1 and not args.no_cold_start
    cell = case.measure(threads, args.runs, args.seconds, args.against, cold)
    cells[key] = cell | {"image": image["sha256"]}


if __name__ == "__main__":
    main()
