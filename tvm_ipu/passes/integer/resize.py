"""Linear resize of quantised pictures in integers (docs/numerics.md, linear resize)."""

from __future__ import annotations

from functools import partial

import numpy as np
from tvm import relax

from tvm_ipu.kernels import fixed_functions as fixed
from tvm_ipu.passes.integer.known import Known, operand
from tvm_ipu.passes.integer.requantize import Result
from tvm_ipu.passes.integer.tensors import Array, NoInteger, Sum
from tvm_ipu.passes.lower_operators import call_te
from tvm_ipu.passes.rewrite import make_constant, shape_of

R = relax.op

INJECTIVE = 2
"""TVM's pattern ``kInjective``: elementwise operators that follow are fused into the kernel."""

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
    q = operand(known, call.args[0])
    dtype = "int64" if q.is_short else "int32"
    bits = WEIGHT_BITS[dtype]
    picture = known.rewriter.emit(R.permute_dims(q.expr, [0, 2, 3, 1]))
    axes = [
        taps(e, o, mode, bits) for e, o in list(zip(shape_of(call.args[0]), shape_of(call), strict=True))[2:]
    ]
    places = [make_constant(at.astype(np.int32)) for at, _ in axes]
    weights = [make_constant(weight.astype(dtype)) for _, weight in axes]
    compute = partial(fixed.linear_resize, dtype=dtype, zero=q.zero * 4**bits)
    args = [picture, *places, *weights]
    sums = known.rewriter.emit(call_te(known.rewriter, "fixed_resize", compute, args, INJECTIVE))
    total = Sum(sums, np.asarray(q.scale / 4.0**bits), q.reach * 4**bits, is_wide=q.is_short)
    resized = known.rewriter.emit(known.arithmetic.requantize(total, result))
    return R.permute_dims(resized, [0, 3, 1, 2])


def taps(extent: int, outputs: int, mode: str, bits: int) -> tuple[Array, Array]:
    """For each output the two elements that it lies between, and their weights in ``2**-bits``: [outputs, 2].

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
    far = np.rint((place - lower) * 2**bits).astype(np.int64)
    between = np.clip(np.stack([lower, lower + 1], 1), 0, extent - 1)
    return between, np.stack([2**bits - far, far], 1)
