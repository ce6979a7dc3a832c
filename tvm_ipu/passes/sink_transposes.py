"""Move transposes behind other operators, where they meet their inverse and cancel.

    lv0 = R.permute_dims(x, axes=[0, 3, 1, 2])          lv0 = R.clip(x, 0, 6)
    lv1 = R.clip(lv0, 0, 6)                     ->      lv1 = R.permute_dims(lv0, axes=[0, 3, 1, 2])
    lv2 = R.permute_dims(lv1, axes=[0, 2, 3, 1])        lv2 = R.permute_dims(lv1, axes=[0, 2, 3, 1])

ConvertLayout stops at operators for which it knows no layout; this goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax

from tvm_ipu.passes.rewrite import Rewriter, Rule, constant, make_constant, op_name, rewrite, shape_of
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
WITH_LAYOUT = frozenset({"relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.image.resize2d"})
MOVABLE = frozenset(
    {
        *ELEMENTWISE,
        *REDUCTIONS,
        *WITH_LAYOUT,
        "relax.concat",
        "relax.nn.pad",
        "relax.permute_dims",
        "relax.take",
    }
)
"""Operators that a transpose of an operand may get past."""


def sink_transposes(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Move transposes of an operator's operands behind the operator."""
    return rewrite(module, _sink)


def _sink(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    name = op_name(call)
    rule = _RULES.get(name) or (_sink_elementwise if name in ELEMENTWISE else None)
    return rule(rewriter, call) if rule else None


def _sink_elementwise(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    axes = _common_axes(rewriter, call.args)
    if axes is None or len(axes) != len(shape_of(call)):
        return None
    args = [_without_transpose(rewriter, arg, axes) for arg in call.args]
    if any(arg is None for arg in args):
        return None
    return _behind(rewriter, relax.Call(call.op, args, call.attrs, call.ty_args), axes)


def _sink_reduction(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    """``mean(permute_dims(x), axis)`` with kept dimensions."""
    axes = _common_axes(rewriter, call.args)
    if axes is None or not call.attrs.keepdims or call.attrs.axis is None:
        return None
    inner = rewriter.value(call.args[0])
    reduced = [axes[int(axis)] for axis in call.attrs.axis]
    make = getattr(relax.op, op_name(call).removeprefix("relax."))
    return _behind(rewriter, make(inner.args[0], axis=reduced, keepdims=True), axes)


def _sink_with_layout(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    """Pooling and resizing, which say where their axes are."""
    axes, attrs = _common_axes(rewriter, call.args[:1]), call.attrs
    if axes is None or str(attrs.layout) != str(getattr(attrs, "out_layout", "") or attrs.layout):
        return None
    layout = "".join(str(attrs.layout)[i] for i in np.argsort(axes))
    source = rewriter.value(call.args[0]).args[0]
    if op_name(call) == "relax.image.resize2d":
        kept = ("method", "coordinate_transformation_mode", "rounding_method", "cubic_alpha", "cubic_exclude")
        options = {key: getattr(attrs, key) for key in (*kept, "extrapolation_value")}
        moved = relax.op.image.resize2d(source, call.args[1], list(attrs.roi), layout, **options)
    else:
        make = getattr(relax.op.nn, op_name(call).removeprefix("relax.nn."))
        window = (
            [int(v) for v in w] for w in (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation)
        )
        moved = make(source, *window, bool(attrs.ceil_mode), bool(attrs.count_include_pad), layout)
    return _behind(rewriter, moved, axes)


def _sink_pad(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    axes, attrs = _common_axes(rewriter, call.args), call.attrs
    if axes is None:
        return None
    widths = np.array([int(p) for p in attrs.pad_width]).reshape(-1, 2)[np.argsort(axes)].ravel().tolist()
    source = rewriter.value(call.args[0]).args[0]
    return _behind(
        rewriter, relax.op.nn.pad(source, widths, str(attrs.pad_mode), float(attrs.pad_value)), axes
    )


def _sink_take(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    """``take`` from a table of one dimension."""
    table = constant(call.args[0])
    axes = None if table is None or table.ndim != 1 else _common_axes(rewriter, call.args[1:])
    if axes is None:
        return None
    source = rewriter.value(call.args[1]).args[0]
    return _behind(rewriter, relax.op.take(call.args[0], source, axis=0), axes)


def _sink_concat(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    parts = list(rewriter.value(call.args[0]).fields)
    axes = _common_axes(rewriter, parts)
    if axes is None or call.attrs.axis is None:
        return None
    moved = [_without_transpose(rewriter, part, axes) for part in parts]
    if any(part is None for part in moved):
        return None
    return _behind(rewriter, relax.op.concat(moved, axes[int(call.attrs.axis) % len(axes)]), axes)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(REDUCTIONS, _sink_reduction),
    **dict.fromkeys(WITH_LAYOUT, _sink_with_layout),
    "relax.concat": _sink_concat,
    "relax.nn.pad": _sink_pad,
    "relax.take": _sink_take,
}


def _behind(rewriter: Rewriter, moved: relax.Expr, axes: list[int]) -> relax.Expr:
    """The moved operator, then the transpose."""
    return relax.op.permute_dims(rewriter.emit(moved, rewriter.layer), axes)


def _common_axes(rewriter: Rewriter, args: Sequence[relax.Expr]) -> list[int] | None:
    """Permutation of the first transposed operand all of whose users let a transpose through."""
    for arg in args:
        inner = rewriter.value(arg)
        if op_name(inner) == "relax.permute_dims" and all(u in MOVABLE for u in rewriter.users(arg)):
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
