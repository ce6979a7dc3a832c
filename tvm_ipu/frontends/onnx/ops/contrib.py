"""Operators of the domain com.microsoft that ONNX Runtime's tools write into models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops import activation as act, conv as conv_ops, matmul as mm
from tvm_ipu.frontends.onnx.ops.common import (
    attr_bool,
    in_float32,
    normal_axis,
    required,
    scalar,
)
from tvm_ipu.frontends.onnx.ops.index import gather_axis
from tvm_ipu.frontends.onnx.ops.norm import normalize
from tvm_ipu.frontends.onnx.ops.quantize import int_matmul
from tvm_ipu.frontends.onnx.ops.shape import permute
from tvm_ipu.frontends.onnx.ops.types import convert

R = relax.op
MS = "com.microsoft"


@converter("Gelu", "BiasGelu", "FastGelu", "QuickGelu", domain=MS)
def gelu(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x, bias = required(node, 0, "X"), node.input(1)
    x = x if bias is None else ctx.emit(R.add(x, bias))
    if node.op_type == "QuickGelu":
        return act.gated(ctx, x, float(node.attrs.get("alpha", 1.702)))
    return in_float32(ctx, R.nn.gelu_tanh if node.op_type == "FastGelu" else R.nn.gelu, x)


@converter("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MS)
def skip_layer_normalization(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types; without the outputs of mean and deviation."""
    simplified = node.op_type.startswith("SkipSimplified")
    total = ctx.emit(R.add(required(node, 0, "input"), required(node, 1, "skip")))
    beta, bias = (None, node.input(3)) if simplified else (node.input(3), node.input(4))
    if any(node.outputs[1:3]):
        raise UnsupportedNode("outputs 'mean' and 'inv_std_var' are not supported")
    total = total if bias is None else ctx.emit(R.add(total, bias))
    axis = len(ctx.shape(total)) - 1
    epsilon = float(node.attrs.get("epsilon", 1e-12))
    gamma = required(node, 2, "gamma")
    y = normalize(ctx, "layer_norm", total, [axis], epsilon, gamma, beta, centered=not simplified)
    return [y, y, y, total]


@converter("SimplifiedLayerNormalization")
def simplified_layer_normalization(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; ONNX Runtime's name for RMSNormalization."""
    x, scale = required(node, 0, "X"), required(node, 1, "scale")
    rank = len(ctx.shape(x))
    axes = range(normal_axis(int(node.attrs.get("axis", -1)), rank), rank)
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    return normalize(ctx, "rms_norm", x, axes, epsilon, scale, centered=False)


@converter("EmbedLayerNormalization", domain=MS)
def embed_layer_normalization(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point tables; ids are clamped into them."""
    ids, words, places = (
        required(node, i, n) for i, n in ((0, "input_ids"), (2, "word_embedding"), (3, "position_embedding"))
    )
    segments, mask = node.input(1), node.input(7)
    batch, length = ctx.shape(ids)
    given = node.input(8)
    positions = ctx.const(np.arange(length, dtype=np.int64)[None]) if given is None else given
    total = R.add(gather_axis(ctx, words, ids, 0), gather_axis(ctx, places, positions, 0))
    table = node.input(4)
    if table is not None:
        segments = ctx.const(np.zeros((batch, length), np.int64)) if segments is None else segments
        total = R.add(total, gather_axis(ctx, table, segments, 0))
    total = ctx.emit(total)
    epsilon = float(node.attrs.get("epsilon", 1e-12))
    y = normalize(ctx, "layer_norm", total, [2], epsilon, node.input(5), node.input(6))
    count = ctx.const(np.zeros(batch, np.int32)) if mask is None else ctx.emit(R.sum(mask, [1], False))
    return [y, count, total]


@converter("FusedMatMul", domain=MS)
def fused_matmul(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; without transposed batches."""
    if attr_bool(node, "transBatchA") or attr_bool(node, "transBatchB"):
        raise UnsupportedNode("attributes 'transBatchA' and 'transBatchB' are not supported")
    a, b = (_turned(ctx, node, i, name) for i, name in enumerate("AB"))
    return mm.scaled(ctx, ctx.emit(R.matmul(a, b)), float(node.attrs.get("alpha", 1.0)))


def _turned(ctx: Context, node: Node, index: int, name: str) -> relax.Expr:
    """Operand ``name`` with its last two axes swapped where the node says so."""
    x = required(node, index, name)
    rank = len(ctx.shape(x))
    if not attr_bool(node, f"trans{name}") or rank < 2:
        return x
    order = [*range(rank - 2), rank - 1, rank - 2]
    value = ctx.value(x)
    return permute(ctx, x, order) if value is None else ctx.const(value.transpose(order))


@converter("FusedConv", domain=MS)
def fused_conv(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; the activations Relu, LeakyRelu, Tanh, Sigmoid, Clip and HardSigmoid."""
    y = conv_ops.conv(ctx, node)
    assert isinstance(y, relax.Expr)
    if node.input(3) is not None:
        y = ctx.emit(R.add(y, required(node, 3, "Z")))
    name = str(node.attrs.get("activation", ""))
    params = [float(p) for p in node.attrs.get("activation_params", ())]
    dtype = ctx.dtype(y)
    functions: dict[str, Callable[[relax.Expr], relax.Expr]] = {
        "": lambda v: v,
        "Relu": R.nn.relu,
        "Tanh": R.tanh,
        "Sigmoid": R.sigmoid,
        "LeakyRelu": lambda v: R.nn.leakyrelu(v, params[0]),
        "Clip": lambda v: R.clip(v, params[0], params[1]),
        "HardSigmoid": lambda v: R.clip(
            R.add(R.multiply(v, scalar(ctx, params[0], dtype)), scalar(ctx, params[1], dtype)), 0, 1
        ),
    }
    if name not in functions:
        raise UnsupportedNode(f"activation '{name}' is not known; allowed are {', '.join(functions)}")
    return ctx.emit(functions[name](y)) if name else y


@converter("MatMulIntegerToFloat", domain=MS)
def matmul_integer_to_float(ctx: Context, node: Node) -> relax.Expr:
    """int8 and uint8."""
    a, b, a_scale, b_scale = (required(node, i, n) for i, n in enumerate(("A", "B", "a_scale", "b_scale")))
    total = int_matmul(ctx, a, b, node.input(4), node.input(5))
    return _scaled_sum(ctx, total, a_scale, b_scale, node.input(6))


@converter("DynamicQuantizeMatMul", domain=MS)
def dynamic_quantize_matmul(ctx: Context, node: Node) -> relax.Expr:
    """float32 times int8 or uint8."""
    from tvm_ipu.frontends.onnx.ops.quantize import dynamic_quantize_linear

    a, b, b_scale = (required(node, i, n) for i, n in enumerate(("A", "B", "b_scale")))
    outputs = ("y", "scale", "zero")
    inner = Node("DynamicQuantizeLinear", "", node.name, 11, (a,), {}, outputs)
    quantised, a_scale, a_zero = dynamic_quantize_linear(ctx, inner)
    total = int_matmul(ctx, quantised, b, a_zero, node.input(3))
    return _scaled_sum(ctx, total, a_scale, b_scale, node.input(4))


def _scaled_sum(
    ctx: Context, total: relax.Expr, a_scale: relax.Expr, b_scale: relax.Expr, bias: relax.Expr | None
) -> relax.Expr:
    y = R.multiply(convert(ctx, total, "float32"), R.multiply(a_scale, b_scale))
    return ctx.emit(y if bias is None else R.add(y, bias))
