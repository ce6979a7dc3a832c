"""``tvm-ipu calibrate``: a float stage becomes a fixed one, by what samples show."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.files import check_output
from tvm_ipu.base.host import read_host
from tvm_ipu.cli.arguments import (
    add_model,
    add_sample_files,
    add_target,
    checked_output,
    given_model,
    positive,
)
from tvm_ipu.cli.inspect import tensor_bits
from tvm_ipu.cli.terminal import print_facts, progress, size
from tvm_ipu.quantize.levels import DEFAULT

if TYPE_CHECKING:
    from tvm_ipu.fixed_point import Calibration, SampleFiles

_PROCESSES = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_model(parser, "STAGE", "float stage (.sim)")
    parser.add_argument(
        "--input-config",
        type=Path,
        metavar="INI",
        help="what the board feeds and reads (docs/input-config.md); by default what the float stage says",
    )
    add_samples(parser, required=True)
    add_target(parser, None)
    parser.add_argument(
        "-o",
        "--output",
        "--output-file",
        type=Path,
        metavar="STAGE",
        help="fixed stage to write, or the folder for it; by default beside the float one, with _fixed for "
        "_float in its name",
    )


def add_samples(parser: argparse._ActionsContainer, required: bool) -> None:
    """Declare what to calibrate with, and how."""
    add_sample_files(
        parser, required, min(read_host().cores, _PROCESSES), f"one a core, at most {_PROCESSES}"
    )
    parser.add_argument(
        "--quant-level",
        metavar="LEVEL",
        help=f"L1 (fastest) to L5 (most precise), see docs/calibration.md (default: {DEFAULT})",
    )
    parser.add_argument(
        "-q", "--q-mode", metavar="MODE", help="instead of a level, Q10 to Q13 or Q20 to Q23: bits, and how"
    )
    parser.add_argument(
        "--quant-config", type=Path, metavar="YAML", help="details of Q10 to Q23 (quant_config.yaml)"
    )
    parser.add_argument(
        "--quant-param",
        type=Path,
        metavar="FILE",
        help="ranges and bits to use, JSON or Pickle, as export writes",
    )
    parser.add_argument(
        "--memory-saving",
        action="store_true",
        help="go over the samples several times, with few tensors each",
    )
    parser.add_argument(
        "--cal-batchsize",
        type=positive,
        metavar="N",
        help="for scripts of other toolchains: samples are read one at a time, however many there are",
    )


def calibration_options(args: argparse.Namespace) -> tuple[SampleFiles, Calibration]:
    """What to calibrate with, and how.

    Raises:
        OptionError: Samples are missing, or options contradict each other.
    """
    from tvm_ipu.fixed_point import Calibration, SampleFiles

    if args.image is None or args.preprocess is None:
        raise OptionError("an image needs samples to calibrate with", "give -i and -n, or write a .sim")
    if args.quant_level and args.q_mode:
        raise OptionError("--quant-level and -q exclude each other", "give one of them")
    options = Calibration(
        args.q_mode or args.quant_level or DEFAULT,
        args.num_process,
        args.memory_saving,
        args.quant_config,
        args.quant_param,
    )
    return SampleFiles(args.image, args.preprocess, float(args.timeout)), options


def execute(args: argparse.Namespace) -> int:
    """Calibrate, and say what came out."""
    from tvm_ipu import fixed_point

    source = given_model(args, "STAGE")
    output = checked_output(_fixed_path(source, args.output), (".sim",))
    samples, options = calibration_options(args)
    inputs = (source, args.input_config, args.image, args.quant_config, args.quant_param)
    check_output("--output", output, *inputs)
    with progress(args.verbose) as report:
        stage = fixed_point.make_fixed_stage(
            source,
            output,
            samples,
            options,
            input_config=args.input_config,
            target=args.target or "",
            progress=report,
        )
    print(f"wrote {output}")
    print_facts(
        [
            ("target", stage.target),
            ("calibration", f"{options.level} with {stage.metadata['samples']} samples"),
            ("tensors", tensor_bits(stage)),
            ("network", f"{size(len(stage.model))} of ONNX"),
        ]
    )
    return 0


def _fixed_path(source: Path, output: Path | None) -> Path:
    """Where the fixed stage goes."""
    name = f"{source.stem.removesuffix('_float')}_fixed.sim"
    if output is None:
        return source.with_name(name)
    return output / name if output.is_dir() else output
