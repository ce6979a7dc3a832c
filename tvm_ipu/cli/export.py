"""``tvm-ipu export``: the network of a stage as an ONNX model that other tools read."""

from __future__ import annotations

import argparse
from pathlib import Path

from tvm_ipu.base.errors import OptionError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("stage", type=Path, nargs="?", metavar="STAGE", help="float or fixed stage (.sim)")
    parser.add_argument(
        "-m", "--model", "--model-file", dest="option", type=Path, metavar="STAGE", help="the same"
    )
    parser.add_argument(
        "-o",
        "--output",
        "--output-model",
        "--output-file",
        type=Path,
        metavar="ONNX",
        help="ONNX model to write; by default beside the stage, with its name",
    )


def execute(args: argparse.Namespace) -> int:
    """Export, and name the result."""
    if (args.stage is None) == (args.option is None):
        raise OptionError("give one stage, as STAGE or as -m/--model")
    from tvm_ipu import fixed_point

    stage = args.stage or args.option
    output = args.output or stage.with_suffix(".onnx")
    fixed_point.export_stage(stage, output)
    print(f"wrote {output}")
    return 0
