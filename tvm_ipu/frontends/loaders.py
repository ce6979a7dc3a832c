"""Loaders of model files and objects: one table, one entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.base.model import Model
from tvm_ipu.base.shapes import InputShapes


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
