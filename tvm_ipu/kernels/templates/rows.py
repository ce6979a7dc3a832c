"""Reductions of rows that are whole numbers of vectors long."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import Emitter, broadcast, index, lanes_of, vector_type, zero
from tvm_ipu.kernels.half import narrow
from tvm_ipu.kernels.llvm import NARROW_BF16
from tvm_ipu.kernels.mathlib.exponential import fading_exp2
from tvm_ipu.kernels.mathlib.terms import FORMATS, Terms

Combine = Callable[[Expr, Expr], Expr]


def across(e: Emitter, vector: Expr, combine: Combine) -> Expr:
    """One number from all lanes, a power of two of them, of a vector: halves are combined."""
    lanes = lanes_of(vector)
    while lanes > 1:
        lanes //= 2
        value = [e.bind("whole", vector)]
        low, high = ([index(start + lane) for lane in range(lanes)] for start in (0, lanes))
        vector = e.bind("half", combine(tirx.Shuffle(value, low), tirx.Shuffle(value, high)))
    return vector


OCTAVES = tirx.const(1 / math.log(2), "float32")
"""The binary logarithm of e. What its product with a row's largest element is rounded by, cancels."""


def store_rounded(e: Emitter, buffer: tirx.Buffer, at: Expr, value: Expr, has_bf16: bool) -> None:
    """Write float32 numbers in the type of ``buffer``; ``has_bf16``: there is an instruction for bfloat16."""
    dtype, lanes = str(buffer.ty.dtype.dtype), lanes_of(value)
    if dtype == "float32":
        e.store(buffer, at, value, lanes)
    elif dtype == "bfloat16" and has_bf16 and lanes == NARROW_BF16.lanes:
        e.store(buffer, at, tirx.reinterpret(vector_type(dtype, lanes), NARROW_BF16.call(value)), lanes)
    else:
        wide = e.alloc("wide", lanes, "float32")
        e.store(wide, 0, value, lanes)
        with e.loop("lane", 0, lanes, tirx.ForKind.VECTORIZED) as lane:
            e.store(buffer, at + lane, narrow(e.load(wide, lane), dtype))


def exponentials(
    e: Emitter,
    x: tirx.Buffer,
    rows: int,
    vectors: int,
    lanes: int,
    scale: tirx.Buffer,
    powers: tirx.Buffer,
    has_bf16: bool = False,
) -> None:
    """``exp(x - max)`` of the elements x of each row, and one over their sum.

    Each of three passes goes over all rows: the rows' chains of dependent steps then overlap.

    Args:
        e: Where the statements go.
        x: ``[rows, vectors * lanes]``, float32; padding at the end of a row must be minus infinity.
        rows: Number of rows.
        vectors: Vectors of a row.
        lanes: Elements of a vector.
        scale: ``[rows]``, float32; takes the reciprocals.
        powers: Takes the exponentials; ``x`` itself, or as many elements of a 16-bit type.
        has_bf16: Whether the target has an instruction that rounds to bfloat16.
    """
    pitch = vectors * lanes
    peaks = e.alloc("peaks", rows, "float32", "global")
    totals = e.alloc("totals", rows * lanes, "float32", "global")
    with e.loop("m", 0, rows) as m:
        best = e.alloc("best", lanes, "float32")
        e.store(best, 0, e.load(x, m * pitch, lanes), lanes)
        with e.loop("v", 1, vectors - 1) as v:
            e.store(best, 0, tirx.max(e.load(best, 0, lanes), e.load(x, m * pitch + v * lanes, lanes)), lanes)
        e.store(peaks, m, across(e, e.load(best, 0, lanes), tirx.max) * OCTAVES)
    with e.loop("m", 0, rows) as m:
        peak = e.bind("peak", broadcast(e.load(peaks, m), lanes))
        total = e.alloc("total", lanes, "float32")
        e.store(total, 0, zero("float32", lanes), lanes)
        with e.loop("v", 0, vectors) as v:
            at = e.bind("at", m * pitch + v * lanes)
            terms = Terms(FORMATS["float32"], lanes)
            power = fading_exp2(terms, e.load(x, at, lanes) * broadcast(OCTAVES, lanes) - peak)
            power = e.bind("power", terms.result(power))
            store_rounded(e, powers, at, power, has_bf16)
            e.store(total, 0, e.load(total, 0, lanes) + power, lanes)
        e.store(totals, m * lanes, e.load(total, 0, lanes), lanes)
    with e.loop("m", 0, rows) as m:
        total = across(e, e.load(totals, m * lanes, lanes), lambda a, b: a + b)
        e.store(scale, m, tirx.const(1.0, "float32") / total)
