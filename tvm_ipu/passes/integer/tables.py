"""Functions of one tensor as tables of integers (docs/numerics.md, tables)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.base.model import ELEMENTWISE_ATTR
from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import LIMITS, Array, Quantized, int32_constant
from tvm_ipu.passes.rewrite import Rewriter, make_constant, op_name

R = relax.op


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


_erf = np.vectorize(math.erf, otypes=[np.float64])

FUNCTIONS: dict[str, Callable[..., Array]] = {
    "relax.abs": np.abs,
    "relax.negative": np.negative,
    "relax.exp": np.exp,
    "relax.log": np.log,
    "relax.sqrt": np.sqrt,
    "relax.rsqrt": lambda x: 1 / np.sqrt(x),
    "relax.square": np.square,
    "relax.reciprocal": lambda x: 1 / x,
    "relax.sin": np.sin,
    "relax.cos": np.cos,
    "relax.tan": np.tan,
    "relax.asin": np.arcsin,
    "relax.acos": np.arccos,
    "relax.atan": np.arctan,
    "relax.sinh": np.sinh,
    "relax.cosh": np.cosh,
    "relax.tanh": np.tanh,
    "relax.asinh": np.arcsinh,
    "relax.acosh": np.arccosh,
    "relax.atanh": np.arctanh,
    "relax.erf": _erf,
    "relax.sigmoid": _sigmoid,
    "relax.floor": np.floor,
    "relax.ceil": np.ceil,
    "relax.round": np.rint,
    "relax.sign": np.sign,
    "relax.nn.relu": lambda x: np.maximum(x, 0),
    "relax.nn.silu": lambda x: x * _sigmoid(x),
    "relax.nn.gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "relax.nn.gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.power": np.power,
    "relax.maximum": lambda *x: functools.reduce(np.maximum, x),
    "relax.minimum": lambda *x: functools.reduce(np.minimum, x),
    "relax.equal": np.equal,
    "relax.not_equal": np.not_equal,
    "relax.greater": np.greater,
    "relax.greater_equal": np.greater_equal,
    "relax.less": np.less,
    "relax.less_equal": np.less_equal,
    "relax.where": lambda condition, a, b: np.asarray(np.where(condition != 0, a, b)),
}
"""Elementwise operators, in float64; what holds is 1, what does not is 0."""

ELEMENTWISE = frozenset({*FUNCTIONS, "relax.clip", "relax.nn.leakyrelu"})
"""Operators that ``apply`` knows."""


def elements(rewriter: Rewriter, expr: relax.Expr) -> tuple[str, list[relax.Expr]]:
    """Operator of ``ELEMENTWISE`` and its tensors; an empty name for everything else.

    A conversion of what holds to a float is ``relax.astype``.
    """
    call = rewriter.value(expr)
    function = rewriter.attribute(call, ELEMENTWISE_ATTR)
    if function:
        return f"relax.{function}", list(call.args[1].fields)
    name = op_name(call)
    if name == "relax.astype" and str(call.attrs.dtype) == "float32" and _is_bool(call.args[0]):
        return name, [call.args[0]]
    if name not in ELEMENTWISE:
        return "", []
    return name, [arg for arg in call.args if isinstance(arg.ty, relax.TensorType)]


def _is_bool(expr: relax.Expr) -> bool:
    return str(getattr(expr.ty, "dtype", "")) == "bool"


def apply(name: str, call: relax.Call, operands: list[Array]) -> Array:
    """Value of a call of one of ``ELEMENTWISE``, or of such a conversion."""
    if name == "relax.astype":
        return operands[0]
    if name == "relax.clip":
        low, high = (float(bound.value) for bound in call.args[1:])
        return np.asarray(np.clip(operands[0], low, high))
    if name == "relax.nn.leakyrelu":
        return np.where(operands[0] >= 0, operands[0], operands[0] * float(call.attrs.alpha))
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[name](*operands), np.float64)


def integers(q: Quantized) -> Array:
    """All values of the tensor's type, from the lowest."""
    low, high = LIMITS[q.dtype]
    return np.arange(low, high + 1)


def to_table(real: Array, result: Result) -> Array:
    """Numbers as integers of the result, int64; NaN becomes the zero point."""
    with np.errstate(all="ignore"):
        steps = (
            np.rint(np.nan_to_num(real / result.single_scale, nan=0.0, posinf=1e9, neginf=-1e9)) + result.zero
        )
    return np.asarray(np.clip(steps, result.low, result.high), np.int64)


def look_up(x: Quantized, table: Array, dtype: str) -> relax.Expr:
    """The table's entry for every element; entry 0 is for the type's lowest integer."""
    position: Any = x.expr
    lowest = LIMITS[x.dtype][0]
    if lowest:
        position = R.subtract(R.astype(position, "int32"), int32_constant(lowest))
    return R.take(make_constant(table.astype(dtype)), position, axis=0)
