"""Comparisons, logic, bits and selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, converter
from tvm_ipu.frontends.onnx.ops.common import attr_text, elementwise, is_signed, kind, number, required

_COMPARE: dict[str, Callable[[relax.Expr, relax.Expr], relax.Expr]] = {
    "Equal": relax.op.equal,
    "Greater": relax.op.greater,
    "GreaterOrEqual": relax.op.greater_equal,
    "Less": relax.op.less,
    "LessOrEqual": relax.op.less_equal,
}
_BITWISE: dict[str, Callable[[relax.Expr, relax.Expr], relax.Expr]] = {
    "BitwiseAnd": relax.op.bitwise_and,
    "BitwiseOr": relax.op.bitwise_or,
    "BitwiseXor": relax.op.bitwise_xor,
}
_LOGIC: dict[str, Callable[[Any, Any], Any]] = {
    "And": lambda a, b: tirx.all(a, b),
    "Or": lambda a, b: tirx.any(a, b),
    "Xor": lambda a, b: tirx.any(tirx.all(a, tirx.Not(b)), tirx.all(tirx.Not(a), b)),
}


@converter(*_COMPARE)
def compare(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types, and bool."""
    a, b = required(node, 0, "A"), required(node, 1, "B")
    if ctx.dtype(a) == "bool":
        return elementwise(ctx, "equal", lambda x, y: tirx.Not(_LOGIC["Xor"](x, y)), a, b)
    return ctx.emit(_COMPARE[node.op_type](a, b))


@converter(*_LOGIC)
def logic(ctx: Context, node: Node) -> relax.Expr:
    """bool."""
    return elementwise(
        ctx, node.op_type.lower(), _LOGIC[node.op_type], required(node, 0, "A"), required(node, 1, "B")
    )


@converter("Not")
def logical_not(ctx: Context, node: Node) -> relax.Expr:
    """bool."""
    return elementwise(ctx, "logical_not", tirx.Not, required(node, 0, "X"))


@converter(*_BITWISE)
def bitwise(ctx: Context, node: Node) -> relax.Expr:
    """All integer types."""
    return ctx.emit(_BITWISE[node.op_type](required(node, 0, "A"), required(node, 1, "B")))


@converter("BitwiseNot")
def bitwise_not(ctx: Context, node: Node) -> relax.Expr:
    """All integer types."""
    return ctx.emit(relax.op.bitwise_not(required(node, 0, "X")))


@converter("BitShift")
def bit_shift(ctx: Context, node: Node) -> relax.Expr:
    """All integer types; shifts by the width of the type or more are defined as in opset 28."""
    left = attr_text(node, "direction", "", ("LEFT", "RIGHT")) == "LEFT"

    def formula(x: Any, y: Any) -> Any:
        dtype = kind(x)
        bits = np.iinfo(dtype).bits
        zero = number(0, dtype)
        beyond = y >= number(bits, dtype)
        if is_signed(dtype):
            beyond = tirx.any(beyond, y < zero)
        amount = tirx.Select(beyond, zero, y)
        if left:
            return tirx.Select(beyond, zero, x << amount)
        rest = tirx.Select(x < zero, number(-1, dtype), zero) if is_signed(dtype) else zero
        return tirx.Select(beyond, rest, x >> amount)

    return elementwise(ctx, "bit_shift", formula, required(node, 0, "X"), required(node, 1, "Y"))


@converter("IsNaN")
def is_nan(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    return elementwise(ctx, "is_nan", tirx.isnan, required(node, 0, "X"), dtype="bool")


@converter("IsInf")
def is_inf(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    positive, negative = node.attrs.get("detect_positive", 1), node.attrs.get("detect_negative", 1)

    def formula(v: Any) -> Any:
        inf = tirx.infinity(kind(v))
        hits = ([v == inf] if positive else []) + ([v == number(0.0, kind(v)) - inf] if negative else [])
        return tirx.any(*hits) if hits else tirx.const(False, "bool")

    return elementwise(ctx, "is_inf", formula, required(node, 0, "X"), dtype="bool")


@converter("Where")
def where(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    condition, x, y = required(node, 0, "condition"), required(node, 1, "X"), required(node, 2, "Y")
    return ctx.emit(relax.op.where(condition, x, y))
