"""``tvm-ipu convert``: a model becomes an optimised ONNX model, or a float stage, or an image in one go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tvm_ipu.base.errors import OptionError
from tvm_ipu.cli.arguments import add_input_shapes, add_target, comma_list, positive
from tvm_ipu.cli.calibrate import add_samples, calibration_options
from tvm_ipu.cli.terminal import print_facts, progress, size
from tvm_ipu.frontends.loaders import PLATFORMS, ready_platforms

MODEL = "model"
"""Subcommand that may be left out: ``convert MODEL --output-model ONNX``."""


def expand(words: Sequence[str]) -> list[str]:
    """The words behind ``convert`` with the subcommand that was left out."""
    named = bool(words) and words[0] in (MODEL, *PLATFORMS, "-h", "--help")
    return list(words) if named else [MODEL, *words]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    kinds = parser.add_subparsers(dest="platform", metavar="PLATFORM", required=True)
    summary = "an ONNX model of fixed shapes, from an ONNX model; 'model' may be left out"
    _configure_model(
        kinds.add_parser(MODEL, help=summary, description=f"Writes {summary}.", allow_abbrev=False)
    )
    for name, platform in PLATFORMS.items():
        article = "an" if name == "onnx" else "a"
        ready = "" if name in ready_platforms() else "; there is no loader yet"
        summary = (
            f"a float stage (.sim), or an image (.img) at once, from {article} {platform.title} model{ready}"
        )
        kind = kinds.add_parser(name, help=summary, description=f"Writes {summary}.", allow_abbrev=False)
        _configure_platform(kind, name)


def _configure_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="ONNX model")
    parser.add_argument("--input-model", type=Path, metavar="MODEL", help="the same, as an option")
    parser.add_argument(
        "-o",
        "--output-model",
        "--output",
        type=Path,
        required=True,
        metavar="ONNX",
        help="ONNX model to write",
    )
    add_input_shapes(parser)
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="type of the floating-point weights and activations (default: fp32)",
    )
    parser.add_argument(
        "--convert-version",
        type=positive,
        metavar="N",
        help="opset of the result; by default the model's own",
    )


def _configure_platform(parser: argparse.ArgumentParser, name: str) -> None:
    model = "--graph-def-file" if name == "tensorflow_graphdef" else "--model-file"
    parser.add_argument(
        model, dest="model_file", type=Path, required=True, metavar="MODEL", help="model file"
    )
    if name == "caffe":
        parser.add_argument(
            "--weight-file", type=Path, required=True, metavar="WEIGHTS", help="its weights (.caffemodel)"
        )
    parser.add_argument(
        "--input-config",
        type=Path,
        metavar="INI",
        help="what the board feeds and reads (docs/input-config.md); plain arrays without it",
    )
    parser.add_argument(
        "-o",
        "--output-file",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="float stage (.sim) to write, or image (.img), which needs -i and -n",
    )
    add_target(parser)
    add_input_shapes(parser)
    for option, what in (
        ("input", "begins; by default its inputs"),
        ("output", "ends; by default its outputs"),
    ):
        parser.add_argument(
            f"--{option}-arrays",
            type=comma_list,
            default=(),
            metavar="NAME,NAME",
            help=f"tensors where the network {what}",
        )
    parser.add_argument(
        "--skip-simplify",
        action="store_true",
        help="leave BatchNormalization as it is; it goes into the convolution before it by default",
    )
    add_samples(parser.add_argument_group("for an image"), required=False)
    parser.add_argument(
        "--export-models", action="store_true", help="keep the float and the fixed stage beside the image"
    )


def execute(args: argparse.Namespace) -> int:
    """Convert, and name the result."""
    return _convert_model(args) if args.platform == MODEL else _convert_platform(args)


def _convert_model(args: argparse.Namespace) -> int:
    model = args.model or args.input_model
    if model is None or (args.model and args.input_model):
        raise OptionError("give one model, as MODEL or as --input-model")
    from tvm_ipu import driver

    driver.convert_model(
        model,
        args.output_model,
        input_shapes=args.input_shapes,
        precision=args.precision,
        opset=args.convert_version,
    )
    print(f"wrote {args.output_model}")
    return 0


def _convert_platform(args: argparse.Namespace) -> int:
    from tvm_ipu import fixed_point

    source = fixed_point.ModelFile(
        args.model_file,
        args.platform,
        args.input_config,
        args.target,
        tuple(args.input_shapes),
        args.input_arrays,
        args.output_arrays,
        not args.skip_simplify,
    )
    if fixed_point.check_suffix(args.output_file, (".sim", ".img"), "--output-file") == ".sim":
        stage = fixed_point.make_float_stage(source, args.output_file)
        print(f"wrote {args.output_file}")
        print_facts([("target", stage.target), ("network", f"{size(len(stage.model))} of ONNX")])
        return 0
    samples, options = calibration_options(args)
    with progress(args.verbose) as report:
        written = fixed_point.make_image(
            source, args.output_file, samples, options, export_models=args.export_models, progress=report
        )
    for path in written:
        print(f"wrote {path}")
    return 0
