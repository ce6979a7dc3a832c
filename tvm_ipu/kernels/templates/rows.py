"""Reductions of rows that are whole numbers of vectors long."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import Emitter, broadcast, index, lanes_of, zero
from tvm_ipu.kernels.half import narrow

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


LOWEST = -87.0
"""Exponentials below are taken for zero: on the way to numbers so small, processors slow down."""


def _exp_or_zero(e: Emitter, x: Expr) -> Expr:
    """``exp`` of a vector; a NaN stays one."""
    x, lanes = e.bind("x", x), lanes_of(x)
    lowest = broadcast(tirx.const(LOWEST, "float32"), lanes)
    power = tirx.exp(tirx.Select(x < lowest, lowest, x))
    return tirx.Select(x < lowest, zero("float32", lanes), power)


def exponentials(
    e: Emitter,
    x: tirx.Buffer,
    rows: int,
    vectors: int,
    lanes: int,
    scale: tirx.Buffer,
    powers: tirx.Buffer,
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
    """
    pitch = vectors * lanes
    peaks = e.alloc("peaks", rows, "float32", "global")
    totals = e.alloc("totals", rows * lanes, "float32", "global")
    with e.loop("m", 0, rows) as m:
        best = e.alloc("best", lanes, "float32")
        e.store(best, 0, e.load(x, m * pitch, lanes), lanes)
        with e.loop("v", 1, vectors - 1) as v:
            e.store(best, 0, tirx.max(e.load(best, 0, lanes), e.load(x, m * pitch + v * lanes, lanes)), lanes)
        e.store(peaks, m, across(e, e.load(best, 0, lanes), tirx.max))
    with e.loop("m", 0, rows) as m:
        peak = e.bind("peak", broadcast(e.load(peaks, m), lanes))
        total = e.alloc("total", lanes, "float32")
        e.store(total, 0, zero("float32", lanes), lanes)
        with e.loop("v", 0, vectors) as v:
            power = e.bind("power", _exp_or_zero(e, e.load(x, m * pitch + v * lanes, lanes) - peak))
            e.store(x, m * pitch + v * lanes, power, lanes)
            if powers is not x:
                with e.loop("lane", 0, lanes, tirx.ForKind.VECTORIZED) as lane:
                    at = m * pitch + v * lanes + lane
                    e.store(powers, at, narrow(e.load(x, at), str(powers.ty.dtype.dtype)))
            e.store(total, 0, e.load(total, 0, lanes) + power, lanes)
        e.store(totals, m * lanes, e.load(total, 0, lanes), lanes)
    with e.loop("m", 0, rows) as m:
        total = across(e, e.load(totals, m * lanes, lanes), lambda a, b: a + b)
        e.store(scale, m, tirx.const(1.0, "float32") / total)
