"""Remove transposes and reshapes that move nothing, and merge those that follow each other.

lv0 = R.permute_dims(x, axes=[0, 3, 1, 2])
lv1 = R.permute_dims(lv0, axes=[0, 2, 3, 1])    ->   x
lv2 = R.permute_dims(y, axes=[0, 3, 1, 2])      ->   R.reshape(y, ...)     (y is 1x1x1xC)
"""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_ipu.base.model import VIEW_OPS
from tvm_ipu.passes.rewrite import Rewriter, op_name, rewrite, shape_of


def simplify_transposes(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Cancel, merge and weaken transposes; merge reshapes."""
    return rewrite(module, _simplify)


def _simplify(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    name = op_name(call)
    if name == "relax.permute_dims":
        return _simplify_permute(rewriter, call)
    if name in VIEW_OPS:
        source = call.args[0]
        inner = rewriter.value(source)
        if op_name(inner) in VIEW_OPS:
            source = inner.args[0]
        if shape_of(source) == shape_of(call):
            return source
        if not source.same_as(call.args[0]):
            return relax.op.reshape(source, shape_of(call))
    return None


def _simplify_permute(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    source, axes = call.args[0], permutation(call)
    inner = rewriter.value(source)
    changed = False
    if op_name(inner) == "relax.permute_dims":
        first = permutation(inner)
        source, axes, changed = inner.args[0], [first[a] for a in axes], True
    if axes == list(range(len(axes))):
        return source
    shape = shape_of(source)
    moved = [a for a in axes if shape[a] != 1]
    if moved == sorted(moved):  # only dimensions of extent 1 change place: the bytes stay as they are
        return relax.op.reshape(source, [shape[a] for a in axes])
    return relax.op.permute_dims(source, axes) if changed else None


def permutation(call: relax.Call) -> list[int]:
    """Axes of a ``permute_dims`` call, non-negative."""
    rank = len(shape_of(call.args[0]))
    if call.attrs.axes is None:
        return list(reversed(range(rank)))
    return [int(a) % rank for a in call.attrs.axes]
