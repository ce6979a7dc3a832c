"""Loaders of model files and objects: one table, one entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.base.ini import IniFile
from tvm_ipu.base.model import Model
from tvm_ipu.base.shapes import InputShapes

if TYPE_CHECKING:
    from tvm_ipu.base.graph import Graph


@dataclass(frozen=True)
class LoadOptions:
    """What of a model to load, and in which shapes.

    Attributes:
        input_shapes: Shapes by input name or of all inputs in order; see ``base.shapes``.
        outputs: Tensors to compute, any in the model; its own outputs where empty.
        batch: First dimension of the inputs that leave it open; of all inputs where none does.
        inputs: Tensors to start from, any in the model; its own inputs where empty.
        constants: Values of inputs that become part of the model.
    """

    input_shapes: InputShapes = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    batch: int | None = None
    inputs: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"--batch: {self.batch} is not allowed", "give a positive number")


SUFFIXES = {".onnx": "tvm_ipu.frontends.onnx.loader:load_file"}
"""File suffix -> loader, a function of a path and options."""

TYPES = {
    "builtins.bytes": "tvm_ipu.frontends.onnx.loader:load_bytes",
    "onnx.onnx_ml_pb2.ModelProto": "tvm_ipu.frontends.onnx.loader:load_proto",
}
"""Type of an object -> loader, a function of the object and options."""


@dataclass(frozen=True)
class Platform:
    """A kind of model file that becomes a float stage.

    Attributes:
        title: What people call it.
        layout: Layout of data of four dimensions in its models.
        loader: Function of a path, ``LoadOptions`` and whether to simplify, which gives a plain graph; empty
            where there is none yet.
    """

    title: str
    layout: str
    loader: str = ""


PLATFORMS = {
    "onnx": Platform("ONNX", "NCHW", "tvm_ipu.frontends.onnx.plain:load_graph"),
    "caffe": Platform("Caffe", "NCHW"),
    "tflite": Platform("TensorFlow Lite", "NHWC"),
    "tensorflow_graphdef": Platform("TensorFlow GraphDef", "NHWC"),
    "pytorch": Platform("PyTorch", "NCHW"),
}
"""By the names of ``convert``'s subcommands."""


def load_platform(
    platform: str, model: Path, options: LoadOptions, contract: Contract, file: IniFile | None, simplify: bool
) -> Graph:
    """A model file as a plain graph that takes and gives what its configuration says.

    Args:
        platform: One of ``PLATFORMS``.
        model: The file.
        options: Shapes and cuts.
        contract: Of ``input_config.ini``; empty where there is none.
        file: That file.
        simplify: Whether BatchNormalization is folded.

    Raises:
        ModelError: There is no loader for the platform, or the file is damaged or needs shapes.
        ConfigError: The configuration does not fit the model.
        OptionError: An option does not.
    """
    from tvm_ipu.frontends.contract import apply_layouts, check_contract  # it needs numpy

    kind = PLATFORMS[platform]
    if not kind.loader:
        known = ", ".join(name for name, one in PLATFORMS.items() if one.loader)
        raise ModelError(
            f"there is no loader for {kind.title} models yet", f"convert '{model}' to a format of {known}"
        )
    module, function = kind.loader.split(":")
    graph: Graph = getattr(importlib.import_module(module), function)(model, options, simplify)
    if file is None:
        return graph
    check_contract(graph, contract, file, kind.layout)
    return apply_layouts(graph, contract, kind.layout)


def load_model(source: Any, options: LoadOptions | None = None) -> Model:
    """A model file, or a framework's object, as Relax.

    Args:
        source: Path of a file, or an object of a type in ``TYPES``.
        options: Shapes, and the part of the model to load.

    Raises:
        ModelError: No loader knows it, it is damaged, or shapes are missing.
        UnsupportedOperatorError: It has nodes that cannot be compiled; all are listed.
        OptionError: An option does not fit the model.
    """
    return find_loader(source)(source, options or LoadOptions())


def find_loader(source: Any) -> Callable[[Any, LoadOptions], Model]:
    """The loader of a path or object.

    Raises:
        ModelError: There is none.
    """
    if isinstance(source, str | Path):
        suffix = Path(source).suffix.lower()
        spec = SUFFIXES.get(suffix)
        if spec is None:
            raise ModelError(
                f"'{source}': no loader for files ending in '{suffix}'",
                f"known are {', '.join(sorted(SUFFIXES))}",
            )
    else:
        kind = f"{type(source).__module__}.{type(source).__qualname__}"
        spec = TYPES.get(kind)
        if spec is None:
            raise ModelError(f"no loader for objects of type {kind}", f"known are {', '.join(sorted(TYPES))}")
    module, function = spec.split(":")
    loader: Callable[[Any, LoadOptions], Model] = getattr(importlib.import_module(module), function)
    return loader
