"""What of a model to load, for all frontends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.shapes import InputShapes

if TYPE_CHECKING:
    from onnx import ModelProto

OnnxSource: TypeAlias = "Path | bytes | ModelProto"
"""An ONNX model: its file, the bytes of one, or the message."""


@dataclass(frozen=True)
class LoadOptions:
    """What of a model to load, and in which shapes.

    Attributes:
        input_shapes: Shapes by input name or of all inputs in order; see ``base.shapes``. A dimension of -1
            stays as the model has it.
        outputs: Tensors to compute, any in the model; its own outputs where empty.
        batch: First dimension of the inputs that leave it open; of all inputs where none does.
        inputs: Tensors to start from, any in the model; its own inputs where empty.
        constants: Values of inputs that become part of the model.
        example_input: Arguments to follow a function through that is no graph yet: an array, arrays in order
            (list or tuple), or arrays by argument (dict). Arrays are numpy's or the framework's own.
        input_types: Element types of the inputs, names that numpy knows, where the source leaves them open:
            by name or of all inputs in order.
        weights: File of the weights where they are not in the model's (Caffe, Paddle).
        trust_pickle: Whether files may be opened that can run code then.
        signature: Function of a SavedModel or Python file; ``serving_default`` or the only one where empty.
        inputs_as_nchw: Inputs in NHWC that are to be NCHW instead.
        outputs_as_nchw: Outputs in NHWC that are to be NCHW instead.
    """

    input_shapes: InputShapes = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    batch: int | None = None
    inputs: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    example_input: Any = None
    input_types: Mapping[str, str] | Sequence[str] = ()
    weights: Path | None = None
    trust_pickle: bool = False
    signature: str = ""
    inputs_as_nchw: tuple[str, ...] = ()
    outputs_as_nchw: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"--batch: {self.batch} is not allowed", "give a positive number")


FORMAT = "tvm_ipu.format"
"""Key of a converted model's metadata: the platform that it comes from."""
