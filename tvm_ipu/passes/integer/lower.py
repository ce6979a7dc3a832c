"""Conversions that remain at the edges of integer parts, as elementwise operators that other passes know."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer.tensors import NoInteger, along, int32_constant, parameters
from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name, shape_of

R = relax.op


def lower_conversions(_: Rewriter, call: relax.Call) -> relax.Expr | None:
    """``dequantize`` with known parameters: differences in int32 times the scale in float32."""
    if op_name(call) != "relax.dequantize" or str(call.attrs.out_dtype) != "float32":
        return None
    try:
        scale, zero = parameters(call)
    except NoInteger:
        return None
    rank = len(shape_of(call))
    scale, zero = (along(p, int(call.attrs.axis), rank) for p in (scale, zero))
    value = constant(call.args[0])
    if value is not None:
        centred = (value.astype(np.int64) - zero).astype(np.float32)
        return make_constant(centred * scale.astype(np.float32))
    wide = R.astype(call.args[0], "int32")
    if zero.any():
        wide = R.subtract(wide, int32_constant(zero if zero.size > 1 else zero.reshape(())))
    step = scale if scale.size > 1 else scale.reshape(())
    return R.multiply(R.astype(wide, "float32"), make_constant(step.astype(np.float32)))
