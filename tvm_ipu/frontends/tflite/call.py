"""One operator while it is converted: its inputs as ONNX tensors, its options, its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.tflite.builder import Builder
from tvm_ipu.frontends.tflite.model import Array, Operator, Subgraph, Tensor


class Refused(Exception):  # noqa: N818  a finding, listed with all others
    """An operator is used in a way that has no ONNX form here; the text says which."""


class Call:
    """An operator of a graph.

    Inputs are read as real numbers: quantised ones behind a DequantizeLinear. Results are made of real
    numbers, and quantised behind the operator.

    Attributes:
        operator: The operator.
        builder: Takes its nodes.
    """

    def __init__(self, graph: Subgraph, operator: Operator, builder: Builder, reals: dict[str, str]) -> None:
        self.operator = operator
        self.builder = builder
        self._graph = graph
        self._reals = reals  # tensors as real numbers, by their names

    @property
    def label(self) -> str:
        """What messages call it."""
        return self._graph.label(self.operator)

    def damaged(self, what: str) -> ModelError:
        """An error of this operator."""
        return ModelError(f"{self.label} {what}: the model is damaged")

    def option(self, name: str) -> Any:
        """An option; 0 where the file has none, as TensorFlow Lite takes it."""
        return self.operator.options.get(name, 0)

    def choice(self, name: str, values: Sequence[Any]) -> Any:
        """What an option that is an enumeration means."""
        number = int(self.option(name))
        if not 0 <= number < len(values):
            raise self.damaged(f"has the option {name} = {number}")
        return values[number]

    # -- inputs ---------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of inputs."""
        return len(self.operator.inputs)

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < self.count and self.operator.inputs[index] >= 0

    def tensor(self, index: int) -> Tensor:
        """An input as the file has it."""
        if not self.has(index):
            raise self.damaged(f"lacks input {index}")
        return self._graph.tensors[self.operator.inputs[index]]

    def result(self, index: int = 0) -> Tensor:
        """An output as the file has it."""
        if index >= len(self.operator.outputs):
            raise self.damaged(f"lacks output {index}")
        return self._graph.tensors[self.operator.outputs[index]]

    def raw(self, index: int) -> str:
        """An input with the integers that it has."""
        tensor = self.tensor(index)
        if not self.builder.has(tensor.name):
            if tensor.data is None and tensor.is_variable:
                return self.builder.source_constant(tensor.name, np.zeros(tensor.shape, tensor.dtype))
            if tensor.data is None:
                raise self.damaged(f"reads '{tensor.name}', which has no value")
            return self.builder.source_constant(tensor.name, tensor.data)
        return tensor.name

    def real(self, index: int) -> str:
        """An input as real numbers; one without a scale as it is."""
        tensor = self.tensor(index)
        if not tensor.is_quantised:
            return self.raw(index)
        if tensor.name not in self._reals:
            self._reals[tensor.name] = self.dequantised(self.raw(index), tensor)
        return self._reals[tensor.name]

    def weight(self, index: int, perm: Sequence[int], shape: Sequence[int] | None = None) -> str:
        """A constant or computed input as real numbers, transposed.

        Args:
            index: Which input.
            perm: Order of the dimensions wanted.
            shape: The tensor's shape before that; its own by default.
        """
        tensor = self.tensor(index)
        value = self.known(index)
        if value is None:
            return self.emit("Transpose", self.real(index), perm=list(perm))
        turned = np.ascontiguousarray(value.reshape(value.shape if shape is None else shape).transpose(perm))
        name = self.builder.constant(f"{tensor.name}/turned", turned)
        if not tensor.is_quantised:
            return name
        return self.dequantised(name, replace(tensor, axis=list(perm).index(tensor.axis)))

    def bias(self, index: int) -> str:
        """A bias as real numbers."""
        tensor = self.tensor(index)
        value = self.known(index)
        if value is None or tensor.scale.size == 0:
            return self.real(index)
        if value.dtype == np.int32 and not tensor.zero.any():
            return self.dequantised(self.raw(index), tensor)
        real = (value - tensor.zero) * tensor.scale.astype(np.float64)
        return self.builder.constant(f"{tensor.name}/real", real, "float32")

    def known(self, index: int) -> Array | None:
        """A constant input's value; None for what is computed."""
        return self.builder.value(self.raw(index))

    def constant(self, index: int) -> Array:
        """A constant input's value.

        Raises:
            Refused: It is computed when the model runs.
        """
        value = self.known(index)
        if value is None:
            raise Refused(f"its input '{self.tensor(index).name}' must be a constant")
        return value

    def integers(self, index: int) -> list[int]:
        """A constant input of whole numbers as a list."""
        value = self.constant(index)
        if value.dtype.kind not in "iu":
            raise self.damaged(f"has the input '{self.tensor(index).name}', which should hold whole numbers")
        return [int(v) for v in value.ravel()]

    def integer(self, index: int) -> int:
        """A constant input of one whole number."""
        found = self.integers(index)
        if len(found) != 1:
            raise self.damaged(
                f"has {len(found)} numbers in '{self.tensor(index).name}', which should be one"
            )
        return found[0]

    def real_constant(self, index: int) -> Array:
        """A constant input's real numbers, float32 where it is quantised."""
        value, tensor = self.constant(index), self.tensor(index)
        if not tensor.is_quantised:
            return value
        shape = [1] * value.ndim
        if tensor.scale.size > 1:
            shape[tensor.axis] = tensor.scale.size
        scale, zero = tensor.scale.reshape(shape), tensor.zero.reshape(shape)
        return ((value - zero) * scale.astype(np.float64)).astype(np.float32)

    def shape(self, index: int) -> tuple[int, ...]:
        """An input's shape."""
        return self.builder.shape(self.raw(index))

    def axis(self, axis: int, rank: int) -> int:
        """An axis from 0 on, whether it is counted from the front or the back."""
        if not -rank <= axis < rank:
            raise self.damaged(f"has axis {axis} of {rank} dimensions")
        return axis % rank

    # -- nodes ----------------------------------------------------------------------------------------

    def emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one result."""
        return self.builder.emit(op, inputs, **attributes)[0]

    def add_constant(self, value: Any, dtype: str = "int64") -> str:
        """A constant that the source does not have as such."""
        return self.builder.constant(f"{self.builder.place}/constant", value, dtype)

    def like(self, value: Any, name: str) -> str:
        """A constant of a tensor's type."""
        return self.add_constant(value, self.builder.dtype(name))

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """The same elements in another shape, whose first dimension follows the batch."""
        if tuple(shape) == self.builder.shape(name):
            return name
        target = [-1, *shape[1:]] if shape and 0 not in shape else list(shape)
        return self.emit("Reshape", name, self.add_constant(target), allowzero=int(0 in shape))

    def transpose(self, name: str, perm: Sequence[int]) -> str:
        """The dimensions in another order."""
        return self.emit("Transpose", name, perm=list(perm))

    def channels_first(self, name: str) -> str:
        """[N, spatial..., C] as [N, C, spatial...]."""
        rank = len(self.builder.shape(name))
        return self.transpose(name, (0, rank - 1, *range(1, rank - 1)))

    def channels_last(self, name: str) -> str:
        """[N, C, spatial...] as [N, spatial..., C], rounded before that where the result is quantised.

        The integer form of an operator is found where its result is quantised at once.
        """
        result, rank = self.result(), len(self.builder.shape(name))
        if result.is_quantised:
            step = self.parameters(result)
            name = self.emit("DequantizeLinear", self.emit("QuantizeLinear", name, *step), *step)
        return self.transpose(name, (0, *range(2, rank), 1))

    def ranked(self, index: int, *ranks: int) -> tuple[int, ...]:
        """An input's shape, which has one of the given numbers of dimensions."""
        shape = self.shape(index)
        if len(shape) not in ranks:
            raise self.damaged(f"has the input '{self.tensor(index).name}' of shape {list(shape)}")
        return shape

    def activated(self, name: str) -> str:
        """The function that is fused behind the operator."""
        function = self.choice("FusedActivationFunction", _ACTIVATIONS)
        if function in _BOUNDS:
            return self.clip(name, *_BOUNDS[function])
        if function == "SIGN_BIT":
            raise Refused("the activation SIGN_BIT is not supported")
        return self.emit(function, name) if function else name

    def clip(self, name: str, low: float, high: float) -> str:
        """Numbers between two bounds."""
        return self.emit("Clip", name, self.like(low, name), self.like(high, name))

    def dequantised(self, name: str, tensor: Tensor) -> str:
        """Integers as the real numbers that a tensor's scales make of them."""
        return self.emit("DequantizeLinear", name, *self.parameters(tensor), axis=tensor.axis)

    def parameters(self, tensor: Tensor) -> tuple[str, str]:
        """Scale and zero point of a tensor as constants.

        Raises:
            ModelError: They are not what quantised tensors can have.
        """
        dtype = np.dtype(tensor.dtype)
        info = np.iinfo(dtype)
        if not (np.isfinite(tensor.scale).all() and (tensor.scale > 0).all()):
            raise self.damaged(f"has a scale of '{tensor.name}' that is not a positive number")
        if not ((tensor.zero >= info.min) & (tensor.zero <= info.max)).all():
            raise self.damaged(f"has a zero point of '{tensor.name}' outside {dtype}")
        form = () if tensor.scale.size == 1 else (-1,)
        return (
            self.builder.constant(f"{tensor.name}/scale", tensor.scale.reshape(form)),
            self.builder.constant(f"{tensor.name}/zero", tensor.zero.reshape(form), tensor.dtype),
        )

    def finish(self, results: Sequence[str]) -> None:
        """Give the results the types and names that they have in the source."""
        if len(self.operator.outputs) > len(results):
            raise self.damaged(f"has {len(self.operator.outputs)} results instead of {len(results)}")
        for name, place in zip(results, self.operator.outputs, strict=False):
            tensor = self._graph.tensors[place]
            if tensor.is_quantised and self.builder.dtype(name) == "float32":
                if tensor.scale.size > 1:
                    raise Refused("scales of a result differ between channels")
                name = self.emit("QuantizeLinear", name, *self.parameters(tensor))
            self.builder.name_result(name, tensor.name)


_ACTIVATIONS = ("", "Relu", "RELU_N1_TO_1", "RELU6", "Tanh", "SIGN_BIT")
_BOUNDS = {"RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}
