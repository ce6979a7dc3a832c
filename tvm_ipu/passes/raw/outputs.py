"""Outputs of a fixed model in the types that its contract names."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ipu.base.contract import OutputContract
from tvm_ipu.base.errors import ModelError
from tvm_ipu.passes.rewrite import Rewriter, constant, op_name

R = relax.op

MOVES = ("relax.permute_dims", "relax.reshape", "relax.squeeze", "relax.expand_dims")
LIMITS = {"int16": (-(2**15), 2**15 - 1), "uint8": (0, 255)}
DTYPE = {"RAWDATA_S16_NHWC": "int16", "RAWDATA_U8_NHWC": "uint8"}


def raw_output(rewriter: Rewriter, real: relax.Expr, contract: OutputContract) -> relax.Expr:
    """The output as the board reads it.

    Args:
        rewriter: Where it is made.
        real: The model's own output.
        contract: Its format: float32, or integers that either are the quantised ones or whole numbers.

    Raises:
        ModelError: The quantised integers are wanted of an output that is not quantised.
    """
    found = str(real.ty.dtype)
    if contract.format == "RAWDATA_F32_NHWC":
        return real if found == "float32" else rewriter.emit(R.astype(real, "float32"))
    wanted = DTYPE[contract.format]
    low, high = LIMITS[wanted]
    if contract.dequantize or not found.startswith("float"):
        if found.startswith("float"):
            return rewriter.emit(R.astype(R.round(R.clip(real, low, high)), wanted))
        return real if found == wanted else rewriter.emit(R.astype(R.clip(real, low, high), wanted))
    integers, zero = _quantized(rewriter, real, contract.name)
    if str(integers.ty.dtype) == wanted and not (wanted == "int16" and zero):
        return integers
    wide = R.subtract(R.astype(integers, "int32"), relax.const(zero, "int32")) if wanted == "int16" else None
    if wide is None:
        raise ModelError(
            f"output '{contract.name}': RAWDATA_U8_NHWC with dequantizations=FALSE needs an output of 8 "
            f"bits, found {integers.ty.dtype}",
            "use RAWDATA_S16_NHWC, or dequantizations=TRUE",
        )
    return rewriter.emit(R.astype(R.clip(wide, low, high), wanted))


def _quantized(rewriter: Rewriter, real: relax.Expr, name: str) -> tuple[relax.Expr, int]:
    """The integers that an output is made of by moves only, and their zero point."""
    call = rewriter.value(real)
    if op_name(call) in MOVES:
        source, zero = _quantized(rewriter, call.args[0], name)
        return rewriter.emit(relax.Call(call.op, [source, *call.args[1:]], call.attrs)), zero
    if op_name(call) != "relax.dequantize":
        raise ModelError(
            f"output '{name}': dequantizations=FALSE gives the quantised integers, but the output is not "
            "quantised",
            "set dequantizations=TRUE for it, or calibrate the model so that its last operator is quantised",
        )
    zero_point = constant(call.args[2])
    if zero_point is None or np.unique(zero_point).size > 1:
        raise ModelError(f"output '{name}': its zero points differ between channels")
    return call.args[0], int(zero_point.flat[0])
