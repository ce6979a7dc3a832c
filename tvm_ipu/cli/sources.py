"""Arguments that say how the model of another framework is read, for every command that takes a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.tensor import DType
from tvm_ipu.cli.arguments import comma_list
from tvm_ipu.frontends.loaders import SUFFIXES

if TYPE_CHECKING:
    from tvm_ipu.frontends.options import LoadOptions

MODELS = f"{' '.join(SUFFIXES)}, or a SavedModel's folder"
"""What a model file can be, for help texts."""

_NHWC = ("tensorflow", "tensorflow_graphdef", "keras", "tflite")
_TRACED = ("pytorch", "jax")
_PLATFORMS = {
    "weight_file": ("caffe", "paddle"),
    "example_input": _TRACED,
    "input_types": _TRACED,
    "signature": ("tensorflow", "jax"),
    "inputs_as_nchw": _NHWC,
    "outputs_as_nchw": _NHWC,
    "trust_pickle": ("pytorch", "keras"),
}
"""Arguments that only some platforms have."""


def add_arrays(parser: argparse.ArgumentParser, *also_outputs: str) -> None:
    """Declare ``--input-arrays`` and ``--output-arrays``, and other names of the latter."""
    for option, what, also in (
        ("input", "begins; by default its inputs", ()),
        (
            "output",
            "ends, in any format; what they do not need is left out; by default its outputs",
            also_outputs,
        ),
    ):
        parser.add_argument(
            f"--{option}-arrays",
            *also,
            dest=f"{option}_arrays",
            type=comma_list,
            default=(),
            metavar="NAME,NAME",
            help=f"tensors where the network {what}",
        )


def add_source(parser: argparse.ArgumentParser, platform: str = "") -> None:
    """Declare what a platform's models need beside their file; without a platform, what any may need."""

    def add(option: str, text: str, **kwargs: Any) -> None:
        platforms = _PLATFORMS[option.removeprefix("--").replace("-", "_")]
        if not platform or platform in platforms:
            text = text if platform else f"{text} ({', '.join(platforms)})"
            parser.add_argument(option, help=text, **kwargs)

    add(
        "--weight-file",
        "weights where they are in a file of their own: .caffemodel, .pdiparams",
        type=Path,
        required=platform == "caffe",
        metavar="WEIGHTS",
    )
    add(
        "--example-input",
        "arguments to trace a function with: arrays by argument or in order (.npz), or one array (.npy)",
        type=Path,
        metavar="FILE",
    )
    add(
        "--input-types",
        "element types of the inputs: 'ids=int64,mask=int64', or the types alone in order",
        type=comma_list,
        default=(),
        metavar="NAME=TYPE,...",
    )
    add("--signature", "function to convert (default: serving_default, or the only one)", default="")
    for end in ("inputs", "outputs"):
        add(
            f"--{end}-as-nchw",
            f"{end} in NHWC that shall be NCHW",
            type=comma_list,
            default=(),
            metavar="NAME,NAME",
        )
    add(
        "--trust-pickle",
        "open files that can run any code then: pickled modules, Lambda layers",
        action="store_true",
    )


def check_platform(platform: str, words: Sequence[str]) -> None:
    """See that no word is an option that only other platforms have.

    Raises:
        OptionError: One is.
    """
    for name, platforms in {**_PLATFORMS, "graph_def_file": ("tensorflow_graphdef",)}.items():
        option = f"--{name.replace('_', '-')}"
        if platform not in platforms and any(word.partition("=")[0] == option for word in words):
            raise OptionError(
                f"{option}: models of the platform '{platform}' have none",
                f"it is for {', '.join(platforms)}",
            )


def load_options(args: argparse.Namespace) -> LoadOptions:
    """What the arguments say about loading, shapes of inputs aside.

    Raises:
        OptionError: An example cannot be read, or a type is unknown.
    """
    from tvm_ipu.frontends.options import LoadOptions

    example = getattr(args, "example_input", None)
    return LoadOptions(
        inputs=args.input_arrays,
        outputs=args.output_arrays,
        example_input=None if example is None else read_example(example),
        input_types=_parse_types(getattr(args, "input_types", ())),
        weights=getattr(args, "weight_file", None),
        trust_pickle=getattr(args, "trust_pickle", False),
        signature=getattr(args, "signature", ""),
        inputs_as_nchw=getattr(args, "inputs_as_nchw", ()),
        outputs_as_nchw=getattr(args, "outputs_as_nchw", ()),
    )


def read_example(path: Path) -> Any:
    """Arrays of a ``.npy`` or ``.npz`` file: one, several by name, or a list where they have no names.

    Raises:
        OptionError: It cannot be read.
    """
    import numpy as np

    from tvm_ipu.base.arrays import read_arrays

    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as err:
        raise OptionError(
            f"--example-input: cannot read '{path}': {err}", "write it with numpy.savez or numpy.save"
        ) from err
    if isinstance(arrays, np.ndarray):
        return arrays
    unnamed = [f"arr_{number}" for number in range(len(arrays))]
    return [arrays[name] for name in unnamed] if sorted(arrays) == sorted(unnamed) else arrays


def _parse_types(words: Sequence[str]) -> Mapping[str, str] | Sequence[str]:
    """``a=int64`` -> by name; ``int64`` -> in order."""
    named = ["=" in word for word in words]
    if len(set(named)) > 1:
        raise OptionError("--input-types: some types have a name and others none")
    try:
        pairs = [(name, DType.parse(kind).label) for name, _, kind in (w.rpartition("=") for w in words)]
    except ValueError as err:
        raise OptionError(f"--input-types: {err}") from err
    return dict(pairs) if any(named) else tuple(kind for _, kind in pairs)
