"""Blocks of a product on tile registers, each one's epilogue between the next one's multiplications.

The sums of a finished block go to memory. The vector units take them from there, some rows after each step
of the next block, while the tile unit multiplies: on its own, the epilogue of a short reduction takes longer
than the products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.emit import Emitter, Index, index, item_bytes
from tvm_ipu.kernels.isa.amx import COLUMNS, Shape, TileRegisters
from tvm_ipu.kernels.registers import column_widths

Finish = Callable[[tirx.Buffer, Expr, Expr, Expr, Expr, Sequence[int]], None]
"""Emits the epilogue of one row: buffer of sums, where its row starts, number of the row in the block, the
block's place and first column, columns in use of each vector."""

_BEGIN, _END, _PLACE, _COLUMN = range(4)

MOST_FETCHING = 32
"""With more blocks to the same columns, reading the next columns' weights takes no time to speak of."""

CACHE_LINE = 64

_MIN_SUMS = 512
"""A smaller buffer would be placed on the stack, and its rows not in cache lines of their own."""


@dataclass(frozen=True)
class Reduction:
    """What is summed: ``rows`` x ``columns`` runs along memory, each of ``steps`` tiles.

    Attributes:
        rows: Kernel rows.
        columns: Kernel columns that do not follow each other in memory.
        steps: Tiles of a run.
    """

    rows: int
    columns: int
    steps: int

    @property
    def size(self) -> int:
        """Steps in all."""
        return self.rows * self.columns * self.steps


@dataclass(frozen=True)
class Left:
    """Rows that are multiplied.

    Attributes:
        buffer: Where they are.
        pitch: Bytes from one row of a tile to the next.
        step: Elements of one step.
        at: Offset of a tile's first element, given the tile's offset without kernel position, kernel row and
            kernel column.
        streams: Whether it is loaded past the level-1 cache, where the right operand stays.
    """

    buffer: tirx.Buffer
    pitch: int
    step: int
    at: Callable[[Expr, Expr, Expr], Expr]
    streams: bool = False


@dataclass(frozen=True)
class Right:
    """Columns that they are multiplied with: panels of 16 columns, the steps of a panel one after the other.

    Attributes:
        buffer: Where they are.
        step: Elements of one step of a panel.
        panel: Elements of a panel.
    """

    buffer: tirx.Buffer
    step: int
    panel: int


@dataclass(frozen=True)
class Rows:
    """Rows of one block.

    Attributes:
        tiles: Offset in the left operand of each tile, without kernel position.
        number: Number of the block in its unit.
        begin: First row of the block that is wanted.
        end: Row behind the last one that is wanted.
        place: What the epilogue needs to know about where the block is.
    """

    tiles: Sequence[Expr]
    number: Expr
    begin: Index
    end: Index
    place: Expr


