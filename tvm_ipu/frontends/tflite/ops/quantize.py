"""Operators between real numbers and integers."""

from __future__ import annotations

import math

import numpy as np

from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.ops.elementwise import cast
from tvm_ipu.frontends.tflite.ops.table import Table


def _quantize(call: Call) -> str:
    """Real numbers or integers of another scale; the result is quantised as every result is."""
    if not call.result().is_quantised:
        raise Refused(f"its result '{call.result().name}' has no scale")
    return call.real(0)


def _dequantize(call: Call) -> str:
    """Integers, or float16 constants, as float32."""
    return cast(call, call.real(0), "float32")


def _fake_quant(call: Call) -> str:
    """Rounds to the integers that a range and a number of bits allow, after moving the range onto zero."""
    low, high = float(call.option("Min")), float(call.option("Max"))
    bits, narrow = int(call.option("NumBits")), bool(call.option("NarrowRange"))
    if not (low <= 0 <= high and low < high and math.isfinite(high - low) and 2 <= bits <= 16):
        raise call.damaged(f"has the range {low} to {high} in {bits} bits")
    first, last = int(narrow), 2**bits - 1
    scale = (high - low) / (last - first)
    zero = min(max(round(first - low / scale), first), last)
    kind = "uint8" if bits <= 8 else "uint16"
    step, shift = call.add_constant(np.float32(scale), "float32"), call.add_constant(zero, kind)
    x = call.clip(call.real(0), (first - zero) * scale, (last - zero) * scale)
    return call.emit("DequantizeLinear", call.emit("QuantizeLinear", x, step, shift), step, shift)


TABLE: Table = {"DEQUANTIZE": _dequantize, "FAKE_QUANT": _fake_quant, "QUANTIZE": _quantize}
