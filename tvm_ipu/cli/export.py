"""``tvm-ipu export``: a stage's network as an ONNX model that other tools read, or its ranges."""

from __future__ import annotations

import argparse
from pathlib import Path

from tvm_ipu.base.files import check_output
from tvm_ipu.cli.arguments import add_model, checked_output, given_model

_PARAMETERS = {"JSON": ".json", "Pickle": ".pkl"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add_model(parser, "STAGE", "float or fixed stage (.sim)")
    parser.add_argument(
        "-o",
        "--output",
        "--output-model",
        "--output-file",
        type=Path,
        metavar="FILE",
        help="file to write; by default beside the stage, with its name and .onnx, .json or .pkl",
    )
    parser.add_argument(
        "--output-mode",
        choices=("ONNX", *_PARAMETERS),
        default="ONNX",
        help="ONNX for the network, JSON or Pickle for the ranges and bits of a fixed stage (default: ONNX)",
    )


def execute(args: argparse.Namespace) -> int:
    """Export, and name the result."""
    from tvm_ipu import fixed_point

    stage = given_model(args, "STAGE")
    output = args.output or _beside(stage, _PARAMETERS.get(args.output_mode, ".onnx"))
    checked_output(output, (".onnx",) if args.output_mode == "ONNX" else ())
    check_output("--output", output, stage)
    if args.output_mode == "ONNX":
        fixed_point.export_stage(stage, output)
    else:
        fixed_point.export_parameters(stage, output, args.output_mode)
    print(f"wrote {output}")
    return 0


def _beside(stage: Path, suffix: str) -> Path:
    """The file to write by default; a stage that has the suffix itself gets it twice."""
    path = stage.with_suffix(suffix)
    return path if path != stage else stage.with_name(f"{stage.name}{suffix}")
