"""Pack matrices that are known only at run time into panels of whole vectors, as weights are."""

from __future__ import annotations

import math

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.emit import Emitter, zero
from tvm_ipu.kernels.registers import column_widths
from tvm_ipu.kernels.templates.transpose import transpose


def pack_rows(
    e: Emitter,
    panels: tirx.Buffer,
    source: tirx.Buffer,
    at: Expr,
    shape: tuple[int, int],
    pitch: int,
    lanes: int,
) -> None:
    """Pack ``[rows, columns]`` into ``[ceil(columns / lanes), rows, lanes]``, zero padded.

    Args:
        e: Where the statements go.
        panels: float32.
        source: Where the matrix is.
        at: Its first element.
        shape: Its rows and columns.
        pitch: Elements from one row to the next.
        lanes: Columns of a panel.
    """
    rows, columns = shape
    with e.loop("row", 0, rows) as row:
        for v, used in enumerate(column_widths(columns, lanes)):
            to = (v * rows + row) * lanes
            if used < lanes:
                e.store(panels, to, zero("float32", lanes), lanes)
            e.store(panels, to, e.load_as("float32", source, at + row * pitch + v * lanes, used), used)


def pack_transposed(
    e: Emitter,
    panels: tirx.Buffer,
    source: tirx.Buffer,
    at: Expr,
    shape: tuple[int, int],
    pitch: int,
    lanes: int,
) -> None:
    """Pack ``[rows, columns]`` into ``[ceil(rows / lanes), columns, lanes]``, zero padded.

    The arguments are those of ``pack_rows``.
    """
    rows, columns = shape

    def panel(row: Expr, used: int) -> None:
        first = e.bind("first", at + row * pitch)
        to = e.bind("to", row * columns)

        def block(column: Expr, steps: int) -> None:
            taken = [e.load_as("float32", source, first + j * pitch + column, steps) for j in range(used)]
            if steps == lanes:
                turned = transpose(e, taken + [zero("float32", lanes)] * (lanes - used))
                for i, vector in enumerate(turned):
                    e.store(panels, to + (column + i) * lanes, vector, lanes)
                return
            for i in range(steps):
                e.store(panels, to + (column + i) * lanes, zero("float32", lanes), lanes)
                for j in range(used):
                    value = e.load_as("float32", source, first + j * pitch + column + i)
                    e.store(panels, to + (column + i) * lanes + j, value)

        Blocks(columns, lanes, math.ceil(columns / lanes)).emit(e, "column", 0, block)

    Blocks(rows, lanes, math.ceil(rows / lanes)).emit(e, "row", 0, panel)
