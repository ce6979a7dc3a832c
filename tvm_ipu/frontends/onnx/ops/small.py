"""Element types of less than 16 bits that only conversions know: small floats, and integers of 4 and 2 bits.

Images take and give them a byte an element, as ``ml_dtypes`` keeps them. Between a model's inputs and outputs
their numbers are in a *carrier* type that holds them all: float32, int8 or uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Array, Context, UnsupportedNode
from tvm_ipu.frontends.onnx.ops.common import cast, elementwise, kind, number
from tvm_ipu.frontends.onnx.ops.types import convert

_F32 = "float32"
_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000


@dataclass(frozen=True)
class _Small:
    """A type.

    Attributes:
        carrier: Type that holds all its numbers.
        bits: Of an element.
        nan: Bits of the number that is none; -1 where there is none.
        infinity: Bits of the positive infinity; -1 where there is none.
    """

    carrier: str
    bits: int = 8
    nan: int = -1
    infinity: int = -1


_SMALL = {
    "float8_e4m3fn": _Small(_F32, nan=0x7F),
    "float8_e4m3fnuz": _Small(_F32, nan=0x80),
    "float8_e5m2": _Small(_F32, nan=0x7E, infinity=0x7C),
    "float8_e5m2fnuz": _Small(_F32, nan=0x80),
    "float8_e8m0fnu": _Small(_F32, nan=0xFF),
    "float4_e2m1fn": _Small(_F32, bits=4),
    "int4": _Small("int8", 4),
    "uint4": _Small("uint8", 4),
    "int2": _Small("int8", 2),
    "uint2": _Small("uint8", 2),
}

_POWER = "float8_e8m0fnu"
"""Has exponents only: no sign, no fraction and no zero."""


def is_small(label: str) -> bool:
    """Whether a type is one of these."""
    return label in _SMALL


def carrier(label: str) -> str:
    """The type in which a type's numbers are computed with: its own where it is none of these."""
    return _SMALL[label].carrier if label in _SMALL else label


def storage(label: str) -> str:
    """The type in which images keep a type: bytes for these."""
    return "uint8" if label in _SMALL else label


def limits(label: str) -> tuple[int, int] | None:
    """Least and largest number of a small integer type; None for other types."""
    if label not in _SMALL or _SMALL[label].carrier == _F32:
        return None
    info = ml_dtypes.iinfo(label)
    return int(info.min), int(info.max)


def carried(array: Array) -> Array:
    """A constant in its carrier type."""
    label = array.dtype.name
    return array.astype(_SMALL[label].carrier) if label in _SMALL else array


def decode(ctx: Context, bits: relax.Expr, label: str) -> relax.Expr:
    """The numbers of an input of the model, from its bytes."""
    small = _SMALL[label]
    codes = np.arange(2**small.bits, dtype=np.uint8).view(getattr(ml_dtypes, label))
    table = ctx.const(codes.astype(small.carrier))
    mask = number(2**small.bits - 1, "uint8")

    def compute(codes: te.Tensor, values: te.Tensor) -> te.Tensor:
        return te.compute(codes.shape, lambda *i: values((codes(*i) & mask).astype("int32")), name="decode")

    return ctx.te(compute, bits, table, name=f"decode_{label}")


def encode(ctx: Context, values: relax.Expr, label: str) -> relax.Expr:
    """The bytes of an output of the model, from numbers that the type holds."""
    small = _SMALL[label]
    if small.carrier != _F32:
        mask = number(2**small.bits - 1, "uint8")
        return elementwise(ctx, f"encode_{label}", lambda v: v.astype("uint8") & mask, values, dtype="uint8")
    return elementwise(ctx, f"encode_{label}", lambda v: _code(v, label), values, dtype="uint8")


def to_small(
    ctx: Context, values: relax.Expr, label: str, saturate: bool = True, round_mode: str = "up"
) -> relax.Expr:
    """Numbers converted to a small type, in its carrier type.

    Floats are rounded to the nearest, ties to even; those out of range become the largest number, or without
    ``saturate`` infinity or NaN. Integers keep their low bits.

    Args:
        values: Of any type.
        label: The type.
        saturate: See above.
        round_mode: Of exponents: ``up``, ``down`` or ``nearest``.
    """
    small = _SMALL[label]
    if small.carrier == _F32:
        wide = cast(ctx, values, _F32)
        if label == _POWER:
            if round_mode not in ("up", "down", "nearest"):
                raise UnsupportedNode(
                    f"attribute 'round_mode' is '{round_mode}'; allowed are up, down, nearest"
                )
            return elementwise(ctx, "to_power", lambda v: _power(v, saturate, round_mode), wide)
        return elementwise(ctx, f"to_{label}", lambda v: _rounded(v, label, saturate), wide)
    wide = convert(ctx, values, "int32")
    free = 32 - small.bits
    to_type = "int32" if small.carrier == "int8" else "uint32"

    def low_bits(value: Any) -> Any:
        return (value.astype(to_type) << number(free, to_type)) >> number(free, to_type)

    return elementwise(ctx, f"to_{label}", low_bits, wide, dtype=small.carrier)


