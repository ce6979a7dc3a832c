"""Fold a constant scale and shift per channel (BatchNorm) into the convolution before it.

lv0 = R.nn.conv2d(x, w)                 lv0 = R.nn.conv2d(x, w * s)
lv1 = R.add(lv0, b)              ->     lv1 = R.add(lv0, b * s + t)
lv2 = R.multiply(lv1, s)
lv3 = R.add(lv2, t)
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, rewrite, shape_of


def fold_scale(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Fold multiplications into weights and merge additions that follow a convolution (NCHW, OIHW)."""
    return rewrite(module, _fold)


def _fold(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) not in ("relax.multiply", "relax.add"):
        return None
    inner_var, factor = _constant_second(call)
    if factor is None or not rewriter.single_use(inner_var):
        return None
    inner = rewriter.value(inner_var)
    if op_name(inner) == "relax.add":
        return _fold_add(rewriter, call, inner, factor)
    if op_name(inner) == "relax.nn.conv2d" and op_name(call) == "relax.multiply":
        scaled = _scaled_conv(inner, factor)
        return None if scaled is None else rewriter.emit(scaled, inner_var.name)
    return None


def _fold_add(
    rewriter: Rewriter, call: relax.Call, inner: relax.Call, factor: np.ndarray
) -> relax.Expr | None:
    """``(y + b) + t`` and ``(conv + b) * s``."""
    inner_var, bias = _constant_second(inner)
    if bias is None or not np.can_cast(factor.dtype, bias.dtype) or bias.dtype.kind != "f":
        return None
    if np.broadcast_shapes(bias.shape, factor.shape) != bias.shape:
        return None
    if op_name(call) == "relax.add":
        return relax.op.add(inner_var, make_constant(bias + factor))
    conv = rewriter.value(inner_var)
    if op_name(conv) != "relax.nn.conv2d" or not rewriter.single_use(inner_var):
        return None
    scaled = _scaled_conv(conv, factor)
    if scaled is None:
        return None
    return relax.op.add(rewriter.emit(scaled, inner_var.name), make_constant(bias * factor))


def _constant_second(call: relax.Call) -> tuple[relax.Expr, np.ndarray | None]:
    """Operands of a commutative call, the constant one second."""
    second = constant(call.args[1])
    if second is not None:
        return call.args[0], second
    return call.args[1], constant(call.args[0])


def _scaled_conv(conv: relax.Call, factor: np.ndarray) -> relax.Call | None:
    """The convolution with its weights multiplied by ``factor`` per output channel."""
    weight = constant(conv.args[1])
    channels = shape_of(conv)[1] if conv.attrs.data_layout == "NCHW" else -1
    if weight is None or weight.dtype != factor.dtype or conv.attrs.kernel_layout != "OIHW":
        return None
    if factor.size != 1 and (factor.size != channels or factor.shape[-3:] != (channels, 1, 1)):
        return None
    scaled = weight * np.broadcast_to(factor.reshape(-1), (weight.shape[0],)).reshape(-1, 1, 1, 1)
    return relax.Call(conv.op, [conv.args[0], make_constant(scaled)], conv.attrs)
