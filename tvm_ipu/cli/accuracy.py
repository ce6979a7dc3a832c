"""``tvm-ipu accuracy``: a fixed stage against its float stage on samples, tensor by tensor."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.files import check_output
from tvm_ipu.cli.arguments import add_threads, checked_output, make_folder, thread_count
from tvm_ipu.cli.simulate import add_inputs
from tvm_ipu.cli.terminal import print_facts, print_table, progress, size

if TYPE_CHECKING:
    from tvm_ipu.accuracy import Models, Report
    from tvm_ipu.samples import Samples
    from tvm_ipu.simulate.compare import Comparison

LISTED = 10
"""Tensors that are printed; the report has all."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "-m",
        "--model",
        "--model-file",
        "--float-model",
        type=Path,
        required=True,
        metavar="STAGE",
        help="float stage (.sim)",
    )
    parser.add_argument(
        "-f", "--fixed", "--fixed-model", type=Path, required=True, metavar="STAGE", help="fixed stage (.sim)"
    )
    parser.add_argument(
        "--offline", type=Path, metavar="IMAGE", help="image of the fixed stage, to run as well"
    )
    add_inputs(parser)
    parser.add_argument(
        "-c",
        "--category",
        choices=("Classification", "Unknown"),
        default="Unknown",
        help="Classification counts how often the best class is right (default: Unknown)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the right classes: a line a sample, its number, or the sample's file name and the number",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="folder for accuracy.json and accuracy.html"
    )
    group = parser.add_argument_group("mending")
    group.add_argument(
        "--fix",
        type=Path,
        metavar="STAGE",
        help="fixed stage to write, with 16 bits for as many tensors as needed",
    )
    group.add_argument(
        "--max-drop",
        type=_points,
        metavar="P%",
        help="points of top-1 accuracy (without labels: samples in 100 that may change class) it may lose",
    )
    group.add_argument(
        "--min-sqnr", type=float, metavar="DB", help="signal to quantisation noise of every output"
    )
    add_threads(parser)


def execute(args: argparse.Namespace) -> int:
    """Measure, mend where that is asked for, and report."""
    from tvm_ipu.accuracy import Bound, check_image, cost, float_runner, measure, mend, paired, read_models
    from tvm_ipu.image.stage import write_stage
    from tvm_ipu.samples import open_samples
    from tvm_ipu.simulation import check_config

    bound = Bound(args.max_drop, args.min_sqnr)
    is_classifier = args.category == "Classification" or args.labels is not None
    if args.fix is not None and bound == Bound():
        raise OptionError("--fix needs a bound", "give --max-drop or --min-sqnr")
    if args.max_drop is not None and not is_classifier:
        raise OptionError("--max-drop is for classifiers", "add -c Classification, or give --min-sqnr")
    if args.fix is not None:
        checked_output(args.fix, (".sim",), "--fix")
        check_output("--fix", args.fix, args.model, args.fixed)
    if args.output is not None:
        make_folder(args.output)
    models = read_models(args.model, args.fixed)
    if args.offline is not None:
        check_image(args.offline, models)
    check_config(args.input_config, models.contract, models.stage.target)
    samples = open_samples(args.image, args.preprocess, models.floating.inputs, models.contract, args.timeout)
    names = [", ".join(file.name for file in files) for files in samples.files]
    labels = _read_labels(args.labels, samples) if args.labels else []
    floating = float_runner(models, args.batch)
    with progress(args.verbose) as report:

        def run(one: Models) -> Report:
            pairs = paired(
                samples.read(True, args.num_process), samples.read(False, args.num_process), models.contract
            )
            offline = args.offline if one is models else None
            return measure(
                one, floating, pairs, names, labels, is_classifier, offline, report, batch=args.batch
            )

        found = run(models)
        if args.fix is not None:
            before = cost(models, thread_count(args))
            mended, found = mend(models, found, bound, run)
            after = cost(mended, thread_count(args))
            write_stage(mended.stage, args.fix)
            found.cost = dict(
                zip(("bytes_before", "ms_before", "bytes_after", "ms_after"), before + after, strict=True)
            )
    _print(found)
    if args.output is not None:
        _write(found, args.output, f"{args.fixed.name} against {args.model.name}")
    return 0


