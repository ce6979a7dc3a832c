"""Transpose a square block of vectors in registers."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import Emitter, index, lanes_of


def transpose(e: Emitter, rows: list[Expr]) -> list[Expr]:
    """Columns of a square matrix given as vectors of its rows; their number is a power of two.

    Each of the ``log2(n)`` rounds serves one bit of the indices: of two vectors whose numbers differ in that
    bit alone, the upper one's lanes with the bit clear change places with the lower one's lanes with it set.
    """
    size = len(rows)
    if any(lanes_of(row) != size for row in rows) or size & (size - 1):
        raise ValueError(f"a square block with a power of two rows is needed, found {size} rows")
    bit = size // 2
    while bit:
        low = [index(lane if not lane & bit else size + lane - bit) for lane in range(size)]
        high = [index(lane + bit if not lane & bit else size + lane) for lane in range(size)]
        swapped = list(rows)
        for number in range(size):
            if not number & bit:
                pair = [e.bind("row", rows[number]), e.bind("row", rows[number | bit])]
                swapped[number] = e.bind("row", tirx.Shuffle(pair, low))
                swapped[number | bit] = e.bind("row", tirx.Shuffle(pair, high))
        rows = swapped
        bit //= 2
    return rows
