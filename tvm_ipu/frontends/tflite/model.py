"""A TensorFlow Lite model as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.tensor import numpy_dtype

Array = NDArray[Any]

DTYPES = (
    *("float16", "float32", "float64", "bfloat16", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
"""Element types that images have."""

QUANTISED = ("int8", "uint8", "int16")
"""Types whose tensors mean real numbers where they have a scale."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        name: As in the file; unique in the subgraph.
        dtype: As numpy calls it; ``string`` and the like for what images do not have.
        shape: As in the file, dimensions that are open at their defaults.
        is_open: Whether each dimension is open.
        data: Its value where it is constant.
        scale: float32, one or one for each slice of ``axis``; empty where it is not quantised.
        zero: int64, as many as ``scale``.
        axis: Dimension of the scales.
        is_variable: Whether it keeps its value from one inference to the next.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_open: tuple[bool, ...]
    data: Array | None
    scale: Array
    zero: Array
    axis: int
    is_variable: bool

    @property
    def is_quantised(self) -> bool:
        """Whether its integers mean real numbers."""
        return self.scale.size > 0 and self.dtype in QUANTISED


@dataclass(frozen=True)
class Operator:
    """An operator of a subgraph.

    Attributes:
        code: Its name in TensorFlow Lite's schema, or that of a custom operator.
        index: Its place among the subgraph's operators.
        inputs: Numbers of tensors; -1 for a missing one.
        outputs: Numbers of tensors.
        options: By their names in the schema's classes, such as ``StrideW``.
        is_custom: Whether it is none of the schema's operators.
    """

    code: str
    index: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    is_custom: bool = False


@dataclass(frozen=True)
class Subgraph:
    """A graph of operators, in an order in which they can run.

    Attributes:
        name: As in the file.
        tensors: All of them.
        inputs: Numbers of tensors.
        outputs: Numbers of tensors.
        operators: What computes them.
    """

    name: str
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]

    def label(self, operator: Operator) -> str:
        """How messages call an operator."""
        result = self.tensors[operator.outputs[0]].name if operator.outputs else ""
        return f"operator {operator.index} '{result}' ({operator.code})"


def no_scale() -> Array:
    """The scales of a tensor that has none."""
    return np.zeros(0, np.float32)


def numpy_type(dtype: str) -> np.dtype[Any] | None:
    """numpy's form of a tensor's type; None for what images do not have."""
    return numpy_dtype(dtype) if dtype in DTYPES else None
