"""``tvm-ipu simulate``: a stage or an image runs on samples."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.category import CATEGORIES, TOP
from tvm_ipu.cli.arguments import (
    add_model,
    add_sample_files,
    add_threads,
    given_model,
    make_folder,
    positive,
    thread_count,
)
from tvm_ipu.cli.terminal import print_table, progress

if TYPE_CHECKING:
    from tvm_ipu.simulation import Array

PHASES = ("Float", "Fixed", "Offline")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_model(parser, "FILE", "float or fixed stage (.sim), or image")
    add_inputs(parser)
    parser.add_argument(
        "-t",
        "--type",
        "--phase",
        dest="phase",
        choices=PHASES,
        help="what the model is; by default as its file says",
    )
    parser.add_argument(
        "-c",
        "--category",
        choices=CATEGORIES,
        help="what its outputs are: Classification prints the best classes, Detection the boxes, Unknown the "
        "numbers (default: what an image was compiled as, Unknown for a stage)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="folder for the outputs: an .npz file a sample"
    )
    add_threads(parser)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Declare the samples."""
    add_sample_files(parser, required=True)
    parser.add_argument(
        "--input-config",
        type=Path,
        metavar="INI",
        help="the configuration that the model was made with; it is in the model, and only compared",
    )
    parser.add_argument(
        "-b",
        "--batch",
        type=positive,
        default=1,
        metavar="N",
        help="samples that run at once, stacked in the first dimension: faster for small networks; an image "
        "must have been compiled for that batch with one_buf (default: 1)",
    )


def execute(args: argparse.Namespace) -> int:
    """Run every sample and print or write what comes out."""
    from tvm_ipu.base.category import check_category
    from tvm_ipu.bench.data import save_arrays
    from tvm_ipu.samples.raw import raw_feeds
    from tvm_ipu.simulate.stacking import chunks, run_stacked
    from tvm_ipu.simulation import check_config, describe_model, samples_for

    model = describe_model(given_model(args, "FILE"), args.phase or "", args.batch)
    check_config(args.input_config, model.contract, model.target)
    samples = samples_for(model, args.image, args.preprocess, args.timeout)
    with progress(args.verbose) as report:
        if report:
            report(f"opening {model.path}", 0, 0)
        simulator = model.open(thread_count(args))
    category = args.category or model.category
    check_category(category, simulator.outputs)
    if args.output is not None:
        make_folder(args.output)
    is_float = model.phase == "Float"
    read = samples.read(is_float, args.num_process)
    feeds = read if is_float else (raw_feeds(arrays, model.contract) for arrays in read)
    runs = (run_stacked(simulator.run, chunk, args.batch) for chunk in chunks(feeds, args.batch))
    for number, results in enumerate(chain.from_iterable(runs)):
        name = ", ".join(str(file) for file in samples.files[number])
        if args.output is not None:
            save_arrays(args.output / f"{number:05d}_{samples.files[number][0].stem}.npz", results)
        else:
            print(name)
            _print_results(results, category, model.extents)
    return 0


def _print_results(results: Mapping[str, Array], category: str, extents: tuple[int, int]) -> None:
    from tvm_ipu.base.category import boxes, top_scores

    if category == "Classification":
        (best,) = top_scores(next(iter(results.values())), TOP)[:1]
        print_table((">class", ">score"), ((label, f"{score:.6g}") for label, score in best))
    elif category == "Detection":
        columns = (">class", ">score", ">left", ">top", ">right", ">bottom")
        rows = [
            (box.label, f"{box.score:.3f}", *(f"{v:.1f}" for v in (box.left, box.top, box.right, box.bottom)))
            for found in boxes(results, *extents)
            for box in found
        ]
        print_table(columns, rows)
    else:
        for name, value in results.items():
            print(f"  {name}: {value.dtype}{list(value.shape)}")
            print("   ", " ".join(f"{number:.6g}" for number in value.ravel()[:64].tolist()))
