"""``tvm-ipu run``: an image runs on given or made-up inputs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ipu.base.category import TOP, boxes
from tvm_ipu.base.errors import OptionError, RunError
from tvm_ipu.base.files import check_output, parse_json
from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.cli.arguments import add_input_shapes, add_threads, count, positive, thread_count
from tvm_ipu.cli.terminal import print_table

if TYPE_CHECKING:
    from tvm_ipu.base.program import Plan
    from tvm_ipu.bench.data import Array
    from tvm_ipu.runtime import Session

_LABELS = "write a name a line, or a JSON list of names"

FILLS = ("random", "zeros", "ones")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image made by 'tvm-ipu compile'")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "-i", "--inputs", type=Path, metavar="NPZ", help="arrays of all inputs by name (numpy.savez)"
    )
    source.add_argument(
        "--fill", choices=FILLS, default="random", help="make up the inputs instead (default: random)"
    )
    parser.add_argument("-o", "--output", "--outputs", type=Path, metavar="NPZ", help="file for the outputs")
    parser.add_argument(
        "--plan", type=count, metavar="N", help="plan to run, as 'tvm-ipu inspect' counts them"
    )
    add_input_shapes(parser, "run the plan for these shapes; without it, the one that fits the inputs")
    add_threads(parser)
    parser.add_argument("--print-time", action="store_true", help="print a summary of the run times")
    parser.add_argument("--repeat", type=positive, default=1, metavar="N", help="timed runs (default: 1)")
    parser.add_argument(
        "--warmup", type=count, default=0, metavar="N", help="runs before the timed ones (default: 0)"
    )
    parser.add_argument("--top", type=positive, metavar="K", help="print the K largest values of each output")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="names for --top: one a line, or a JSON list"
    )
    parser.add_argument("--profile", action="store_true", help="print the time of each kernel call")
    parser.add_argument("--trace", type=Path, metavar="JSON", help="write those times as a Chrome trace")


def execute(args: argparse.Namespace) -> int:
    """Run, and print or write what was asked for."""
    from tvm_ipu.bench.data import fill, load_arrays, save_arrays
    from tvm_ipu.runtime import Session

    for option, output in (("--output", args.output), ("--trace", args.trace)):
        check_output(option, output, args.image, args.inputs, args.labels)
    labels = _read_labels(args.labels) if args.labels else []
    inputs = load_arrays(args.inputs) if args.inputs else None
    plan = args.plan if args.plan is not None else _choose_plan(args, inputs or {})
    with Session(args.image, plan, thread_count(args)) as session:
        outputs = session.run(fill(session.inputs, args.fill) if inputs is None else inputs)
        if args.output:
            save_arrays(args.output, outputs)
        category = session.metadata.get("category", "Unknown")
        if args.top or category == "Classification":
            if category == "Classification":  # an element of the batch is one row, whatever its shape
                outputs = {name: output.reshape(len(output), -1) for name, output in outputs.items()}
            _print_top(outputs, args.top or TOP, labels)
        elif category == "Detection":
            _print_boxes(outputs, session.metadata, labels)
        if not (category != "Unknown" or args.top or args.print_time or args.profile or args.trace):
            _print_outputs(outputs)
        session.time_runs(args.warmup)
        if args.print_time:
            _print_times(session.time_runs(args.repeat))
        if args.profile or args.trace:
            _profile(session, args)
    return 0


def _choose_plan(args: argparse.Namespace, inputs: Mapping[str, Array]) -> int:
    """Number of the plan for ``--input-shapes``, else for the shapes of ``inputs``, else the first."""
    asked = parse_input_shapes(args.input_shapes)
    if not asked and not inputs:
        return 0
    from tvm_ipu.image.reader import read_image

    plans = read_image(args.image).plans
    wanted = asked or {name: array.shape for name, array in inputs.items()}
    for number, plan in enumerate(plans):
        if _fits(plan, wanted):
            return number
    if asked or len(plans) > 1:
        takes = "; ".join(", ".join(map(str, plan.inputs)) for plan in plans)
        raise RunError(f"{args.image}: no plan takes inputs of these shapes", f"it takes {takes}")
    return 0  # the session says what is wrong with the inputs


def _fits(plan: Plan, wanted: Mapping[str, Sequence[int]] | Sequence[Sequence[int]]) -> bool:
    shapes = {spec.name: spec.shape for spec in plan.inputs}
    if isinstance(wanted, Mapping):
        return all(name in shapes and tuple(shape) == shapes[name] for name, shape in wanted.items())
    return [tuple(shape) for shape in wanted] == list(shapes.values())


def _read_labels(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        labels = parse_json(text) if path.suffix == ".json" else text.splitlines()
    except ValueError as err:
        raise OptionError(f"--labels: {path} is neither text nor JSON ({err})", _LABELS) from err
    if not isinstance(labels, list):
        raise OptionError(f"--labels: {path} holds no JSON list", _LABELS)
    return [str(label) for label in labels]


def _print_top(outputs: Mapping[str, Array], k: int, labels: Sequence[str]) -> None:
    """The largest values of each row of each output; a row runs along the last axis."""
    rows = []
    for name, output in outputs.items():
        values = output.reshape(-1, output.shape[-1] if output.ndim else 1)
        for number, row in enumerate(values):
            where = f"{name}[{number}]" if len(values) > 1 else name
            for index in (-row.astype(float)).argsort(kind="stable")[:k]:
                label = labels[index] if index < len(labels) else ""
                rows.append((where, index, f"{row[index]:.6g}", label))
    print_table(("output", ">index", ">value", "label"), rows)


def _print_boxes(outputs: Mapping[str, Array], metadata: Mapping[str, Any], labels: Sequence[str]) -> None:
    """What a detector has found, in pixels of the picture; in shares of it where its size is not known."""
    sizes = metadata.get("picture_sizes", {})
    height, width = next(iter(sizes.values()), (1, 1))
    rows = [
        (
            box.label,
            labels[box.label] if box.label < len(labels) else "",
            f"{box.score:.4g}",
            *(f"{edge:.4g}" for edge in (box.left, box.top, box.right, box.bottom)),
        )
        for found in boxes(outputs, height, width)
        for box in found
    ]
    print_table((">class", "label", ">score", ">left", ">top", ">right", ">bottom"), rows)


def _print_outputs(outputs: Mapping[str, Array]) -> None:
    import numpy as np

    rows = []
    for name, output in outputs.items():
        values = output.astype(float)
        summary = [f"{f(values):.6g}" if values.size else "" for f in (np.min, np.mean, np.max)]
        rows.append((name, output.dtype, list(output.shape), *summary))
    print_table(("output", "type", "shape", ">min", ">mean", ">max"), rows)


def _print_times(times: Sequence[int]) -> None:
    """The summary that tvmc prints."""
    from tvm_ipu.bench.timing import Timing

    timing = Timing(tuple(ns / 1e6 for ns in times))
    values = timing.mean, timing.median, timing.max, timing.min, timing.std
    print("Execution time summary:")
    names = ">mean (ms)", ">median (ms)", ">max (ms)", ">min (ms)", ">std (ms)"
    print_table(names, [[f"{value:.4f}" for value in values]])


def _profile(session: Session, args: argparse.Namespace) -> None:
    from tvm_ipu.base.files import whole_file
    from tvm_ipu.bench.profile import chrome_trace, gflops, profile

    calls = profile(session, args.repeat)
    if args.trace:
        with whole_file(args.trace) as file:
            file.write(json.dumps(chrome_trace(calls)).encode())
    if args.profile:
        total = sum(call.ns for call in calls) or 1
        rows = [
            (
                c.layer,
                c.op,
                c.template,
                f"{c.ns / 1e6:.4f}",
                f"{c.ns / total:.1%}",
                f"{gflops(c.flops, c.ns):.1f}",
            )
            for c in calls
        ]
        work = sum(call.flops for call in calls)
        rows.append(("all", "", "", f"{total / 1e6:.4f}", "100.0%", f"{gflops(work, total):.1f}"))
        print_table(("layer", "operator", "template", ">time (ms)", ">share", ">GFLOP/s"), rows)
