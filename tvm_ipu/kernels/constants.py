"""Constants of Relax modules as numpy arrays, and back, without copies where both sides know the type.

Weights pass several steps; each copy of a network's takes about as long as one inference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import relax
from tvm.ir.expr import GenericConst

Array = NDArray[Any]


def constant(expr: relax.Expr) -> Array | None:
    """Value of a constant tensor, not to be written to; None for anything else."""
    if not isinstance(expr, GenericConst):
        return None
    try:
        value: Array = np.from_dlpack(expr.value)
    except (BufferError, RuntimeError):  # a type that numpy's DLPack lacks
        value = expr.value.numpy()
    value.flags.writeable = False
    return value


def make_constant(array: Array) -> relax.Expr:
    """A constant of exactly the array's type, where ``relax.const`` would narrow types of 64 bits.

    Args:
        array: Nobody writes to it as long as the constant lives.
    """
    dense = np.ascontiguousarray(array).reshape(array.shape)
    try:
        return relax.const(tvm_ffi.from_dlpack(dense))
    except (
        BufferError,
        RuntimeError,
    ):  # not to be written to, a type that DLPack lacks, or at an odd address
        return relax.const(tvm.runtime.tensor(dense))
