"""Paddle's messages: programs as ``.pdmodel`` files hold them (``framework.proto``)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.frontends.messages import message_classes

_TABLE = """
Version: version=1:int64
Scalar: type=1:int32 b=2:bool i=3:int64 r=4:double
Attr: name=1:string type=2:int32 i=3:int32 f=4:float s=5:bytes ints*=6:int32 floats*=7:float strings*=8:bytes
    b=10:bool bools*=11:bool block_idx=12:int32 l=13:int64 blocks_idx*=14:int32 longs*=15:int64
    float64s*=16:double float64=19:double scalar=20:Scalar scalars*=21:Scalar
Slot: parameter=1:string arguments*=2:string
OpDesc: inputs*=1:Slot outputs*=2:Slot type=3:string attrs*=4:Attr
TensorDesc: data_type=1:int32 dims*=2:int64
LoDTensorDesc: tensor=1:TensorDesc
VarType: type=1:int32 lod_tensor=3:LoDTensorDesc
VarDesc: name=1:string type=2:VarType persistable=3:bool
BlockDesc: idx=1:int32 parent_idx=2:int32 vars*=3:VarDesc ops*=4:OpDesc
ProgramDesc: blocks*=1:BlockDesc version=4:Version
"""

_CLASSES = message_classes(_TABLE, "tvm_ipu_paddle")
ProgramDesc, TensorDesc = _CLASSES["ProgramDesc"], _CLASSES["TensorDesc"]

DTYPES: dict[int, str] = {
    0: "bool", 1: "int16", 2: "int32", 3: "int64", 4: "float16", 5: "float32", 6: "float64", 20: "uint8",
    21: "int8",
}  # fmt: skip
"""Element types by number, as numpy calls them."""

LOD_TENSOR = 7
"""The type of variables that are tensors."""

_FIELDS = {
    0: "i", 1: "f", 2: "s", 3: "ints", 4: "floats", 5: "strings", 6: "b", 7: "bools", 8: "block_idx", 9: "l",
    10: "blocks_idx", 11: "longs", 12: "float64s", 15: "float64", 16: "scalar", 17: "scalars",
}  # fmt: skip
"""Fields of the types of attributes."""


def attribute(message: Any) -> Any:
    """The value of an ``Attr``; None where it is of a type that programs for inference do not need."""
    field = _FIELDS.get(message.type)
    if field is None:
        return None
    value = getattr(message, field)
    if field == "scalar":
        return _scalar(value)
    if field == "scalars":
        return [_scalar(one) for one in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, int | float) else list(value)


def _scalar(message: Any) -> Any:
    return {1: bool(message.b), 2: int(message.i)}.get(message.type, float(message.r))


Array: TypeAlias = NDArray[Any]


def numpy_dtype(number: int) -> np.dtype[Any] | None:
    """The element type of a number; None where images have none."""
    return np.dtype(DTYPES[number]) if number in DTYPES else None
