"""Outputs of a fixed model in the types that its contract names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tvm import relax

from tvm_ipu.base.contract import OutputContract
from tvm_ipu.base.errors import ModelError
from tvm_ipu.passes.rewrite import Rewriter, constant, op_name

R = relax.op

MOVES = ("relax.permute_dims", "relax.reshape", "relax.squeeze", "relax.expand_dims")
LIMITS = {"int16": (-(2**15), 2**15 - 1), "uint8": (0, 255)}
DTYPE = {"RAWDATA_S16_NHWC": "int16", "RAWDATA_U8_NHWC": "uint8"}


@dataclass(frozen=True)
class RawOutput:
    """An output as the board reads it.

    Attributes:
        expr: The integers or numbers.
        scale: Step of quantised integers; 0 for numbers.
        zero: Their zero point.
    """

    expr: relax.Expr
    scale: float = 0.0
    zero: int = 0


def raw_output(rewriter: Rewriter, real: relax.Expr, contract: OutputContract) -> RawOutput:
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
        return RawOutput(real if found == "float32" else rewriter.emit(R.astype(real, "float32")))
    wanted = DTYPE[contract.format]
    low, high = LIMITS[wanted]
    if contract.dequantize or not found.startswith("float"):
        if found.startswith("float"):
            one, zero = relax.const(1.0, "float32"), relax.const(0, wanted)
            return RawOutput(rewriter.emit(R.quantize(real, one, zero, axis=-1, out_dtype=wanted)))
        if found != wanted:
            real = rewriter.emit(R.astype(R.clip(real, low, high), wanted))
        return RawOutput(real)
    quantized = _quantized(rewriter, real, contract.name)
    if str(quantized.expr.ty.dtype) == wanted and not (wanted == "int16" and quantized.zero):
        return quantized
    if wanted == "uint8":
        raise ModelError(
            f"output '{contract.name}': RAWDATA_U8_NHWC with dequantizations=FALSE needs an output of 8 "
            f"bits, found {quantized.expr.ty.dtype}",
            "use RAWDATA_S16_NHWC, or dequantizations=TRUE",
        )
    wide = R.subtract(R.astype(quantized.expr, "int32"), relax.const(quantized.zero, "int32"))
    return RawOutput(rewriter.emit(R.astype(R.clip(wide, low, high), wanted)), quantized.scale)


def _quantized(rewriter: Rewriter, real: relax.Expr, name: str) -> RawOutput:
    """The integers that an output is made of by moves only."""
    call = rewriter.value(real)
    if op_name(call) in MOVES:
        source = _quantized(rewriter, call.args[0], name)
        moved = relax.Call(call.op, [source.expr, *call.args[1:]], call.attrs)
        return replace(source, expr=rewriter.emit(moved))
    if op_name(call) != "relax.dequantize":
        raise ModelError(
            f"output '{name}': dequantizations=FALSE gives the quantised integers, but the output is not "
            "quantised",
            "set dequantizations=TRUE for it, or calibrate the model so that its last operator is quantised",
        )
    scale, zero = constant(call.args[1]), constant(call.args[2])
    if scale is None or zero is None or scale.size > 1 or np.unique(zero).size > 1:
        raise ModelError(f"output '{name}': its scales or zero points differ between channels")
    return RawOutput(call.args[0], float(scale.flat[0]), int(zero.flat[0]))
