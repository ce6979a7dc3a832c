"""Functions of one 8-bit tensor as tables of 256 integers (docs/numerics.md, tables)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import LIMITS, Array, Quantized, int32_constant
from tvm_ipu.passes.rewrite import make_constant, op_name

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
    "relax.sin": np.sin,
    "relax.cos": np.cos,
    "relax.tanh": np.tanh,
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
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}
"""Elementwise operators, in float64."""

ELEMENTWISE = frozenset({*FUNCTIONS, "relax.clip", "relax.nn.leakyrelu"})
"""Operators that ``apply`` knows."""


def apply(call: relax.Call, operands: list[Array]) -> Array:
    """Value of a call of one of ``ELEMENTWISE``."""
    name = op_name(call)
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
