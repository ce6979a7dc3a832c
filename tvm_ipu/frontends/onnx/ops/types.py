"""Element types of images, and how values go from one to another."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tvm import relax, tirx

from tvm_ipu.frontends.onnx.context import Context, UnsupportedNode
from tvm_ipu.frontends.onnx.ops.common import elementwise, is_float, kind, number

_NUMPY_TYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "bfloat16", "float32", "float64"),
)


def element_type(code: int) -> str:
    """TVM's name of an ONNX element type.

    Raises:
        UnsupportedNode: Images have no such type.
    """
    name = str(helper.tensor_dtype_to_np_dtype(code).name)
    if name not in _NUMPY_TYPES or code == TensorProto.STRING:
        raise UnsupportedNode(f"element type {TensorProto.DataType.Name(code)} has no place in an image")
    return name


def saturate(value: Any, dtype: str) -> Any:
    """A float scalar as an integer, rounded towards zero; it is clamped to the range, NaN to the lowest."""
    info = np.iinfo(dtype)
    source = kind(value)
    if source in ("float16", "bfloat16"):
        value, source = value.astype("float32"), "float32"
    top = number(float(int(info.max) + 1), source)
    bottom = number(float(info.min) - (0.0 if info.min and info.bits > 24 else 1.0), source)
    low = tirx.Select(value > bottom, value.astype(dtype), number(int(info.min), dtype))
    return tirx.Select(value >= top, number(int(info.max), dtype), low)


def convert(ctx: Context, expr: relax.Expr, dtype: str) -> relax.Expr:
    """``expr`` in another type: floats saturate to integers, integers wrap around, anything but 0 is true."""
    source = ctx.dtype(expr)
    if source == dtype:
        return expr
    if dtype == "bool":
        return elementwise(ctx, "to_bool", lambda v: v != number(0, kind(v)), expr, dtype="bool")
    if is_float(source) and not is_float(dtype):
        return elementwise(ctx, f"to_{dtype}", lambda v: saturate(v, dtype), expr, dtype=dtype)
    return ctx.emit(relax.op.astype(expr, dtype))
