"""The fixed-point flow: one function a command.

model file - convert -> float stage - calibrate -> fixed stage - compile -> image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_ipu import __version__
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.ini import IniFile
from tvm_ipu.base.input_config import read_input_config
from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.base.target import load_target
from tvm_ipu.frontends.loaders import LoadOptions, load_platform
from tvm_ipu.frontends.onnx.plain import graph_to_onnx
from tvm_ipu.image.stage import FLOAT, Stage, read_stage, write_stage


@dataclass(frozen=True)
class ModelFile:
    """A model file and how to read it.

    Attributes:
        path: The file.
        platform: What it is, a name of ``frontends.loaders.PLATFORMS``.
        input_config: What the board feeds and reads; plain arrays where it is None.
        target: Chip that the model is for.
        input_shapes: Shapes of the inputs, in any form that ``base.shapes`` reads.
        inputs: Tensors where the network begins; its own inputs where empty.
        outputs: Tensors where it ends; its own outputs where empty.
        simplify: Whether BatchNormalization goes into the convolution before it.
    """

    path: Path
    platform: str = "onnx"
    input_config: Path | None = None
    target: str = "host"
    input_shapes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    simplify: bool = True


def make_float_stage(model: ModelFile, output: Path) -> Stage:
    """Write a model file as a float stage; nothing is left there after a failure.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    contract, file = _read_contract(model.input_config)
    _check_target(model.target, contract)
    shapes = parse_input_shapes(model.input_shapes)
    options = LoadOptions(shapes, model.outputs, inputs=model.inputs)
    graph = load_platform(model.platform, model.path, options, contract, file, model.simplify)
    facts = {**graph.source, "tvm_ipu": __version__, "model": model.path.name, "platform": model.platform}
    stage = Stage(FLOAT, graph_to_onnx(graph), contract, model.target, metadata=facts)
    write_stage(stage, output)
    return stage


def export_stage(stage: Path, output: Path) -> None:
    """Write a stage's network as an ONNX model, the fixed one's with QuantizeLinear and DequantizeLinear.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    model = read_stage(stage).model
    try:
        with whole_file(output) as file:
            file.write(model)
    except OSError as err:
        raise ModelError(f"cannot write '{output}': {err.strerror}") from err


def _read_contract(path: Path | None) -> tuple[Contract, IniFile | None]:
    return (Contract(), None) if path is None else read_input_config(path)


def _check_target(name: str, contract: Contract) -> None:
    """See that there is such a target, and that it takes the contract's formats."""
    target = load_target(name)
    if target.chip is not None:
        target.chip.check(contract)


def check_suffix(path: Path, allowed: Sequence[str], option: str) -> str:
    """The suffix of a file to write.

    Raises:
        OptionError: It is not one of ``allowed``.
    """
    suffix = path.suffix.lower()
    if suffix not in allowed:
        raise OptionError(f"{option}: '{path}' does not end in {' or '.join(allowed)}")
    return suffix
