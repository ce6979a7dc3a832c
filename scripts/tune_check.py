"""Tunes a model for some minutes, from nothing, and runs the tuned image in turns with the untuned one.

A second image of the untuned model runs with them: what it seems to gain or lose is noise. The check fails
where the tuned image is slower by more than that. Records are kept in FOLDER; --seconds 0 compares with those
that are there, and another run with more seconds goes on from them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tests.models import zoo
from tvm_ipu.base.options import PRECISIONS, CompileOptions
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.bench.compare import compare, open_images
from tvm_ipu.cli.arguments import count, numbers, positive
from tvm_ipu.cli.terminal import print_table
from tvm_ipu.driver import compile_model, tune_model
from tvm_ipu.tune.search import Limits
from tvm_ipu.tune.tuner import TuneOptions

NOISE = 0.01
"""What two equal images may differ by, at least."""


def main() -> None:
    """Tune, compile, compare."""
    args = _arguments()
    args.folder.mkdir(parents=True, exist_ok=True)
    records = args.folder / f"{args.model}-{args.precision}.jsonl"
    shapes = [format_input_shapes(zoo.shapes(args.model))]
    options = CompileOptions(precision=args.precision, shipped_records=False)
    if args.seconds:
        tuning = TuneOptions(Limits(trials=args.trials, seconds=args.seconds))
        found = tune_model(
            zoo.get(args.model), "host", records, input_shapes=shapes, options=options, tuning=tuning
        )
        kept = len(found.whole.kept) if found.whole else 0
        print(f"{sum(task.trials for task in found.tasks)} decisions measured, {kept} kept", flush=True)
    images = [args.folder / f"{args.model}-{args.precision}-{kind}.img" for kind in ("own", "same", "tuned")]
    own, same, tuned = images
    if args.seconds or not all(image.exists() for image in images):
        compile_model(zoo.get(args.model), "host", own, input_shapes=shapes, options=options)
        shutil.copyfile(own, same)
        with_records = CompileOptions(
            precision=args.precision, shipped_records=False, tuning_records=(records,)
        )
        compile_model(zoo.get(args.model), "host", tuned, input_shapes=shapes, options=with_records)
    if not args.compile_only:
        sys.exit(max(_lost(images, threads, args) for threads in args.threads))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50", help=f"of {', '.join(zoo.names())}")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="(default: fp32)")
    parser.add_argument("--seconds", type=count, default=600, help="time for the search (default: 600)")
    parser.add_argument("--trials", type=positive, default=64, help="decisions of a task (default: 64)")
    parser.add_argument("--threads", type=numbers, default=(1, 2), help="numbers of threads")
    parser.add_argument("--runs", type=positive, default=60, help="timed runs of each image (default: 60)")
    parser.add_argument("--compile-only", action="store_true", help="stop before the comparison")
    parser.add_argument("--folder", type=Path, default=Path("build/tune"), help="for records and images")
    return parser.parse_args()


def _lost(images: list[Path], threads: int, args: argparse.Namespace) -> int:
    """1 where the tuned image is slower than noise explains."""
    contenders, _ = open_images(images, 0, threads, zoo.inputs(args.model))
    results = compare(contenders, args.runs, warmup=3)
    print(f"\n{args.model} {args.precision}, threads: {threads}")
    rows = [(r.name, f"{r.timing.median:.3f}", f"{r.timing.min:.3f}", f"{r.ratio:.3f}") for r in results]
    print_table(("image", ">median (ms)", ">min (ms)", ">ratio"), rows)
    _, same, tuned = results
    noise = max(NOISE, abs(same.ratio - 1))
    print(f"tuned / untuned: {tuned.ratio:.3f}, noise: {noise:.3f}", flush=True)
    return int(tuned.ratio > 1 + noise)


if __name__ == "__main__":
    main()
