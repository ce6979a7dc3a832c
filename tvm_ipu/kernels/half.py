"""16-bit floating point in kernels: stored as float16 or bfloat16, computed in float32.

bfloat16 is converted by operations on its bits: TVM's own legalisation does not reach into ``Bind``.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr

_BINARY = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Min, tirx.Max)
_COMPARE = (tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE)


def is_half(dtype: str) -> bool:
    """True for the 16-bit floating-point types."""
    return dtype in ("float16", "bfloat16")


def widen(value: Expr) -> Expr:
    """A loaded 16-bit scalar or vector as float32."""
    lanes = int(value.ty.dtype.lanes)
    if str(value.ty).startswith("float16"):
        return value.astype(_vector("float32", lanes))
    bits = tirx.reinterpret(_vector("uint16", lanes), value).astype(_vector("uint32", lanes))
    return tirx.reinterpret(_vector("float32", lanes), tirx.shift_left(bits, tirx.const(16, str(bits.ty))))


def narrow(value: Expr, dtype: str) -> Expr:
    """A float32 scalar rounded to ``dtype``, to nearest even; a NaN stays one."""
    if dtype == "float16":
        return value.astype(dtype)
    bits = tirx.reinterpret("uint32", value)
    odd = tirx.bitwise_and(tirx.shift_right(bits, _bits(16)), _bits(1))
    rounded = tirx.shift_right(bits + (odd + _bits(0x7FFF)), _bits(16))
    quiet = tirx.bitwise_or(tirx.shift_right(bits, _bits(16)), _bits(0x40))
    chosen = tirx.Select(tirx.NE(value, value), quiet, rounded)
    return tirx.reinterpret(dtype, chosen.astype("uint16"))


def in_float32(value: Expr) -> Expr:
    """An expression with its 16-bit arithmetic done in float32; what it loads must be float32 already.

    Intermediate results are not rounded to 16 bits.
    """

    def binary(node: Any) -> Expr:
        return type(node)(node.a, node.b)

    def immediate(node: Any) -> Expr:
        return tirx.const(node.value, "float32") if is_half(str(node.ty)) else node

    def select(node: Any) -> Expr:
        return tirx.Select(node.condition, node.true_value, node.false_value)

    def converted(node: Any) -> Expr:
        dtype = str(node.ty)
        return node.value.astype("float32" if is_half(dtype) else dtype)

    def call(node: Any) -> Expr:
        return tirx.call_intrin("float32", node.op, *node.args) if is_half(str(node.ty)) else node

    return tvm_ffi.structural_map(
        value,
        [
            (_BINARY + _COMPARE, binary),
            (tirx.FloatImm, immediate),
            (tirx.Select, select),
            (tirx.Cast, converted),
            (ir.Call, call),
        ],
    )


def _bits(value: int) -> Expr:
    return tirx.const(value, "uint32")


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"
