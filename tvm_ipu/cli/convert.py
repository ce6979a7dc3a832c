"""``tvm-ipu convert``: a model becomes an optimised ONNX model, or a float stage, or an image in one go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.files import check_output
from tvm_ipu.base.ini import suggest
from tvm_ipu.cli.arguments import add_batch, add_input_shapes, add_target, checked_output, positive
from tvm_ipu.cli.calibrate import add_samples, calibration_options
from tvm_ipu.cli.sources import MODELS, add_arrays, add_source, check_platform, load_options
from tvm_ipu.cli.terminal import print_facts, progress, size
from tvm_ipu.frontends.loaders import PLATFORMS, ready_platforms

MODEL = "model"
"""Subcommand that may be left out: ``convert MODEL --output-model ONNX``."""

_OF_IMAGES = ("image", "preprocess", "quant_level", "q_mode", "quant_config", "quant_param", "memory_saving")
_UNUSED = {
    ".sim": (*_OF_IMAGES, "cal_batchsize", "export_models", "convert_version"),
    ".img": ("convert_version",),
    ".onnx": (*_OF_IMAGES, "cal_batchsize", "export_models", "input_config", "skip_simplify"),
}
"""Arguments that say nothing of a result with that suffix."""

_MODEL_FILE = {
    "tensorflow_graphdef": ("--graph-def-file", "--model-file"),
    "tensorflow": ("--model-file", "--saved-model"),
}
"""Names of the option that names the model, where it is not ``--model-file`` alone."""


def expand(words: Sequence[str]) -> list[str]:
    """The words behind ``convert`` with the subcommand that was left out."""
    if words and words[0] in (MODEL, *PLATFORMS, "-h", "--help"):
        if words[0] in PLATFORMS:
            check_platform(words[0], words)
        return list(words)
    of_platforms = {"--model-file", "--graph-def-file", "--output-file"}.intersection(words)
    if of_platforms and not words[0].startswith("-"):
        raise OptionError(
            f"convert: there is no platform '{words[0]}'",
            f"{suggest(words[0], PLATFORMS)}platforms are {', '.join(PLATFORMS)}",
        )
    return [MODEL, *words]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands and their arguments."""
    kinds = parser.add_subparsers(dest="platform", metavar="PLATFORM", required=True)
    summary = "an ONNX model of fixed shapes, from a model of any kind; 'model' may be left out"
    _configure_model(
        kinds.add_parser(MODEL, help=summary, description=f"Writes {summary}.", allow_abbrev=False)
    )
    ready = ready_platforms()
    for name, platform in PLATFORMS.items():
        article = "an" if name == "onnx" else "a"
        missing = "" if name in ready else "; there is no loader yet"
        summary = (
            f"a float stage (.sim), an image (.img) at once, or an ONNX model (.onnx), from {article} "
            f"{platform.title} model{missing}"
        )
        kind = kinds.add_parser(name, help=summary, description=f"Writes {summary}.", allow_abbrev=False)
        _configure_platform(kind, name)


def _configure_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help=f"model: {MODELS}")
    parser.add_argument(
        "--input-model",
        "--saved-model",
        "--graphdef",
        "--keras",
        "--tflite",
        type=Path,
        metavar="MODEL",
        help="the same, as an option",
    )
    parser.add_argument(
        "-o",
        "--output-model",
        "--output",
        type=Path,
        metavar="ONNX",
        help="ONNX model to write; by default the model's name with .optimized.onnx beside it",
    )
    add_input_shapes(parser)
    add_batch(parser)
    add_arrays(parser)
    add_source(parser)
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="type of the floating-point weights and activations (default: fp32)",
    )
    _add_opset(parser)
    parser.add_argument(
        "--export-image",
        "--export-popef",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="IMAGE",
        help="compile the model as well, in the same shapes and precision; by default into a file named as "
        "the ONNX model, with .img",
    )
    add_target(parser)