def _bits(value: Any) -> Any:
    return tirx.reinterpret("uint32", value)


def _float(bits: Any) -> Any:
    return tirx.reinterpret(_F32, bits)


def _u32(value: int) -> Any:
    return number(value, "uint32")


def _f32(value: float) -> Any:
    return number(float(value), _F32)


def _is_nan(value: Any) -> Any:
    return (_bits(value) & _u32(_MAGNITUDE)) > _u32(_INFINITY)


def _rounded(value: Any, label: str, saturate: bool) -> Any:
    """The nearest number of a type, as float32."""
    small, info = _SMALL[label], ml_dtypes.finfo(label)
    top = float(info.max)
    near = tirx.max(tirx.min(value, _f32(2 * top)), _f32(-2 * top))
    power = _float(_bits(near) & _u32(_INFINITY))  # the power of two at or below the magnitude
    step = tirx.max(power, _f32(info.smallest_normal)) * _f32(2.0**-info.nmant)
    found = tirx.round(near / step) * step
    over = tirx.abs(found) > _f32(top)
    if saturate or (small.nan < 0 and small.infinity < 0):
        found = tirx.max(tirx.min(found, _f32(top)), _f32(-top))
    else:
        beyond = _u32(_INFINITY if small.infinity >= 0 else 0x7FC00000)
        found = tirx.Select(over, _float(beyond | (_bits(value) & _u32(0x80000000))), found)
    return tirx.Select(_is_nan(value), value if small.nan >= 0 else _f32(0.0), found)


def _power(value: Any, saturate: bool, round_mode: str) -> Any:
    """The power of two next to a number's magnitude, as float32."""
    bits = _bits(value)
    exponent, fraction = (bits >> _u32(23)) & _u32(0xFF), bits & _u32(0x7FFFFF)
    if round_mode == "up":
        more = fraction > _u32(0)
    elif round_mode == "nearest":
        half = _u32(0x400000)
        more = tirx.any(fraction > half, tirx.all(tirx.EQ(fraction, half), exponent > _u32(0)))
    else:
        more = tirx.const(False, "bool")
    if saturate:
        more = tirx.all(more, exponent < _u32(0xFE))
    rounded = tirx.Select(exponent < _u32(0xFF), exponent + more.astype("uint32"), exponent)
    least = _u32(0x400000)  # 2**-127, below the normal numbers
    found = tirx.Select(tirx.EQ(rounded, _u32(0)), least, rounded << _u32(23))
    return _float(tirx.Select(rounded >= _u32(0xFF), _u32(0x7FC00000), found))


def _code(value: Any, label: str) -> Any:
    """The bits of a number that the type holds."""
    small, info = _SMALL[label], ml_dtypes.finfo(label)
    bits = _bits(value)
    magnitude = bits & _u32(_MAGNITUDE)
    if label == _POWER:
        code = tirx.Select(_is_nan(value), _u32(small.nan), magnitude >> _u32(23))
        return code.astype("uint8")
    lowest, mantissa = int(info.minexp), int(info.nmant)
    tiny = tirx.min(_float(magnitude), _f32(info.smallest_normal)) * _f32(2.0 ** (mantissa - lowest))
    normal = (magnitude >> _u32(23 - mantissa)) - _u32((lowest + 126) << mantissa)
    code = tirx.Select(_float(magnitude) < _f32(info.smallest_normal), tiny.astype("uint32"), normal)
    if small.infinity >= 0:
        code = tirx.Select(tirx.EQ(magnitude, _u32(_INFINITY)), _u32(small.infinity), code)
    sign = (bits >> _u32(31)) << _u32(small.bits - 1)
    if label.endswith("uz"):  # the bits of -0 are NaN's
        sign = tirx.Select(tirx.EQ(code, _u32(0)), _u32(0), sign)
    signed = code | sign
    if small.nan >= 0:
        signed = tirx.Select(_is_nan(value), _u32(small.nan), signed)
    assert kind(signed) == "uint32"
    return signed.astype("uint8")
