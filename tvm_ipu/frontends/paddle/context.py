"""What rules know while a program is converted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder
from tvm_ipu.frontends.paddle.program import Op, Program
from tvm_ipu.frontends.paddle.schema import Array, numpy_dtype


class Context:
    """The builder, and the program that is converted.

    Attributes:
        b: Collects the nodes.
        program: The program.
    """

    def __init__(self, b: ModelBuilder, program: Program) -> None:
        self.b = b
        self.program = program
        self._tensors = {name: name for name in program.inputs}

    def bind(self, name: str, tensor: str) -> None:
        """Let a variable be a tensor of the model, which gets its name where it has none yet.

        A variable that is written again (in place) has its new value from there on.
        """
        fresh = tensor not in self._tensors.values() and self.b.value(tensor) is None
        if not fresh:
            tensor = self.b.add("Identity", tensor)
        self._tensors[name] = self.b.rename(tensor, name) if name not in self.b else tensor

    def tensor(self, name: str) -> str:
        """The tensor that a variable is.

        Raises:
            ModelError: Nothing gave it a value.
        """
        if name not in self._tensors:
            value = self.program.parameters.get(name)
            if value is None:
                raise ModelError(f"'{self.b.location}' reads '{name}', which has no value")
            self._tensors[name] = self.b.constant(value, name)
        return self._tensors[name]

    def read(self, op: Op, slot: str) -> str:
        """The tensor in a slot."""
        return self.tensor(op.need(slot))

    def maybe(self, op: Op, slot: str) -> str | None:
        """The tensor in a slot, None where there is none."""
        name = op.get(slot)
        return None if name is None else self.tensor(name)

    def dims(self, op: Op, slot: str) -> tuple[int, ...]:
        """The dimensions of the tensor in a slot; -1 where one is open."""
        return self.program.variables[op.need(slot)].dims

    def rank(self, op: Op, slot: str) -> int:
        """How many dimensions the tensor in a slot has."""
        return len(self.dims(op, slot))

    def like(self, tensor: str, value: Any) -> Array:
        """A constant of no dimensions with the element type of a tensor."""
        elem_type = self.b.elem_type(tensor) or TensorProto.FLOAT
        return np.asarray(value, helper.tensor_dtype_to_np_dtype(elem_type))

    def vector(self, op: Op, attribute: str, tensor: str = "", tensors: str = "") -> str | Array:
        """Integers: from a list of tensors of one, a tensor, or an attribute; int64.

        Args:
            op: The operator.
            attribute: Of that name, where the slots are empty.
            tensor: Slot of a tensor of all of them.
            tensors: Slot of tensors of one each.
        """
        parts = op.inputs.get(tensors, ())
        if parts:
            each = [self.b.add("Cast", self.tensor(name), to=TensorProto.INT64) for name in parts]
            each = [self.b.add("Reshape", part, np.array([1])) for part in each]
            return self.b.add("Concat", *each, axis=0)
        whole = op.get(tensor)
        if whole is not None:
            return self.b.add("Cast", self.tensor(whole), to=TensorProto.INT64)
        value = op.attr(attribute, [])
        return np.array(value if isinstance(value, list) else [value], np.int64)

    def elem_type(self, number: int) -> int:
        """ONNX's number of one of Paddle's element types.

        Raises:
            ModelError: Images have none such.
        """
        dtype = numpy_dtype(number)
        if dtype is None:
            raise ModelError(f"'{self.b.location}': Paddle's element type {number} cannot be compiled")
        return int(helper.np_dtype_to_tensor_dtype(dtype))


Rule: TypeAlias = Callable[[Context, Op], "str | Sequence[str]"]
"""Converts an operator; gives its results."""
