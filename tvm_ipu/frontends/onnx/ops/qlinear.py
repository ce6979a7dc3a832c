"""Quantised operators, as the float operator between dequantising and quantising.

``passes.to_integer`` makes integers of them again, as of models that are written so from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from tvm_ipu.frontends.onnx.context import CONVERTERS, Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops import matmul as mm
from tvm_ipu.frontends.onnx.ops.common import attr_bool, elementwise, required
from tvm_ipu.frontends.onnx.ops.conv import reshape_weight
from tvm_ipu.frontends.onnx.ops.quantize import for_rows, int_conv, int_matmul, to_integer
from tvm_ipu.frontends.onnx.ops.types import convert

R = relax.op
MS = "com.microsoft"


@dataclass(frozen=True)
class Operand:
    """A quantised operand as ONNX gives it.

    Attributes:
        values: Integers.
        scale: float32, one or one for each slice of an axis.
        zero: Zero points, of the integers' type and as many.
    """

    values: relax.Expr
    scale: relax.Expr
    zero: relax.Expr

    def real(self, ctx: Context, axis: int = 0) -> relax.Expr:
        """The numbers; scales and zero points go along ``axis``."""
        scale, zero = (_scalar_or_list(ctx, e) for e in (self.scale, self.zero))
        return ctx.emit(R.dequantize(self.values, scale, zero, axis=axis, out_dtype="float32"))

    def known(self, ctx: Context) -> bool:
        """Whether scale and zero point are constant."""
        return ctx.value(self.scale) is not None and ctx.value(self.zero) is not None


def _operand(ctx: Context, node: Node, index: int) -> Operand:
    """Inputs ``index`` (integers), ``index + 1`` (scale) and ``index + 2`` (zero point, 0 where missing)."""
    values = required(node, index, str(index))
    zero = node.input(index + 2)
    return Operand(values, required(node, index + 1, f"{index + 1}"), _or_zero(ctx, zero, values))


def _or_zero(ctx: Context, zero: relax.Expr | None, like: relax.Expr) -> relax.Expr:
    return ctx.const(np.zeros((), ctx.dtype(like))) if zero is None else zero


def _result(ctx: Context, node: Node, index: int, like: relax.Expr) -> tuple[relax.Expr, relax.Expr]:
    """Scale and zero point of the result, inputs ``index`` and ``index + 1``."""
    return required(node, index, "y_scale"), _or_zero(ctx, node.input(index + 1), like)


def _bias(ctx: Context, bias: relax.Expr, a: Operand, b: Operand, factor: float = 1.0) -> relax.Expr:
    """int32 bias of a product, whose step is the product of the operands' steps."""
    left, right = ctx.value(a.scale), ctx.value(b.scale)
    if left is None or right is None:
        step = mm.scaled(ctx, ctx.emit(R.multiply(a.scale, b.scale)), factor)
        return ctx.emit(R.multiply(convert(ctx, bias, "float32"), step))
    known = np.asarray(left * right * np.float32(factor), np.float32).reshape(-1)
    return Operand(bias, ctx.const(known), ctx.const(np.zeros(known.shape, np.int32))).real(
        ctx, len(ctx.shape(bias)) - 1
    )


def _scalar_or_list(ctx: Context, parameter: relax.Expr) -> relax.Expr:
    return reshape_weight(ctx, parameter, ()) if np.prod(ctx.shape(parameter)) == 1 else parameter


def _quantized(ctx: Context, real: relax.Expr, result: tuple[relax.Expr, relax.Expr]) -> relax.Expr:
    """Numbers as integers, of the type of the zero point."""
    scale, zero = (_scalar_or_list(ctx, e) for e in result)
    return ctx.emit(R.quantize(real, scale, zero, axis=0, out_dtype=ctx.dtype(zero)))


def _float_node(
    ctx: Context, node: Node, op_type: str, *inputs: relax.Expr, attrs: Mapping[str, Any] | None = None
) -> relax.Expr:
    """Result of the float operator that a quantised one is named after, with its attributes."""
    own = dict(node.attrs if attrs is None else attrs)
    results = CONVERTERS["", op_type](ctx, Node(op_type, "", node.name, 21, inputs, own, node.outputs))
    return results if isinstance(results, relax.Expr) else results[0]


