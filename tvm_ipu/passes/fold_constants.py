"""Compute in numpy what depends on constants only.

    lv = R.permute_dims(const, axes=[0, 2, 3, 1])   ->   (a constant)

TVM's own FoldConstant compiles every expression through LLVM: 10 s on ResNet-50's weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvm_ipu.base.model import VIEW_OPS
from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, rewrite, shape_of

MAX_BROADCAST = 2**16
"""Elements up to which a broadcast constant is stored: a bias for each channel is, a large tensor is not."""

_BINARY: dict[str, Callable[..., np.ndarray]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
}
_UNARY: dict[str, Callable[..., np.ndarray]] = {
    "relax.negative": np.negative,
    "relax.sqrt": np.sqrt,
    "relax.abs": np.abs,
}


def fold_constants(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Replace calls whose arguments are all constant by their value."""
    return rewrite(module, _fold)


def _fold(_: Rewriter, call: relax.Call) -> relax.Expr | None:
    name = op_name(call)
    first = constant(call.args[0]) if call.args else None
    if first is None:
        return None
    array = evaluate(name, call, first)
    if array is None:
        return None
    # numpy turns 0-d results into scalars and may widen; the call's own type decides
    return make_constant(np.asarray(array, dtype=first.dtype if name != "relax.astype" else array.dtype))


def evaluate(name: str, call: relax.Call, first: np.ndarray) -> np.ndarray | None:
    """Value of ``call`` of operator ``name`` with first argument ``first``; None if it is not constant."""
    if name == "relax.permute_dims":
        axes: Any = call.attrs.axes
        return np.ascontiguousarray(first.transpose(None if axes is None else [int(a) for a in axes]))
    if name in VIEW_OPS and isinstance(call.ty, relax.TensorType):
        return first.reshape(shape_of(call))
    if name == "relax.broadcast_to" and math.prod(shape_of(call)) <= MAX_BROADCAST:
        return np.ascontiguousarray(np.broadcast_to(first, shape_of(call)))
    if name == "relax.astype":
        return first.astype(numpy_dtype(str(call.attrs.dtype)))
    if name in _UNARY:
        return _UNARY[name](first)
    if name in _BINARY:
        second = constant(call.args[1])
        return None if second is None else _BINARY[name](first, second)
    if name == "relax.divide" and first.dtype.kind == "f":
        second = constant(call.args[1])
        return None if second is None else np.divide(first, second)
    return None
