"""Move transposes behind elementwise operators and reductions, where they meet their inverse and cancel.

    lv0 = R.permute_dims(x, axes=[0, 3, 1, 2])          lv0 = R.clip(x, 0, 6)
    lv1 = R.clip(lv0, 0, 6)                     ->      lv1 = R.permute_dims(lv0, axes=[0, 3, 1, 2])
    lv2 = R.permute_dims(lv1, axes=[0, 2, 3, 1])        lv2 = R.permute_dims(lv1, axes=[0, 2, 3, 1])

ConvertLayout stops at operators for which it knows no layout; this goes on from there.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, rewrite, shape_of
from tvm_ipu.passes.simplify_transposes import permutation

ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "bitwise_not", "ceil", "clip",
        "cos", "cosh", "erf", "exp", "floor", "isfinite", "isinf", "isnan", "log", "logical_not", "negative",
        "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc",
        "astype", "where",
        "nn.relu", "nn.leakyrelu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "nn.softplus", "nn.selu", "nn.elu",
        "add", "subtract", "multiply", "divide", "floor_divide", "mod", "floor_mod", "power", "maximum",
        "minimum", "equal", "not_equal", "greater", "greater_equal", "less", "less_equal",
        "logical_and", "logical_or", "logical_xor",
    )
)  # fmt: skip
REDUCTIONS = frozenset(f"relax.{name}" for name in ("mean", "sum", "max", "min", "prod"))


def sink_transposes(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Move transposes of an operator's operands behind the operator."""
    return rewrite(module, _sink)


def _sink(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) in REDUCTIONS:
        return _sink_reduction(rewriter, call)
    if op_name(call) not in ELEMENTWISE:
        return None
    axes = _common_axes(rewriter, call)
    if axes is None or len(axes) != len(shape_of(call)):
        return None
    args = [_without_transpose(rewriter, arg, axes) for arg in call.args]
    if any(arg is None for arg in args):
        return None
    moved = rewriter.emit(relax.Call(call.op, args, call.attrs, call.ty_args))
    return relax.op.permute_dims(moved, axes)


def _sink_reduction(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    """``mean(permute_dims(x), axis)`` with kept dimensions."""
    axes = _common_axes(rewriter, call)
    if axes is None or not call.attrs.keepdims or call.attrs.axis is None:
        return None
    inner = rewriter.value(call.args[0])
    reduced = [axes[int(axis)] for axis in call.attrs.axis]
    make = getattr(relax.op, op_name(call).removeprefix("relax."))
    moved = rewriter.emit(make(inner.args[0], axis=reduced, keepdims=True))
    return relax.op.permute_dims(moved, axes)


def _common_axes(rewriter: Rewriter, call: relax.Call) -> list[int] | None:
    """Permutation of the first transposed operand all of whose users let a transpose through."""
    for arg in call.args:
        inner = rewriter.value(arg)
        if op_name(inner) == "relax.permute_dims" and all(
            user in ELEMENTWISE or user in REDUCTIONS or user == "relax.permute_dims"
            for user in rewriter.users(arg)
        ):
            return permutation(inner)
    return None


def _without_transpose(rewriter: Rewriter, arg: relax.Expr, axes: list[int]) -> relax.Expr | None:
    """What gives ``arg`` when transposed by ``axes``; None where that would cost a transpose of its own."""
    inner = rewriter.value(arg)
    if op_name(inner) == "relax.permute_dims" and permutation(inner) == axes:
        return inner.args[0]
    if not isinstance(arg.ty, relax.TensorType):
        return arg  # an attribute, such as the bounds of a clip
    value = constant(arg)
    if value is not None and value.ndim <= len(axes):
        if value.size == 1:
            return make_constant(value.reshape(()))
        aligned = value.reshape((1,) * (len(axes) - value.ndim) + value.shape)
        return make_constant(aligned.transpose(np.argsort(axes)))
    shape = shape_of(arg)
    if len(shape) == len(axes) and sum(dim != 1 for dim in shape) <= 1:
        return rewriter.emit(relax.op.reshape(arg, [shape[a] for a in np.argsort(axes)]))
    return None
