"""A Paddle program as its files have it: operators by slots, variables, and the values of parameters."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import read_model_file
from tvm_ipu.frontends.damage import refuse_damage
from tvm_ipu.frontends.paddle.schema import (
    LOD_TENSOR,
    Array,
    ProgramDesc,
    TensorDesc,
    attribute,
    numpy_dtype,
)


@dataclass(frozen=True)
class Variable:
    """A tensor of the program.

    Attributes:
        dtype: Its element type; None where images have none.
        dims: Its dimensions; -1 where one is open.
    """

    dtype: np.dtype[Any] | None
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Op:
    """An operator.

    Attributes:
        type: Its type.
        inputs: Names of the tensors in each slot that it reads.
        outputs: Names of the tensors in each slot that it makes.
        attributes: Their values.
    """

    type: str
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[str, ...]]
    attributes: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The name of its first result: Paddle has no names of operators."""
        return next(iter(self.makes), self.type)

    @property
    def reads(self) -> tuple[str, ...]:
        """All tensors that it reads."""
        return tuple(name for names in self.inputs.values() for name in names)

    @property
    def makes(self) -> tuple[str, ...]:
        """All tensors that it makes."""
        return tuple(name for names in self.outputs.values() for name in names)

    def __str__(self) -> str:
        return f"operator '{self.label}' ({self.type})"

    def get(self, slot: str) -> str | None:
        """The only tensor in a slot, None where there is none."""
        names = self.inputs.get(slot, ())
        return names[0] if names else None

    def need(self, slot: str) -> str:
        """The only tensor in a slot.

        Raises:
            ModelError: There is none.
        """
        name = self.get(slot)
        if name is None:
            raise ModelError(f"{self} has no input '{slot}'")
        return name

    def attr(self, name: str, default: Any) -> Any:
        """An attribute, or a default where the program has none."""
        value = self.attributes.get(name)
        return default if value is None else value


@dataclass(frozen=True)
class Program:
    """A program for inference.

    Attributes:
        inputs: Names of the tensors that are fed.
        outputs: Names of the tensors that are fetched.
        ops: The operators in their order.
        variables: All tensors.
        parameters: Values of those that were learned.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    variables: dict[str, Variable]
    parameters: dict[str, Array] = field(default_factory=dict)


def read_program(path: Path, weights: Path) -> Program:
    """Read a ``.pdmodel`` and its ``.pdiparams``.

    Raises:
        ModelError: One is missing or damaged, or they do not go together.
    """
    try:
        desc = ProgramDesc.FromString(read_model_file(path, "program"))
    except DecodeError as err:
        raise ModelError(f"'{path}' is not a Paddle program, or it is truncated") from err
    if not desc.blocks or not desc.blocks[0].ops:
        raise ModelError(f"'{path}' is not a Paddle program, or it is truncated: it has no operators")
    block = desc.blocks[0]
    variables, learned = {}, []
    for one in block.vars:
        if one.type.type == LOD_TENSOR:
            tensor = one.type.lod_tensor.tensor
            variables[one.name] = Variable(numpy_dtype(tensor.data_type), tuple(tensor.dims))
            if one.persistable:
                learned.append(one.name)
    ops = [_op(one) for one in block.ops]
    with refuse_damage(f"'{path}': an operator feed or fetch"):
        inputs = [op.outputs["Out"][0] for op in ops if op.type == "feed"]
        outputs = [op.inputs["X"][0] for op in ops if op.type == "fetch"]
    if not outputs:
        raise ModelError(f"'{path}' fetches nothing: it is no program for inference, or it is truncated")
    computing = tuple(op for op in ops if op.type not in ("feed", "fetch"))
    parameters = read_parameters(weights, {name: variables[name] for name in sorted(learned)})
    return Program(tuple(inputs), tuple(outputs), computing, variables, parameters)


def _op(message: Any) -> Op:
    inputs, outputs = (
        {one.parameter: tuple(one.arguments) for one in part} for part in (message.inputs, message.outputs)
    )
    return Op(message.type, inputs, outputs, {one.name: attribute(one) for one in message.attrs})


def read_parameters(path: Path, variables: Mapping[str, Variable]) -> dict[str, Array]:
    """The values in a combined file of parameters.

    Every tensor is a version (uint32), the number of levels of detail (uint64) with their sizes, the version
    of the tensor (uint32), the length of its ``TensorDesc`` (int32), that message, and the values.

    Args:
        path: The file.
        variables: What it has to hold, in its order.

    Raises:
        ModelError: It is missing, too short or too long, or holds other tensors.
    """
    content, position, found = read_model_file(path, "file of parameters"), 0, {}

    def take(size: int, name: str) -> bytes:
        nonlocal position
        if size < 0 or position + size > len(content):
            raise ModelError(f"'{path}' is truncated, or of another model: it ends in parameter '{name}'")
        position += size
        return content[position - size : position]

    for name, wanted in variables.items():
        _, levels = struct.unpack("<IQ", take(12, name))
        for _ in range(levels):
            take(struct.unpack("<Q", take(8, name))[0], name)
        _, length = struct.unpack("<Ii", take(8, name))
        try:
            desc = TensorDesc.FromString(take(length, name))
        except DecodeError as err:
            raise ModelError(f"'{path}' has no tensor where parameter '{name}' should be") from err
        dtype, dims = numpy_dtype(desc.data_type), tuple(desc.dims)
        if dtype is None or dims != wanted.dims or dtype != wanted.dtype:
            raise ModelError(
                f"parameter '{name}' in '{path}' is {dtype}{list(dims)}, "
                f"expected is {wanted.dtype}{list(wanted.dims)}",
                "give the file that was saved with this program",
            )
        values = take(math.prod(dims) * dtype.itemsize, name)
        found[name] = np.frombuffer(values, dtype).reshape(dims)
    if position != len(content):
        raise ModelError(f"'{path}' has {len(content) - position} bytes more than the program has parameters")
    return found
