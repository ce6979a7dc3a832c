"""Activation functions, written with Relax operators so that layout changes and fusion see through them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_text,
    elementwise,
    in_float32,
    is_float,
    kind,
    normal_axis,
    number,
    required,
    scalar,
)
from tvm_ipu.frontends.onnx.ops.reduce import arg_extremum

R = relax.op


class _Scalars:
    """Constants of the working type of one formula: float32 for half precision, else the input's own."""

    def __init__(self, ctx: Context, x: relax.Expr) -> None:
        self.ctx = ctx
        dtype = ctx.dtype(x)
        self.dtype = "float32" if dtype in ("float16", "bfloat16") else dtype

    def __call__(self, value: float) -> relax.Expr:
        return scalar(self.ctx, value, self.dtype)


@converter("Relu")
def relu(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types."""
    x = required(node, 0, "X")
    if is_float(ctx.dtype(x)):
        return ctx.emit(R.nn.relu(x))
    return ctx.emit(R.maximum(x, scalar(ctx, 0, ctx.dtype(x))))


@converter("LeakyRelu")
def leaky_relu(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    return ctx.emit(R.nn.leakyrelu(required(node, 0, "X"), float(node.attrs.get("alpha", np.float32(0.01)))))


@converter("PRelu")
def prelu(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; the slope broadcasts to the input."""
    x, slope = required(node, 0, "X"), required(node, 1, "slope")
    zero = scalar(ctx, 0, ctx.dtype(x))
    return ctx.emit(R.add(R.maximum(x, zero), R.multiply(R.minimum(x, zero), slope)))


@converter("ThresholdedRelu")
def thresholded_relu(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    dtype = ctx.dtype(x)
    threshold = scalar(ctx, node.attrs.get("alpha", 1.0), dtype)
    return ctx.emit(R.where(R.greater(x, threshold), x, scalar(ctx, 0, dtype)))


@converter("Sigmoid")
def sigmoid(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    return ctx.emit(R.sigmoid(required(node, 0, "X")))


@converter("HardSigmoid", "HardSwish")
def hard_sigmoid(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    swish = node.op_type == "HardSwish"
    alpha = 1 / 6 if swish else float(node.attrs.get("alpha", 0.2))
    beta = 0.5 if swish else float(node.attrs.get("beta", 0.5))
    c = _Scalars(ctx, x)

    def formula(v: relax.Expr) -> relax.Expr:
        gate = R.clip(R.add(R.multiply(v, c(alpha)), c(beta)), 0.0, 1.0)
        return R.multiply(v, gate) if swish else gate

    return in_float32(ctx, formula, x)


@converter("Elu", "Selu", "Celu")
def exponential_unit(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    c = _Scalars(ctx, x)
    selu, celu = node.op_type == "Selu", node.op_type == "Celu"
    alpha = float(node.attrs.get("alpha", 1.67326319217681884765625 if selu else 1.0))
    gamma = float(node.attrs.get("gamma", 1.05070102214813232421875)) if selu else 1.0

    def formula(v: relax.Expr) -> relax.Expr:
        below = R.minimum(v, c(0))
        power = R.exp(R.divide(below, c(alpha)) if celu else below)
        y = R.add(R.nn.relu(v), R.multiply(R.subtract(power, c(1)), c(alpha)))
        return R.multiply(y, c(gamma)) if selu else y

    return in_float32(ctx, formula, x)


@converter("Gelu")
def gelu(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, both forms of ``approximate``."""
    tanh = attr_text(node, "approximate", "none", ("none", "tanh")) == "tanh"
    return in_float32(ctx, R.nn.gelu_tanh if tanh else R.nn.gelu, required(node, 0, "X"))


@converter("Swish")
def swish(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    return gated(ctx, required(node, 0, "X"), float(node.attrs.get("alpha", 1.0)))


def gated(ctx: Context, x: relax.Expr, alpha: float = 1.0) -> relax.Expr:
    """``x * sigmoid(alpha * x)``."""
    if alpha == 1.0:
        return in_float32(ctx, R.nn.silu, x)
    c = _Scalars(ctx, x)
    return in_float32(ctx, lambda v: R.multiply(v, R.sigmoid(R.multiply(v, c(alpha)))), x)


@converter("SwiGLU")
def swiglu(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; both inputs of one shape."""
    gate, value = required(node, 0, "A"), required(node, 1, "B")
    return ctx.emit(R.multiply(gated(ctx, gate, float(node.attrs.get("alpha", 1.0))), value))


@converter("Softplus")
def softplus(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    c = _Scalars(ctx, x)

    def formula(v: relax.Expr) -> relax.Expr:
        return R.add(R.nn.relu(v), R.log(R.add(R.exp(R.negative(R.abs(v))), c(1))))

    return in_float32(ctx, formula, x)


@converter("Mish")
def mish(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    c = _Scalars(ctx, x)

    def formula(v: relax.Expr) -> relax.Expr:
        # tanh(log(1 + e^x)) = w / (w + 2) with w = e^x (e^x + 2); it is 1 to the last bit long before 20
        power = ctx.emit(R.exp(R.minimum(v, c(20))))
        w = ctx.emit(R.multiply(power, R.add(power, c(2))))
        return R.multiply(v, R.divide(w, R.add(w, c(2))))

    return in_float32(ctx, formula, x)


@converter("Softsign")
def softsign(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "input")
    c = _Scalars(ctx, x)
    return in_float32(ctx, lambda v: R.divide(v, R.add(R.abs(v), c(1))), x)


@converter("Shrink")
def shrink(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; computed in floating point."""
    bias, threshold = float(node.attrs.get("bias", 0.0)), float(node.attrs.get("lambd", 0.5))
    x = required(node, 0, "input")

    def formula(v: Any) -> Any:
        work = "float64" if kind(v) not in ("float32", "float64") else kind(v)
        w = v.astype(work)
        low, high, shift, zero = (number(n, work) for n in (-threshold, threshold, bias, 0.0))
        return tirx.Select(w < low, w + shift, tirx.Select(w > high, w - shift, zero))

    return elementwise(ctx, "shrink", formula, x)


@converter("Softmax", "LogSoftmax")
def softmax(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any axis; half precision is computed in float32."""
    op = R.nn.softmax if node.op_type == "Softmax" else R.nn.log_softmax
    x = required(node, 0, "input")
    shape = ctx.shape(x)
    if not shape or 0 in shape:
        return elementwise(ctx, "softmax", lambda v: v - v + number(float(op is R.nn.softmax), kind(v)), x)
    if node.since >= 13:
        axis = normal_axis(int(node.attrs.get("axis", -1)), len(shape))
        return in_float32(ctx, lambda v: op(v, axis), x)
    flat = _as_matrix(node, shape)
    return in_float32(ctx, lambda v: R.reshape(op(R.reshape(v, flat), -1), shape), x)


def _as_matrix(node: Node, shape: tuple[int, ...]) -> tuple[int, int]:
    """The two dimensions that softmax had before opset 13: those before ``axis``, and the rest."""
    axis = normal_axis(int(node.attrs.get("axis", 1)), len(shape))
    return math.prod(shape[:axis]), math.prod(shape[axis:])


@converter("Hardmax")
def hardmax(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any axis."""
    x = required(node, 0, "input")
    shape, dtype = ctx.shape(x), ctx.dtype(x)
    flat: tuple[int, ...] = shape
    axis = normal_axis(int(node.attrs.get("axis", -1 if node.since >= 13 else 1)), len(shape))
    if node.since < 13:
        flat, axis = _as_matrix(node, shape), 1

    def compute(tensor: te.Tensor) -> te.Tensor:
        best = arg_extremum(tensor, axis, maximum=True, last=False)

        def element(*index: Any) -> Any:
            hit = best(*index[:axis], *index[axis + 1 :]) == index[axis].astype("int32")
            return tirx.Select(hit, number(1, dtype), number(0, dtype))

        return te.compute(tensor.shape, element, name="hardmax")

    source = ctx.emit(R.reshape(x, flat)) if flat != shape else x
    result = ctx.te(compute, source, name="hardmax")
    return ctx.emit(R.reshape(result, shape)) if flat != shape else result