class TileBlocks:
    """Statements for the blocks of a unit of work.

    Args:
        e: Where the statements go.
        shape: Shape of the blocks.
        reduction: What is summed.
        left: Left operand.
        right: Right operand.
        dtype: Type of the sums.
        finish: Epilogue of a row.
        row_blocks: Blocks of a unit that share the same columns, where those that come next are to be fetched
            meanwhile.
    """

    def __init__(
        self,
        e: Emitter,
        tiles: TileRegisters,
        shape: Shape,
        reduction: Reduction,
        left: Left,
        right: Right,
        dtype: str,
        finish: Finish,
        row_blocks: int = 0,
    ) -> None:
        self._e = e
        self._shape = shape
        self._reduction = reduction
        self._left = left
        self._right = right
        self._finish = finish
        self._row_blocks = row_blocks
        self._tiles = tiles
        self._sums = e.alloc("sums", max(shape.height * shape.width, _MIN_SUMS), dtype, "global")
        self._pending = e.alloc("pending", 4, "int32")
        self._set_pending(0, 0, index(0), index(0))

    def multiply(self, rows: Rows, right_at: Expr, column: Expr, width: int) -> None:
        """One block, and the epilogue of the block before it.

        Args:
            rows: Its rows.
            right_at: Where its first panel starts in the right operand.
            column: Its first column.
            width: Its columns; those of the block before are as many.
        """
        e, reduction, left, right = self._e, self._reduction, self._left, self._right
        count = math.ceil(width / COLUMNS)
        chunk = math.ceil(self._shape.height / reduction.size)
        pending = self._get_pending()
        self._tiles.clear(count)
        with e.loop("kh", 0, reduction.rows) as kh, e.loop("kw", 0, reduction.columns) as kw:
            lefts = [e.bind("left_at", left.at(tile, kh, kw)) for tile in rows.tiles]
            run = e.bind("run", (kh * reduction.columns + kw) * reduction.steps)
            panel = e.bind("panel_at", right_at + run * right.step)
            with e.loop("step", 0, reduction.steps) as step:
                self._tiles.multiply(
                    (left.buffer, [at + step * left.step for at in lefts], left.pitch),
                    (right.buffer, [panel + (step * right.step + j * right.panel) for j in range(count)]),
                    left.streams,
                )
                self._fetch(right_at + count * right.panel, count, rows.number * reduction.size + run + step)
                first = e.bind("first", pending[_BEGIN] + (run + step) * chunk)
                self._finish_rows(pending, first, chunk, width)
        self._tiles.store(self._sums, self._shape.width, count)
        self._set_pending(rows.begin, rows.end, rows.place, column)

    def _fetch(self, start: Expr, count: int, number: Expr) -> None:
        """Ask for a share of the next columns' weights; ``number`` counts the steps of these columns."""
        if not 0 < self._row_blocks <= MOST_FETCHING:
            return
        item = item_bytes(str(self._right.buffer.ty.dtype.dtype))
        line = CACHE_LINE // item
        steps = self._row_blocks * self._reduction.size
        lines = math.ceil(count * self._right.panel / line / steps)
        for i in range(lines):
            self._e.prefetch(self._right.buffer, start + (number * lines + i) * line)

    def drain(self, width: int) -> None:
        """The epilogue of the last block, which has ``width`` columns."""
        pending = self._get_pending()
        self._finish_rows(pending, pending[_BEGIN], self._shape.height, width)
        self._set_pending(0, 0, index(0), index(0))

    def _finish_rows(self, pending: Sequence[Expr], first: Expr, most: int, width: int) -> None:
        """The epilogue of rows of the pending block: ``most`` from ``first`` on, or fewer at its end."""
        e = self._e

        def finish(m: Expr) -> None:
            at = e.bind("sums_at", m * self._shape.width)
            widths = column_widths(width, COLUMNS)
            self._finish(self._sums, at, m, pending[_PLACE], pending[_COLUMN], widths)

        if most == 1:
            with e.when(first < pending[_END]):
                finish(first)
        else:
            count = tirx.max(tirx.min(index(most), pending[_END] - first), index(0))
            with e.loop("m", first, e.bind("count", count)) as m:
                finish(m)

    def _get_pending(self) -> list[Expr]:
        return [self._e.bind("pending", self._e.load(self._pending, i)) for i in range(4)]

    def _set_pending(self, begin: Index, end: Index, place: Expr, column: Expr) -> None:
        for i, value in enumerate((begin, end, place, column)):
            self._e.store(self._pending, i, index(value))


def matrix_rows(
    e: Emitter, rows: Blocks, unit: Expr, shape: Shape, base: Expr, pitch: int, body: Callable[[Rows], None]
) -> None:
    """Emit ``body`` for every row block of ``unit`` of a matrix that is read where it is.

    Where the rows are no whole number of blocks, the last block starts further up, and the rows that the
    block before it has done are not wanted.

    Args:
        e: Where the statements go.
        rows: Rows of the matrix in blocks of the shape's height.
        unit: Number of the unit.
        shape: Shape of the blocks.
        base: Where the matrix starts.
        pitch: Elements from one row to the next.
        body: Its rows' place is the number of the block's first row.
    """
    start = e.bind("start", unit * rows.per_unit)
    extent: Index = min(rows.per_unit, rows.count)
    if rows.units * rows.per_unit > rows.count:
        extent = tirx.min(index(rows.per_unit), rows.count - start)
    with e.loop("block", start, extent) as number:
        first: Expr = e.bind("row", number * shape.height)
        done: Index = 0
        if rows.tail:
            clamped = e.bind("row", tirx.min(first, index(rows.size - shape.height)))
            first, done = clamped, first - clamped
        offsets = [base + (first + i * shape.tile_rows) * pitch for i in range(shape.rows)]
        body(Rows(offsets, number - start, done, shape.height, first))


def right_operand(buffer: tirx.Buffer, groups: int, steps: int, group: int) -> Right:
    """Packed weights: ``groups`` groups of ``group`` elements along the reduction, in ``steps`` steps."""
    panel = groups * COLUMNS * group
    return Right(buffer, panel // steps, panel)
