"""Products of a few rows on tile registers, for templates that do more than one product in a kernel."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter, item_bytes
from tvm_ipu.kernels.isa import amx

FEWEST_ROWS = 8
"""Emptier tiles are not worth it."""

MOST_COLUMN_TILES = 4


def rows_for(queries: int, left: str, right: str, depths: tuple[int, ...], target: Target) -> int:
    """Rows of a tile, of which ``queries`` are a multiple; 0 where tiles do not fit.

    Args:
        queries: Rows of all products together.
        left: Type of the left elements.
        right: Type of the right elements.
        depths: Lengths of the products' reductions, which must fill the tiles' width.
        target: Chip to compile for.
    """
    width = amx.GROUPS * amx.GROUP_BYTES // item_bytes(left)
    if not amx.multiplies(left, right, target) or any(depth % width for depth in depths):
        return 0
    rows = next(n for n in range(amx.ROWS, 0, -1) if queries % n == 0)
    return rows if rows >= FEWEST_ROWS else 0


class TileProduct:
    """Statements for products of ``rows`` rows.

    Args:
        e: Where the statements go.
        rows: Rows of a tile.
        columns: Most tiles side by side.
        left: Type of the left elements.
        right: Type of the right elements.
    """

    def __init__(self, e: Emitter, rows: int, columns: int, left: str, right: str) -> None:
        self._e = e
        self._item = item_bytes(left)
        self._shape = amx.Shape(1, columns, rows, amx.GROUPS)
        self._tiles = amx.TileRegisters(e, self._shape, left, right)
        self.pitch = self._shape.width

    def configure(self) -> None:
        """To be emitted before the first product of a thread."""
        self._tiles.configure()

    def release(self) -> None:
        """To be emitted behind the last product of a thread."""
        self._tiles.release()

    def emit(
        self, left: tuple[tirx.Buffer, Expr, int], right: tuple[tirx.Buffer, Expr], depth: int, width: int
    ) -> tirx.Buffer:
        """A product; its sums are in rows of ``pitch`` elements of the buffer returned.

        Args:
            left: Buffer, first element, elements from one row to the next.
            right: Buffer of 32-bit words and the first word of the first of its panels ``[words, 16]``, which
                follow each other.
            depth: Elements of the reduction.
            width: Columns.
        """
        e, columns = self._e, math.ceil(width / amx.COLUMNS)
        (rows, at, pitch), (words, panel_at) = left, right
        steps = depth * self._item // (amx.GROUPS * amx.GROUP_BYTES)
        size = amx.GROUPS * amx.COLUMNS
        sums = e.alloc("sums", self._shape.height * self.pitch, "float32", "global")
        self._tiles.clear(columns)
        with e.loop("step", 0, steps) as step:
            panels = [panel_at + (step + j * steps) * size for j in range(columns)]
            first = at + step * (depth // steps)
            self._tiles.multiply((rows, [first], pitch * self._item), (words, panels))
        self._tiles.store(sums, self.pitch, columns)
        return sums


def cycles(rows: int, depth: int, width: int, item: int) -> float:
    """Modelled cycles of a product without what is done to its sums."""
    columns = math.ceil(width / amx.COLUMNS)
    steps = depth * item / (amx.GROUPS * amx.GROUP_BYTES)
    shape = amx.Shape(1, columns, rows, amx.GROUPS)
    return steps * shape.step_cycles + columns * amx.STORE_CYCLES + amx.LATENCY
