"""Tensor types shared by every stage: names, shapes and element types of a model's inputs and outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class DType(IntEnum):
    """Element types of tensors. The values are part of the image format and never change."""

    BOOL = 1
    INT8 = 2
    UINT8 = 3
    INT16 = 4
    UINT16 = 5
    INT32 = 6
    UINT32 = 7
    INT64 = 8
    UINT64 = 9
    FLOAT16 = 10
    BFLOAT16 = 11
    FLOAT32 = 12
    FLOAT64 = 13
    FLOAT8_E4M3FN = 14
    FLOAT8_E4M3FNUZ = 15
    FLOAT8_E5M2 = 16
    FLOAT8_E5M2FNUZ = 17
    FLOAT8_E8M0FNU = 18
    FLOAT4_E2M1FN = 19
    INT4 = 20
    UINT4 = 21
    INT2 = 22
    UINT2 = 23

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE.get(self, 1)

    @property
    def label(self) -> str:
        """The name that numpy, ml_dtypes, TVM and the command line use, such as ``float32``."""
        return self.name.lower()

    @property
    def is_float(self) -> bool:
        """True for the floating-point types."""
        return DType.FLOAT16 <= self <= DType.FLOAT4_E2M1FN

    @property
    def is_small(self) -> bool:
        """True for the types that numpy lacks and that take a byte: the unused bits are 0."""
        return self >= DType.FLOAT8_E4M3FN

    @property
    def is_in_numpy(self) -> bool:
        """True for the types that numpy has without ml_dtypes."""
        return self is not DType.BFLOAT16 and not self.is_small

    @classmethod
    def parse(cls, text: str) -> DType:
        """The type called ``text`` (``float32``, ``fp32``, ``int8`` ...).

        Raises:
            ValueError: ``text`` names no type.
        """
        name = _ALIASES.get(text.lower(), text.lower()).upper()
        if name not in cls.__members__:
            allowed = ", ".join(d.label for d in cls)
            raise ValueError(f"unknown element type '{text}'; allowed are {allowed}")
        return cls[name]


_ITEMSIZE = {
    DType.BOOL: 1,
    DType.INT8: 1,
    DType.UINT8: 1,
    DType.INT16: 2,
    DType.UINT16: 2,
    DType.INT32: 4,
    DType.UINT32: 4,
    DType.INT64: 8,
    DType.UINT64: 8,
    DType.FLOAT16: 2,
    DType.BFLOAT16: 2,
    DType.FLOAT32: 4,
    DType.FLOAT64: 8,
}
_ALIASES = {"fp16": "float16", "fp32": "float32", "fp64": "float64", "bf16": "bfloat16"}


def numpy_dtype(label: str) -> np.dtype[Any]:
    """The numpy type of a ``DType.label`` or TVM type: ml_dtypes' where numpy has none.

    Without that package, which a runtime does not need, the unsigned integers that hold the elements.

    Raises:
        ValueError: ``label`` names no type.
    """
    import numpy as np  # a session loads without it

    dtype = DType.parse(label)
    if dtype.is_in_numpy:
        return np.dtype(dtype.label)
    try:
        import ml_dtypes  # few models need it
    except ImportError:
        return np.dtype(f"uint{8 * dtype.itemsize}")
    lacking: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype.label))
    return lacking


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: Name in the source model, unchanged.
        shape: Static dimensions; ``()`` is a scalar.
        dtype: Element type.
        format: What the elements are, as ``base.contract`` names it (``YUV_NV12`` ...); empty for numbers.
        scale: Step of integers that stand for ``(q - zero) * scale``; 0 where they stand for themselves.
        zero: Zero point of such integers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    format: str = ""
    scale: float = 0.0
    zero: int = 0

    @property
    def nbytes(self) -> int:
        """Size in bytes of the dense, row-major tensor."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        text = f"{self.name}: {self.dtype.label}[{','.join(map(str, self.shape))}]"
        if self.format:
            text += f" {self.format}"
        return f"{text} = (q - {self.zero}) * {self.scale:.9g}" if self.scale else text
