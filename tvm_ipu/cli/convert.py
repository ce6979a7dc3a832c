"""``tvm-ipu convert``: an ONNX model becomes an optimised ONNX model of fixed shapes."""

from __future__ import annotations

import argparse
from pathlib import Path

from tvm_ipu.base.errors import OptionError
from tvm_ipu.cli.arguments import add_input_shapes, positive


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
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


def execute(args: argparse.Namespace) -> int:
    """Convert, and name the result."""
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
