"""Arithmetic, element by element, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    cast,
    choose,
    elementwise,
    fold,
    is_float,
    is_signed,
    kind,
    number,
    required,
    scalar,
    value_limits,
)
from tvm_ipu.frontends.onnx.ops.types import saturate

_UNARY: dict[str, Callable[[relax.Expr], relax.Expr]] = {
    "Abs": relax.op.abs,
    "Acos": relax.op.acos,
    "Acosh": relax.op.acosh,
    "Asin": relax.op.asin,
    "Asinh": relax.op.asinh,
    "Atan": relax.op.atan,
    "Atanh": relax.op.atanh,
    "Ceil": relax.op.ceil,
    "Cos": relax.op.cos,
    "Cosh": relax.op.cosh,
    "Erf": relax.op.erf,
    "Exp": relax.op.exp,
    "Floor": relax.op.floor,
    "Log": relax.op.log,
    "Neg": relax.op.negative,
    "Sin": relax.op.sin,
    "Sinh": relax.op.sinh,
    "Sqrt": relax.op.sqrt,
    "Tan": relax.op.tan,
    "Tanh": relax.op.tanh,
}


@converter(*_UNARY)
def unary(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types of the operator."""
    return ctx.emit(_UNARY[node.op_type](required(node, 0, "X")))


