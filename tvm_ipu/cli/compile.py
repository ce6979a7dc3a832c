"""``tvm-ipu compile``: a model becomes an image."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from tvm_ipu.base.batch import BATCH_MODES, N_BUF, ONE_BUF
from tvm_ipu.base.category import CATEGORIES
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.files import check_output
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.program import Program
from tvm_ipu.cli.arguments import (
    add_input_shapes,
    add_model,
    add_precision,
    add_target,
    add_tuning_records,
    checked_output,
    given_model,
    magnitude,
    numbers,
    positive,
)
from tvm_ipu.cli.inspect import print_float_layers
from tvm_ipu.cli.sources import MODELS, add_arrays, add_source, load_options
from tvm_ipu.cli.terminal import print_facts, progress, scaled, size
from tvm_ipu.image.reader import is_image
from tvm_ipu.image.schema import STAGE_SUFFIX


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_model(parser, "MODEL", f"stage (.sim), or model: {MODELS}")
    add_target(parser, None)
    parser.add_argument(
        "-o",
        "--output",
        "--output-file",
        type=Path,
        metavar="IMAGE",
        help="image to write, or the folder for it; by default the model's name with .img in this folder, or "
        "a stage's name with _sgsimg.img beside it",
    )
    add_input_shapes(parser)
    _add_accuracy(parser)
    _add_batches(parser)
    parser.add_argument(
        "-c",
        "--category",
        choices=CATEGORIES,
        default="Unknown",
        help="what the outputs are, for printing results: the five best classes of one output, or boxes from "
        "the four outputs of a detector's post-processing (default: Unknown)",
    )
    add_arrays(parser, "--outputs")
    add_source(parser)
    _add_records(parser)
    _add_development(parser)
    parser.add_argument(
        "-j",
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads that generate code (default: one a core)",
    )


def _add_accuracy(parser: argparse.ArgumentParser) -> None:
    add_precision(parser)
    parser.add_argument(
        "--samples",
        type=Path,
        metavar="NPZ",
        help="inputs by name, a sample or several one after another, on which fp16 and bf16 are judged; "
        "random ones by default",
    )
    parser.add_argument(
        "--max-error",
        type=magnitude,
        default=CompileOptions.max_error,
        metavar="E",
        help="what fp16 or bf16 may change an output, as a share of its largest value: the most sensitive "
        "layers stay in float32; 0 keeps none back (default: %(default)s)",
    )
    parser.add_argument(
        "--no-winograd",
        dest="winograd",
        action="store_false",
        help="sum the products of 3x3 convolutions one by one, where Winograd's minimal filtering would be "
        "faster, with errors of float32 about twice as large and larger weights",
    )


def _add_batches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-b",
        "--batch",
        type=numbers,
        default=(),
        metavar="N,N",
        help="batch sizes: with one_buf each becomes a plan of its own over the same weights; with n_buf the "
        "largest batch",
    )
    parser.add_argument(
        "--batch-mode",
        choices=BATCH_MODES,
        help="one_buf: the elements of a batch are stacked in one buffer, in one of the sizes of --batch (at "
        "most 10); n_buf: any number of elements up to --batch, each in buffers of its own (default: n_buf "
        "for a stage, one_buf for a model)",
    )


def _add_records(parser: argparse.ArgumentParser) -> None:
    add_tuning_records(parser, "records that tune wrote; may be repeated, and then the last one counts")
    parser.add_argument(
        "--no-tuning-records",
        action="store_true",
        help="do not use the records that come with this version either",
    )


def _add_development(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pass",
        dest="passes",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a Relax pass of your own, run before all others; may be repeated",
    )
    parser.add_argument(
        "--dump-ir", type=Path, metavar="DIR", help="write the program after each phase of the passes to DIR"
    )
    parser.add_argument("--verify", action="store_true", help="check the program after every pass")


def execute(args: argparse.Namespace) -> int:
    """Compile, and print what was made."""
    from tvm_ipu import driver

    model = given_model(args, "MODEL")
    if model.is_file() and is_image(model):
        raise OptionError(
            f"'{model}' is an image: it is compiled already", "give its fixed stage or its model"
        )
    is_stage = model.suffix.lower() == STAGE_SUFFIX
    image = checked_output(_image_path(model, is_stage, args.output))
    check_output("--output", image, model, args.samples, *args.tuning_records)
    options = CompileOptions(
        precision=args.precision,
        max_error=args.max_error,
        winograd=args.winograd,
        passes=tuple(args.passes),
        dump_dir=args.dump_ir,
        verify=args.verify,
        jobs=args.jobs,
        tuning_records=() if args.no_tuning_records else tuple(args.tuning_records),
        shipped_records=not args.no_tuning_records,
    )
    if is_stage and args.input_shapes:
        raise OptionError(
            "--input-shapes: the shapes of a stage are fixed", "give them when the model is converted"
        )
    with progress(args.verbose) as report:
        result = driver.compile_model(
            model,
            args.target or driver.default_target(model),
            image,
            input_shapes=args.input_shapes,
            batches=args.batch,
            batch_mode=args.batch_mode or (N_BUF if is_stage else ONE_BUF),
            category=args.category,
            samples=args.samples,
            loading=load_options(args),
            options=options,
            progress=report,
        )
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.seconds.items())
    print(f"wrote {result.image} in {sum(result.seconds.values()):.1f} s ({steps})")
    print_facts(_facts(result.program, result.image.stat().st_size, result.tuned))
    if args.verbose:
        print_float_layers(result.program.metadata)
    return 0


def _image_path(model: Path, is_stage: bool, output: Path | None) -> Path:
    """Where the image goes."""
    name = f"{model.name}_sgsimg.img" if is_stage else f"{model.stem}.img"
    if output is None:
        return model.with_name(name) if is_stage else Path(name)
    return output / name if output.is_dir() else output


def _facts(program: Program, file_size: int, tuned: int) -> list[tuple[str, str]]:
    """What the user should know about a new image."""
    facts = [
        ("target", program.target.name),
        ("file", f"{size(file_size)}: code {size(len(program.code))}, weights {size(len(program.weights))}"),
    ]
    layers = program.metadata.get("float_layers")
    if isinstance(layers, list):
        facts.append(("quantised", f"{len(layers)} layers stay in float" if layers else "all in integers"))
    if tuned:
        facts.append(("tuning", f"decisions of {tuned} kernel problems from records"))
    for plan in program.plans:
        shapes = f"{', '.join(map(str, plan.inputs))} -> {', '.join(map(str, plan.outputs))}"
        templates = Counter(call.template for call in plan.calls)
        facts += [
            ("plan", shapes),
            ("  work", scaled(sum(call.flops for call in plan.calls), "FLOP")),
            ("  kernels", f"{len(plan.calls)}: " + ", ".join(f"{n} {t}" for t, n in templates.most_common())),
            ("  memory", f"{size(plan.arena_size)} (all tensors side by side: {size(plan.tensor_bytes)})"),
        ]
    return facts