def _points(text: str) -> float:
    """``0.5%`` or ``0.5``."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of points such as 0.5%") from None
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 0% and 100%")
    return value


_DIGITS = 20
"""More than the number of a class has."""


def _read_labels(path: Path, samples: Samples) -> list[int]:
    """The class of each sample.

    Raises:
        OptionError: A line is no number, or samples are missing.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise OptionError(f"--labels: cannot read '{path}': {getattr(err, 'strerror', '') or err}") from err
    rows = {number: row.replace(",", " ").split() for number, row in enumerate(text.splitlines(), 1)}
    for number, row in rows.items():
        if row and not (row[-1].isdecimal() and len(row[-1]) < _DIGITS):
            raise OptionError(
                f"--labels: {path}, line {number}: '{row[-1][:_DIGITS]}' is not the number of a class",
                "a line is a number, or a file name and a number",
            )
    lines = [row for row in rows.values() if row]
    if all(len(line) == 1 for line in lines):
        found = [int(line[0]) for line in lines]
    else:
        named = {Path(line[0]).name: int(line[-1]) for line in lines}
        missing = [files[0].name for files in samples.files if files[0].name not in named]
        if missing:
            raise OptionError(f"--labels: {path} has no line for '{missing[0]}'")
        found = [named[files[0].name] for files in samples.files]
    if len(found) != len(samples):
        raise OptionError(f"--labels: {path} has {len(found)} labels, and there are {len(samples)} samples")
    return found


def _print(report: Report) -> None:
    if report.scores:
        columns = ("model", ">agrees with float", *((">top-1", ">top-5") if report.labelled else ()))
        rows = [
            (
                name,
                f"{one.agreed / max(one.samples, 1):.2%}",
                *((f"{one.share(1):.2%}", f"{one.share(5):.2%}") if report.labelled else ()),
            )
            for name, one in report.scores.items()
        ]
        print_table(columns, rows)
        print()
    columns = ("tensor", "operator", ">bits", ">SQNR (dB)", ">cosine", ">MSE", ">saturated")
    print_table(columns, map(_row, [*report.outputs, *_worst(report.activations), *_worst(report.weights)]))
    facts: list[tuple[str, object]] = [
        ("give 16 bits first", ", ".join(name for name, _ in report.ranking()[:3])),
    ]
    extremes = dict.fromkeys(
        n for one in _worst(report.activations) for n in report.extremes.get(one.name, [])
    )
    if extremes:
        facts.append(("their ranges come from", ", ".join(list(extremes)[:5])))
    if report.float_layers:
        facts.append(("in float", f"{len(report.float_layers)} layers"))
    if report.differing:
        facts.append(("image differs", ", ".join(report.differing[:5])))
    if report.promoted:
        facts.append(("now 16 bits", ", ".join(report.promoted)))
    if report.cost:
        before, after = (
            f"{size(int(report.cost[f'bytes_{when}']))}, {report.cost[f'ms_{when}']:.3g} ms"
            for when in ("before", "after")
        )
        facts.append(("cost", f"{before} -> {after}"))
    print()
    print_facts(facts)


def _worst(tensors: Iterable[Comparison]) -> list[Comparison]:
    return sorted(tensors, key=lambda one: one.sqnr)[:LISTED]


def _row(one: Comparison) -> tuple[object, ...]:
    ratio = f"{one.sqnr:.1f}" if math.isfinite(one.sqnr) else "exact"
    return (
        one.name,
        one.operator,
        one.bits,
        ratio,
        f"{one.cosine:.5f}",
        f"{one.mse:.3g}",
        f"{one.saturated:.2%}",
    )


def _write(report: Report, folder: Path, title: str) -> None:
    """``accuracy.json`` and ``accuracy.html``."""
    from tvm_ipu.base.files import whole_file
    from tvm_ipu.simulate.page import render

    data = report.to_json()
    make_folder(folder)
    with whole_file(folder / "accuracy.json") as file:
        file.write(json.dumps(data, indent=1).encode())
    with whole_file(folder / "accuracy.html") as file:
        file.write(render(data, title).encode())
    print(f"wrote {folder / 'accuracy.json'} and {folder / 'accuracy.html'}")
