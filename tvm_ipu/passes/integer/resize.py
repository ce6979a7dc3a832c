"""Linear resize of quantised pictures in integers (docs/numerics.md, linear resize)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer import requantize as rq
from tvm_ipu.passes.integer.known import Known
from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import Array, NoInteger, Sum
from tvm_ipu.passes.rewrite import make_constant, shape_of

R = relax.op

WEIGHT_BITS = {"int32": 11, "int64": 15}
"""Fractional bits of the weights along each axis, by the type of the sums: 22 and 8 more fit int32."""


def linear_resize(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """The four neighbours of each pixel times whole weights, whose sum is a power of 2.

    Raises:
        NoInteger: It resizes in another way, or its operand is not quantised.
    """
    attrs = call.attrs
    mode = str(attrs.coordinate_transformation_mode)
    if str(attrs.method) != "linear" or str(attrs.layout) != "NCHW":
        raise NoInteger(f"resizing by method '{attrs.method}'")
    q = known.quantized(call.args[0])
    if q is None:
        raise NoInteger("its operand is not quantised")
    dtype = "int64" if q.is_short else "int32"
    bits = WEIGHT_BITS[dtype]
    total = R.astype(rq.centred_int(q), dtype)
    for axis in (2, 3):
        extent, outputs = shape_of(call.args[0])[axis], shape_of(call)[axis]
        first, second, weight = taps(extent, outputs, mode, bits)
        total = known.rewriter.emit(total)
        parts = [
            R.multiply(R.take(total, make_constant(at.astype(np.int32)), axis), _along(factor, axis, dtype))
            for at, factor in ((first, 2**bits - weight), (second, weight))
        ]
        total = R.add(*parts)
    scale = np.asarray(q.scale / 4.0**bits)
    sums = Sum(known.rewriter.emit(total), scale, q.reach * 4**bits, is_wide=q.is_short)
    return known.arithmetic.requantize(sums, result)


def taps(extent: int, outputs: int, mode: str, bits: int) -> tuple[Array, Array, Array]:
    """For each output the two elements that it lies between, and the second one's weight in ``2**-bits``.

    Raises:
        NoInteger: The mode is not known.
    """
    at = np.arange(outputs, dtype=np.float64)
    match mode:
        case "half_pixel":
            place = (at + 0.5) * extent / outputs - 0.5
        case "align_corners":
            place = at * (extent - 1) / max(outputs - 1, 1)
        case "asymmetric":
            place = at * extent / outputs
        case _:
            raise NoInteger(f"resizing with coordinates '{mode}'")
    lower = np.floor(place)
    weight = np.rint((place - lower) * 2**bits).astype(np.int64)
    first, second = (np.clip(lower + step, 0, extent - 1).astype(np.int64) for step in (0, 1))
    return first, second, weight


def _along(values: Array, axis: int, dtype: str) -> relax.Expr:
    shape: Sequence[int] = [values.size if i == axis else 1 for i in range(4)]
    return make_constant(values.astype(dtype).reshape(shape))