@converter("Round")
def round_op(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; halves go to the even neighbour."""
    return ctx.emit(relax.op.round(required(node, 0, "X")))


@converter("Reciprocal")
def reciprocal(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    return elementwise(ctx, "reciprocal", lambda v: number(1.0, kind(v)) / v, x, function="reciprocal")


@converter("Sign")
def sign(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types."""
    x = required(node, 0, "input")

    def formula(v: Any) -> Any:
        one, zero = number(1, kind(v)), number(0, kind(v))
        negative = number(-1, kind(v)) if is_float(kind(v)) or is_signed(kind(v)) else zero
        return tirx.Select(v > zero, one, tirx.Select(v < zero, negative, v))

    return elementwise(ctx, "sign", formula, x, function="sign")


_BINARY: dict[str, Callable[[relax.Expr, relax.Expr], relax.Expr]] = {
    "Add": relax.op.add,
    "Sub": relax.op.subtract,
    "Mul": relax.op.multiply,
}


@converter(*_BINARY)
def binary(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; integers wrap around."""
    return ctx.emit(_BINARY[node.op_type](required(node, 0, "A"), required(node, 1, "B")))


@converter("Div")
def div(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; integers round towards zero, and x / 0 is 0."""
    a, b = required(node, 0, "A"), required(node, 1, "B")
    if is_float(ctx.dtype(a)):
        return ctx.emit(relax.op.divide(a, b))
    return elementwise(ctx, "int_div", safe_div, a, b)


def safe_div(a: Any, b: Any) -> Any:
    """Integer quotient towards zero that cannot trap: 0 where ``b`` is 0, wrapped where it overflows."""
    dtype = kind(a)
    zero, one = number(0, dtype), number(1, dtype)
    if not is_signed(dtype):
        return choose(b == zero, zero, tirx.truncdiv(a, tirx.Select(b == zero, one, b)))
    minus = number(-1, dtype)
    divisor = tirx.Select(tirx.any(b == zero, b == minus), one, b)
    quotient = tirx.truncdiv(a, divisor)
    return choose(b == zero, zero, choose(b == minus, zero - a, quotient))


def safe_rem(a: Any, b: Any) -> Any:
    """Integer remainder with the sign of ``a`` that cannot trap: 0 where ``b`` is 0."""
    dtype = kind(a)
    zero, one = number(0, dtype), number(1, dtype)
    trivial = b == zero
    if is_signed(dtype):
        trivial = tirx.any(trivial, b == number(-1, dtype))
    remainder = tirx.truncmod(a, tirx.Select(trivial, one, b))
    return choose(trivial, zero, remainder)


@converter("Mod")
def mod(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; an integer modulo 0 is 0. Floats are exact while the quotient is below 2^29."""
    a, b = required(node, 0, "A"), required(node, 1, "B")
    truncated = bool(node.attrs.get("fmod", 0))
    if is_float(ctx.dtype(a)):
        return elementwise(ctx, "fmod" if truncated else "mod", _float_rem if truncated else _float_mod, a, b)
    if truncated or not is_signed(ctx.dtype(a)):
        return elementwise(ctx, "int_rem", safe_rem, a, b)

    def floored(x: Any, y: Any) -> Any:
        r = safe_rem(x, y)
        zero = number(0, kind(x))
        return tirx.Select(tirx.all(r != zero, _opposite(r, y)), r + y, r)

    return elementwise(ctx, "int_mod", floored, a, b)


def _opposite(a: Any, b: Any) -> Any:
    """True where exactly one of two numbers is below zero."""
    negative_a, negative_b = a < number(0, kind(a)), b < number(0, kind(b))
    return tirx.any(tirx.all(negative_a, tirx.Not(negative_b)), tirx.all(tirx.Not(negative_a), negative_b))


def _float_rem(a: Any, b: Any) -> Any:
    """Remainder of a division with the sign of ``a``, in float64; NaN for b = 0 and infinite a."""
    x, y = tirx.abs(a.astype("float64")), tirx.abs(b.astype("float64"))
    r = x - tirx.trunc(x / y) * y
    r = tirx.Select(r < 0.0, r + y, tirx.Select(r >= y, r - y, r))
    r = tirx.Select(tirx.all(y == tirx.infinity("float64"), x < tirx.infinity("float64")), x, r)
    return tirx.Select(a < number(0.0, kind(a)), number(0.0, "float64") - r, r)


def _float_mod(a: Any, b: Any) -> Any:
    """Remainder of float division with the sign of ``b``."""
    r, y = _float_rem(a, b), b.astype("float64")
    zero = number(0.0, "float64")
    r = tirx.Select(tirx.all(r != zero, _opposite(r, y)), r + y, r)
    return tirx.Select(r == zero, tirx.Select(y < zero, number(-0.0, "float64"), zero), r)


@converter("Pow")
def power(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types, mixed ones too; the result has the type of the base."""
    base, exponent = required(node, 0, "X"), required(node, 1, "Y")
    dtype, other = ctx.dtype(base), ctx.dtype(exponent)
    value = ctx.value(exponent)
    if value is not None and value.size == 1 and value.ndim <= len(ctx.shape(base)):
        special = _constant_power(ctx, base, float(value.item()))
        if special is not None:
            return special
    if is_float(dtype):
        if is_float(other):
            return ctx.emit(relax.op.power(base, cast(ctx, exponent, dtype)))
        return elementwise(ctx, "power", lambda x, y: tirx.power(x, y.astype(kind(x))), base, exponent)
    if not is_float(other):
        return elementwise(ctx, "int_power", _int_power, base, exponent)

    def through_float64(x: Any, y: Any) -> Any:
        return saturate(tirx.power(x.astype("float64"), y.astype("float64")), dtype)

    return elementwise(ctx, "power", through_float64, base, exponent)


def _constant_power(ctx: Context, base: relax.Expr, exponent: float) -> relax.Expr | None:
    """A power as multiplications or a square root where that is exact."""
    if exponent == 1.0:
        return base
    if exponent == 2.0:
        return ctx.emit(relax.op.multiply(base, base))
    if exponent == 3.0:
        return ctx.emit(relax.op.multiply(ctx.emit(relax.op.multiply(base, base)), base))
    if exponent == 0.5 and is_float(ctx.dtype(base)):
        return ctx.emit(relax.op.sqrt(base))
    return None


def _int_power(base: Any, exponent: Any) -> Any:
    """Integer power by squaring, wrapping around; negative exponents round towards zero."""
    dtype = kind(base)
    zero, one, minus = number(0, dtype), number(1, dtype), number(-1 if is_signed(dtype) else 0, dtype)
    e = exponent.astype("int64")
    result, square = one, base
    for bit in range(6):
        odd = tirx.bitwise_and(e >> number(bit, "int64"), number(1, "int64")) == number(1, "int64")
        result = result * tirx.Select(odd, square, one)
        square = square * square
    sign_of_minus = tirx.Select(tirx.bitwise_and(e, number(1, "int64")) == number(1, "int64"), minus, one)
    unit = tirx.Select(base == one, one, tirx.Select(base == minus, sign_of_minus, zero))
    return tirx.Select(tirx.all(e >= number(0, "int64"), e < number(64, "int64")), result, unit)


@converter("Max", "Min")
def extremum(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types, any number of inputs; NaN spreads."""
    exprs = _operands(node)
    maximum = node.op_type == "Max"

    def pick(a: Any, b: Any) -> Any:
        best = tirx.Select(a > b if maximum else a < b, a, b)
        return tirx.Select(tirx.isnan(a), a, best) if is_float(kind(a)) else best

    return fold(ctx, node.op_type.lower(), pick, exprs, "maximum" if maximum else "minimum")


@converter("Sum", "Mean")
def total(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any number of inputs."""
    exprs = _operands(node)
    result = exprs[0]
    for expr in exprs[1:]:
        result = ctx.emit(relax.op.add(result, expr))
    if node.op_type == "Mean" and len(exprs) > 1:
        result = ctx.emit(relax.op.divide(result, scalar(ctx, len(exprs), ctx.dtype(result))))
    return result


def _operands(node: Node) -> Sequence[relax.Expr]:
    exprs = [x for x in node.inputs if x is not None]
    if not exprs:
        raise UnsupportedNode("no input is given")
    return exprs


@converter("Clip")
def clip(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; limits may be computed at run time."""
    x = required(node, 0, "input")
    dtype = ctx.dtype(x)
    if node.since < 11:
        lowest, highest = value_limits(dtype)
        low: relax.Expr | None = scalar(ctx, node.attrs.get("min", lowest), dtype)
        high: relax.Expr | None = scalar(ctx, node.attrs.get("max", highest), dtype)
    else:
        low, high = node.input(1), node.input(2)
    values = ctx.value(low), ctx.value(high)
    if is_float(dtype) and (low is None or values[0] is not None) and (high is None or values[1] is not None):
        limits = value_limits(dtype)
        lo, hi = (
            float(np.asarray(v).item()) if v is not None else d for v, d in zip(values, limits, strict=True)
        )
        return ctx.emit(relax.op.clip(x, min(lo, hi), hi)) if (lo, hi) != limits else x
    result = x
    if low is not None:
        result = elementwise(ctx, "clip_low", lambda v, m: tirx.Select(v < m, m, v), result, low)
    if high is not None:
        result = elementwise(ctx, "clip_high", lambda v, m: tirx.Select(v > m, m, v), result, high)
    return result
