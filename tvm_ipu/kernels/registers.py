"""Accumulators of a microkernel: a small block of results that stays in vector registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.tirx import Expr

from tvm_ipu.kernels.emit import Emitter, broadcast, lanes_of, zero


class RegisterTile:
    """``rows`` x ``len(widths)`` vectors in a local buffer that is only indexed by constants.

    LLVM keeps such a buffer in registers; an index known only at run time would push it to the stack.

    Attributes:
        rows: Rows of results.
        widths: Columns in use of each vector of a row.
        lanes: Columns that a vector has.
        dtype: Type of the accumulators.
    """

    def __init__(self, e: Emitter, rows: int, widths: Sequence[int], lanes: int, dtype: str) -> None:
        self._e = e
        self.rows = rows
        self.widths = tuple(widths)
        self.lanes = lanes
        self.dtype = dtype
        self.buffer = e.alloc("acc", rows * len(widths) * lanes, dtype)
        for at in range(0, rows * len(widths) * lanes, lanes):
            e.store(self.buffer, at, zero(dtype, lanes), lanes)

    def at(self, row: int, vector: int) -> int:
        """Offset of a vector in the buffer."""
        return (row * len(self.widths) + vector) * self.lanes

    def add_product(self, row: int, vector: int, left: Expr, right: Expr) -> None:
        """Add the product of two vectors, with ``lanes`` lanes or fewer, to one accumulator."""
        e, at, lanes = self._e, self.at(row, vector), lanes_of(right)
        e.store(self.buffer, at, e.load(self.buffer, at, lanes) + left * right, lanes)

    def add_outer_product(
        self, left: Callable[[int], Expr], right: Callable[[int], Expr], rows: range | None = None
    ) -> None:
        """Add the product of a column of scalars and a row of vectors.

        Args:
            left: Scalar of a row.
            right: Vector of a column, with ``lanes`` lanes or fewer.
            rows: Rows that take part; all by default.
        """
        vectors = [self._e.bind("b", right(v)) for v in range(len(self.widths))]
        for m in range(self.rows) if rows is None else rows:
            scalar = left(m)
            for v, vector in enumerate(vectors):
                self.add_product(m, v, broadcast(scalar, lanes_of(vector)), vector)


def column_widths(columns: int, lanes: int) -> list[int]:
    """Columns in use of each vector that ``columns`` columns take."""
    return [min(lanes, columns - start) for start in range(0, columns, lanes)]
