"""Accumulators of a microkernel: a small block of results that stays in vector registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.dot import Dot, Operand
from tvm_ipu.kernels.emit import Emitter, Index, broadcast, lanes_of, zero

STRETCH = 8
"""Multiplications between two things that are done meanwhile."""


class RegisterTile:
    """``rows`` x ``len(widths)`` vectors in a local buffer that is only indexed by constants.

    LLVM keeps such a buffer in registers; an index known only at run time would push it to the stack.

    Attributes:
        rows: Rows of results.
        widths: Columns in use of each vector of a row.
        lanes: Columns that a vector has.
        dtype: Type of the accumulators.
        buffer: Them; ready to be read after ``settle``.
    """

    def __init__(
        self,
        e: Emitter,
        rows: int,
        widths: Sequence[int],
        lanes: int,
        dtype: str,
        *,
        scope: str = "local",
        shift: int = 0,
    ) -> None:
        self._e = e
        self._shift = shift
        self.rows = rows
        self.widths = tuple(widths)
        self.lanes = lanes
        self.dtype = dtype
        self.buffer = e.alloc("acc", rows * len(widths) * lanes, dtype, scope)
        for at in range(0, rows * len(widths) * lanes, lanes):
            e.store(self.buffer, at, zero(dtype, lanes), lanes)

    def settle(self) -> None:
        """Make the buffer hold the sums, shifted right by ``shift`` bits."""
        if self._shift:
            for at in range(0, self.rows * len(self.widths) * self.lanes, self.lanes):
                count = broadcast(tirx.const(self._shift, self.dtype), self.lanes)
                total = self._e.load(self.buffer, at, self.lanes)
                self._e.store(self.buffer, at, tirx.shift_right(total, count), self.lanes)

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

    def add_dots(
        self,
        dot: Dot,
        depth: int,
        left: Callable[[int, Index, int], Expr],
        right: Callable[[int, Index], Expr],
        rows: range | None = None,
        meanwhile: Callable[[Index], None] | None = None,
    ) -> None:
        """Add the products along a reduction.

        Args:
            dot: How to multiply.
            depth: Length of the reduction.
            left: (row, first element, how many are left of its group) to the group's elements as loaded.
            right: (vector, number of the multiplication) to its elements as loaded; only a plain dot product
                takes fewer lanes than a vector has.
            rows: Rows that take part; all by default.
            meanwhile: Emits what is to be done before each ``STRETCH`` multiplications, given their number.
        """
        whole, rest = divmod(depth, dot.unit)

        def multiply(k: Index, length: int = dot.unit) -> None:
            def group(m: int, half: int) -> Expr:
                first = half * dot.group
                return left(m, k * dot.unit + first, min(dot.group, length - first))

            self._add_dot(dot, group, lambda v: right(v, k), rows, -(-length // dot.group))

        stretches = whole // STRETCH if meanwhile is not None else 0
        if meanwhile is not None and stretches:
            with self._e.loop("stretch", 0, stretches) as stretch:
                meanwhile(stretch)
                with self._e.loop("k", 0, STRETCH) as k:
                    multiply(self._e.bind("step", stretch * STRETCH + k))
        if whole > stretches * STRETCH:
            with self._e.loop("k", stretches * STRETCH, whole - stretches * STRETCH) as k:
                multiply(k)
        if rest:
            multiply(whole, rest)

    def _add_dot(
        self,
        dot: Dot,
        left: Callable[[int, int], Expr],
        right: Callable[[int], Expr],
        rows: range | None,
        halves: int,
    ) -> None:
        """What one load of the right operand is for: ``halves`` multiplications for each row and vector."""
        e = self._e

        def ready(name: str, operand: Operand) -> Operand:
            return tuple(e.bind(name, part) for part in operand)

        vectors: list[list[tuple[int, Operand]]] = [[] for _ in range(dot.halves)]
        for v in range(len(self.widths) // dot.digits):
            loaded = right(v)
            operand = ready("b", dot.widen(e, loaded))
            parts = len(operand) // (dot.halves * dot.digits)
            pieces = [operand[at : at + parts] for at in range(0, len(operand), parts)]
            for number, piece in enumerate(pieces):
                vectors[number // dot.digits].append((lanes_of(loaded) // dot.group, piece))
        for half in range(halves):
            for m in range(self.rows) if rows is None else rows:
                scalar = dot.spread(e, left(m, half))
                if dot.group > 1:
                    scalar = ready("a", scalar)
                for v, (lanes, vector) in enumerate(vectors[half]):
                    at = self.at(m, v)
                    sums = e.load(self.buffer, at, lanes)
                    e.store(self.buffer, at, dot.multiply(e, sums, scalar, vector), lanes)


def column_widths(columns: int, lanes: int) -> list[int]:
    """Columns in use of each vector that ``columns`` columns take."""
    return [min(lanes, columns - start) for start in range(0, columns, lanes)]