@converter("QLinearMatMul")
def qlinear_matmul(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8; scales for each row and column."""
    a, b = _operand(ctx, node, 0), _operand(ctx, node, 3)
    y_scale, y_zero = _result(ctx, node, 6, a.values)
    single = all(np.prod(ctx.shape(e)) == 1 for e in (a.scale, a.zero, y_scale, y_zero))
    if single and a.known(ctx) and b.known(ctx) and max(len(ctx.shape(e)) for e in (b.scale, b.zero)) < 2:
        product = R.matmul(a.real(ctx), b.real(ctx, len(ctx.shape(b.values)) - 1))
        return _quantized(ctx, ctx.emit(product), (y_scale, y_zero))
    total = int_matmul(ctx, a.values, b.values, a.zero, b.zero)
    a_scale, y_scale, y_zero = (for_rows(ctx, e) for e in (a.scale, y_scale, y_zero))
    return _requantize(ctx, total, a_scale, b.scale, y_scale, y_zero)


@converter("QLinearConv")
def qlinear_conv(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8, one to three spatial axes; weight scales for each output channel."""
    x, w = _operand(ctx, node, 0), _operand(ctx, node, 3)
    y_scale, y_zero = _result(ctx, node, 6, x.values)
    bias = node.input(8)
    if x.known(ctx) and w.known(ctx):
        inputs = [x.real(ctx), w.real(ctx)]
        if bias is not None:
            inputs.append(_bias(ctx, bias, x, w))
        return _quantized(ctx, _float_node(ctx, node, "Conv", *inputs), (y_scale, y_zero))
    total = int_conv(ctx, node, x.values, w.values, x.zero, w.zero)
    column = (1, ctx.shape(total)[1], *[1] * (len(ctx.shape(total)) - 2))
    if bias is not None:
        total = ctx.emit(R.add(total, reshape_weight(ctx, bias, column)))
    w_scale = w.scale if np.prod(ctx.shape(w.scale)) == 1 else reshape_weight(ctx, w.scale, column)
    x_scale, y_scale, y_zero = (reshape_weight(ctx, e, ()) for e in (x.scale, y_scale, y_zero))
    return _requantize(ctx, total, x_scale, w_scale, y_scale, y_zero)


def _requantize(
    ctx: Context,
    total: relax.Expr,
    a_scale: relax.Expr,
    b_scale: relax.Expr,
    y_scale: relax.Expr,
    y_zero: relax.Expr,
) -> relax.Expr:
    """int32 sums in the scale of the result: multiplied in float32, rounded to even, saturated."""
    dtype = ctx.dtype(y_zero)
    values = [ctx.value(e) for e in (a_scale, b_scale, y_scale)]
    known = [v.astype(np.float32) for v in values if v is not None]
    if len(known) == 3:
        factor: relax.Expr = ctx.const(np.asarray(known[0] * known[1] / known[2], np.float32))
    else:
        a, b, y = (convert(ctx, e, "float32") for e in (a_scale, b_scale, y_scale))
        factor = ctx.emit(R.divide(R.multiply(a, b), y))

    def formula(value: Any, multiplier: Any, offset: Any) -> Any:
        return to_integer(value.astype("float32") * multiplier, offset, dtype)

    return elementwise(ctx, "requantize", formula, total, factor, y_zero, dtype=dtype)


@converter("QLinearAdd", "QLinearMul", domain=MS)
def qlinear_binary(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8."""
    a, b = _operand(ctx, node, 0), _operand(ctx, node, 3)
    op: Callable[..., relax.Expr] = R.add if node.op_type == "QLinearAdd" else R.multiply
    return _quantized(ctx, ctx.emit(op(a.real(ctx), b.real(ctx))), _result(ctx, node, 6, a.values))


@converter("QLinearSigmoid", "QLinearLeakyRelu", "QLinearReduceMean", domain=MS)
def qlinear_unary(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8."""
    x = _operand(ctx, node, 0)
    real = _float_node(ctx, node, node.op_type.removeprefix("QLinear"), x.real(ctx))
    return _quantized(ctx, real, _result(ctx, node, 3, x.values))


@converter("QLinearSoftmax", domain=MS)
def qlinear_softmax(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8; computed in float32."""
    x = _operand(ctx, node, 0)
    since = int(node.attrs.get("opset", 13))
    inner = Node("Softmax", "", node.name, since, (x.real(ctx),), node.attrs, node.outputs)
    real = CONVERTERS["", "Softmax"](ctx, inner)
    return _quantized(ctx, real, _result(ctx, node, 3, x.values))


@converter("QLinearGlobalAveragePool", "QLinearAveragePool", domain=MS)
def qlinear_pool(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8; channels second."""
    if attr_bool(node, "channels_last"):
        raise UnsupportedNode("attribute 'channels_last' is 1; allowed is 0")
    return qlinear_unary(ctx, node)


@converter("QLinearConcat", domain=MS)
def qlinear_concat(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8."""
    parts = [_operand(ctx, node, i).real(ctx) for i in range(2, len(node.inputs), 3)]
    return _quantized(ctx, _float_node(ctx, node, "Concat", *parts), _result(ctx, node, 0, parts[0]))


@converter("QLinearWhere", domain=MS)
def qlinear_where(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8; computed in float32."""
    x, y = _operand(ctx, node, 1), _operand(ctx, node, 4)
    real = ctx.emit(R.where(required(node, 0, "condition"), x.real(ctx), y.real(ctx)))
    return _quantized(ctx, real, _result(ctx, node, 7, x.values))


@converter("QGemm", domain=MS)
def qgemm(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8; a float32 result where no scale is given for it."""
    a, b = _operand(ctx, node, 0), _operand(ctx, node, 3)
    left, right = a.real(ctx), b.real(ctx, 0 if attr_bool(node, "transB") else 1)
    left = mm.transposed(ctx, left) if attr_bool(node, "transA") else left
    right = mm.transposed(ctx, right) if attr_bool(node, "transB") else right
    y = mm.scaled(ctx, ctx.emit(R.matmul(left, right)), float(node.attrs.get("alpha", 1.0)))
    bias = node.input(6)
    if bias is not None:
        y = ctx.emit(R.add(y, _bias(ctx, bias, a, b, float(node.attrs.get("alpha", 1.0)))))
    return y if node.input(7) is None else _quantized(ctx, y, _result(ctx, node, 7, a.values))