def _add_opset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--convert-version",
        "--opset",
        type=positive,
        metavar="N",
        help="opset of the ONNX model; by default the source's own",
    )


def _configure_platform(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        *_MODEL_FILE.get(name, ("--model-file",)),
        dest="model_file",
        type=Path,
        required=True,
        metavar="MODEL",
        help="folder of the model" if name == "tensorflow" else "model file",
    )
    add_source(parser, name)
    parser.add_argument(
        "--input-config",
        type=Path,
        metavar="INI",
        help="what the board feeds and reads (docs/input-config.md); plain arrays without it",
    )
    parser.add_argument(
        "-o",
        "--output-file",
        "--output-model",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="float stage (.sim) or ONNX model (.onnx) to write, or image (.img), which needs -i and -n",
    )
    add_target(parser)
    add_input_shapes(parser)
    add_batch(parser)
    add_arrays(parser)
    _add_opset(parser)
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
        raise OptionError("give one model, as MODEL or as --input-model", "see 'tvm-ipu convert --help'")
    from tvm_ipu import driver
    from tvm_ipu.base.options import CompileOptions
    from tvm_ipu.base.shapes import parse_input_shapes
    from tvm_ipu.frontends.loaders import as_onnx

    output = args.output_model or model.with_name(f"{model.name}.optimized.onnx")
    check_output("--output-model", checked_output(output, option="--output-model"), model)
    image = _image_path(args.export_image, output)
    shapes = parse_input_shapes(args.input_shapes, "--input-shape")
    loading = replace(load_options(args), input_shapes=shapes, batch=args.batch)
    source = as_onnx(model, loading)
    driver.export_onnx(source, output, precision=args.precision, opset=args.convert_version, loading=loading)
    print(f"wrote {output}")
    if image is not None:
        options = CompileOptions(precision=args.precision)
        with progress(args.verbose) as report:
            driver.compile_model(
                source, args.target, image, loading=loading, options=options, progress=report
            )
        print(f"wrote {image}")
    return 0


def _image_path(given: Path | None, output: Path) -> Path | None:
    """Where ``--export-image`` goes, None without it; its folder is there."""
    if given is None:
        return None
    return checked_output(output.with_suffix(".img") if given == Path() else given, option="--export-image")


def _convert_platform(args: argparse.Namespace) -> int:
    from tvm_ipu import driver, fixed_point
    from tvm_ipu.base.shapes import parse_input_shapes

    shapes = parse_input_shapes(args.input_shapes)
    loading = replace(load_options(args), input_shapes=shapes, batch=args.batch)
    inputs = (args.input_config, args.image, args.quant_config, args.quant_param, loading.weights)
    check_output("--output-file", args.output_file, args.model_file, *inputs)
    kind = checked_output(args.output_file, tuple(_UNUSED), "--output-file").suffix.lower()
    _refuse_unused(args, kind)
    if kind == ".onnx":
        driver.export_onnx(
            args.model_file,
            args.output_file,
            opset=args.convert_version,
            loading=loading,
            platform=args.platform,
        )
        print(f"wrote {args.output_file}")
        return 0
    source = fixed_point.ModelFile(
        args.model_file, args.platform, args.input_config, args.target, loading, not args.skip_simplify
    )
    if kind == ".sim":
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


def _refuse_unused(args: argparse.Namespace, kind: str) -> None:
    """See that every option matters for the result.

    Raises:
        OptionError: One is for other results.
    """
    for name in _UNUSED[kind]:
        if getattr(args, name):
            option = {"image": "-i", "preprocess": "-n", "q_mode": "-q"}.get(
                name, f"--{name.replace('_', '-')}"
            )
            others = " or ".join(suffix for suffix, names in _UNUSED.items() if name not in names)
            raise OptionError(
                f"{option}: it is for {others}, and --output-file is '{args.output_file}'", "leave it out"
            )
