"""Move reshapes of convolutions' results behind elementwise operators, which then join the convolution.

    lv0 = R.nn.conv2d(x, w)                             lv0 = R.nn.conv2d(x, w)
    lv1 = R.reshape(lv0, (n, c, l))              ->     lv1 = R.add(lv0, b')        (b' is 1xCx1x1)
    lv2 = R.add(lv1, b)      (b is 1xCx1)               lv2 = R.reshape(lv1, (n, c, l))

Convolutions over one or three axes are 2-D ones between reshapes.
"""

from __future__ import annotations

import math

import tvm
from tvm import relax

from tvm_ipu.base.model import VIEW_OPS
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, rewrite, shape_of
from tvm_ipu.passes.sink_transposes import ELEMENTWISE

Shape = tuple[int, ...]


def sink_reshapes(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Move reshapes behind elementwise operators, and remove those that meet their inverse."""
    return rewrite(module, _sink)


def _sink(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) in VIEW_OPS:
        inner = rewriter.value(call.args[0])
        is_inverse = op_name(inner) in VIEW_OPS and shape_of(inner.args[0]) == shape_of(call)
        return inner.args[0] if is_inverse else None
    if op_name(call) not in ELEMENTWISE:
        return None
    source = next((s for arg in call.args if (s := _convolved(rewriter, arg)) is not None), None)
    if source is None:
        return None
    before, after = shape_of(source), shape_of(call)
    if math.prod(before) != math.prod(after) or not math.prod(after):
        return None
    args = [_reshaped(rewriter, arg, before, after) for arg in call.args]
    if any(arg is None for arg in args):
        return None
    moved = rewriter.emit(relax.Call(call.op, args, call.attrs, call.ty_args), rewriter.layer)
    return relax.op.reshape(moved, after)


def _convolved(rewriter: Rewriter, arg: relax.Expr) -> relax.Expr | None:
    """What ``arg`` is a reshape of, where a convolution computes that."""
    view = rewriter.value(arg)
    if op_name(view) not in VIEW_OPS:
        return None
    value = rewriter.value(view.args[0])
    while op_name(value) in ELEMENTWISE:
        value = rewriter.value(value.args[0])
    return view.args[0] if op_name(value) == "relax.nn.conv2d" else None


def _reshaped(rewriter: Rewriter, arg: relax.Expr, before: Shape, after: Shape) -> relax.Expr | None:
    """An operand of shape ``after``, or a constant that broadcasts to it, as ``before`` has it, or None."""
    if not isinstance(arg.ty, relax.TensorType):
        return arg  # an attribute, such as the bounds of a clip
    shape = _broadcast_shape((1,) * (len(after) - len(shape_of(arg))) + shape_of(arg), before, after)
    if shape is None:
        return None
    view, value = rewriter.value(arg), constant(arg)
    if value is not None:
        return make_constant(value.reshape(shape))
    if shape != before:
        return None  # such as the mean of a normalisation, which shall stay beside its sums
    if op_name(view) in VIEW_OPS and shape_of(view.args[0]) == shape:
        return view.args[0]
    return rewriter.emit(relax.op.reshape(arg, shape))


def _broadcast_shape(shape: Shape, before: Shape, after: Shape) -> Shape | None:
    """The shape that broadcasts to ``before`` as ``shape`` does to ``after``, of which it is a reshape."""
    found: list[int] = []
    i = j = 0
    while i < len(after) or j < len(before):
        first, last = i, j
        left = right = 1
        while True:  # the next dimensions that hold the same elements in both
            if left <= right and i < len(after):
                left, i = left * after[i], i + 1
            elif j < len(before):
                right, j = right * before[j], j + 1
            if left == right or (i == len(after) and j == len(before)):
                break
        own = shape[first:i]
        if own == after[first:i]:
            found += before[last:j]
        elif math.prod(own) == 1:
            found += [1] * (j - last)
        else:
            return None
    return tuple(found)
