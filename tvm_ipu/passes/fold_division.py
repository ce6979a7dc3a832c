"""Multiply by the reciprocal of a constant instead of dividing by it.

lv0 = R.divide(x, const(8))    ->    lv0 = R.multiply(x, const(0.125))

A result may differ by a rounding of the reciprocal; a division takes as long as ten multiplications.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, rewrite


def fold_division(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Replace float32 and float64 divisions by constants whose reciprocals are normal numbers."""
    return rewrite(module, _fold)


def _fold(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) != "relax.divide" or str(call.ty.dtype) not in ("float32", "float64"):
        return None
    divisor = constant(call.args[1])
    if divisor is None:
        return None
    with np.errstate(all="ignore"):
        reciprocal = np.reciprocal(divisor)
    limits = np.finfo(reciprocal.dtype)
    size = np.abs(reciprocal)
    if not np.all((size >= limits.tiny) & (size <= limits.max)):
        return None
    return relax.op.multiply(call.args[0], make_constant(reciprocal))
