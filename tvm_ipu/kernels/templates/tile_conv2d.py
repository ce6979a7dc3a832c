"""2-D convolution in NHWC on tile registers, as an implicit matrix product with packed weights.

A unit of work is some output rows of an image by some column blocks of a group (``tile_window`` tells how its
pixels become tiles).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model, tile_model
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.emit import Emitter, Index, flat_buffer, index, item_bytes
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import amx
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.templates.tile_gemm import MIN_FILLED
from tvm_ipu.kernels.tile_blocks import Left, Reduction, Rows, TileBlocks, right_operand
from tvm_ipu.kernels.tile_copy import RowCopy
from tvm_ipu.kernels.tile_window import TileWindow, layouts
from tvm_ipu.kernels.window import Window

COPY_BYTES_PER_CYCLE = 24.0
"""Bytes of the image that are copied to scratch memory in a cycle."""

SCRATCH_SHARE = 0.4
"""Part of the level-2 cache that a copy may fill."""


@dataclass(frozen=True)
class Problem:
    """Convolution of ``[batch, height, width, groups * depth]``.

    Attributes:
        window: Geometry.
        groups: Groups of channels.
        depth: Input channels of a group.
        channels: Output channels of a group.
        left: Type of the image.
        right: Type of the weights.
        dtype: Type of the sums.
        pitch: Elements from one pixel of the image to the next; 0 where they follow each other.
        pad_value: What stands around the image; 0 for floats.
    """

    window: Window
    groups: int
    depth: int
    channels: int
    left: str
    right: str
    dtype: str
    pitch: int = 0
    pad_value: int = 0

    @property
    def tap(self) -> int:
        """Groups along the reduction that the weights have for each tap."""
        return math.ceil(self.depth / amx.group_of(self.left))

    def layout(self, tile_rows: int, crossing: bool) -> TileWindow:
        """Geometry for tiles of ``tile_rows`` pixels."""
        group = amx.group_of(self.left)
        pitch = self.pitch or self.groups * self.depth
        return TileWindow(self.window, pitch, self.groups, self.depth, self.tap, group, tile_rows, crossing)


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        row_tiles: Tiles of a block below each other.
        column_tiles: Tiles of a block side by side.
        tile_rows: Pixels of a tile.
        crossing: Whether tiles go on from one row to the next.
        rows: Output rows of a unit.
        column_blocks: Column blocks of a unit.
    """

    row_tiles: int
    column_tiles: int
    tile_rows: int
    crossing: bool
    rows: int
    column_blocks: int

    def cut(self, problem: Problem) -> tuple[Blocks, Blocks]:
        """Output rows of an image, and column blocks of a group."""
        rows = Blocks(problem.window.output[0], 1, self.rows)
        return rows, Blocks(problem.channels, self.column_tiles * amx.COLUMNS, self.column_blocks)


def takes(problem: Problem, target: Target) -> bool:
    """True where the tiles multiply the problem's types and are mostly full."""
    if not amx.multiplies(problem.left, problem.right, target):
        return False
    layout = problem.layout(1, False)
    used = problem.depth / (layout.tap * layout.group) * amx.filled(layout.run)
    return (
        not (problem.pad_value and "float" in problem.left)
        and used >= MIN_FILLED
        and problem.channels >= amx.COLUMNS // 2
    )


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    p = problem
    panels = math.ceil(p.channels / amx.COLUMNS)
    room = SCRATCH_SHARE * target.l2_bytes / (p.tap * amx.GROUP_BYTES)
    decisions = [
        Decision(row_tiles, column_tiles, tile_rows, crossing, rows, column_blocks)
        for row_tiles, column_tiles in amx.SHAPES
        if column_tiles <= panels
        for tile_rows, crossing in layouts(p.window)
        for rows in core_model.per_unit(p.window.output[0])
        if rows == 1 or p.layout(tile_rows, crossing).scratch_pixels(rows, row_tiles) <= room
        for column_blocks in core_model.per_unit(math.ceil(panels / column_tiles))
    ]
    return sorted(decisions, key=lambda d: cycles(p, d, target))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    p, window = problem, problem.window
    layout = p.layout(decision.tile_rows, decision.crossing)
    rows, columns = decision.cut(p)
    shape, reduction = _shape(layout, decision), _reduction(layout)
    row_blocks = sum(n * math.ceil(layout.tiles(size) / shape.rows) for size, n in _unit_rows(rows))
    blocks = tile_model.Blocks(shape, reduction.size, window.batch * row_blocks, columns.count)
    units = window.batch * rows.units * columns.units
    item = item_bytes(p.left)
    seen = layout.scratch_pixels(rows.per_unit, shape.rows) * layout.tap * amx.GROUP_BYTES
    if layout.in_place:
        seen = layout.plane_rows(rows.per_unit) * layout.row_pixels * layout.depth * item
    panel = reduction.size * shape.groups * amx.GROUP_BYTES * amx.COLUMNS
    traffic = core_model.Traffic(
        left=window.batch * rows.units * seen,
        right=panel * math.ceil(p.channels / amx.COLUMNS),
        left_unit=seen,
        left_tile=seen / max(1, row_blocks / rows.units),
        right_block=panel * shape.columns,
        row_units=window.batch * rows.units,
        row_tiles=window.batch * row_blocks,
        column_blocks=columns.count,
    )
    total = core_model.overlapped(blocks.cycles(units), traffic.cycles(target))
    total = tile_model.with_cold_weights(total, traffic.right)
    if not layout.in_place:
        total += units * seen / COPY_BYTES_PER_CYCLE
    return p.groups * total * core_model.imbalance(p.groups * units, target.cores)


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the image, the weights and the epilogue's buffers."""
    p = problem
    rows, columns = decision.cut(p)
    body = _Body(p, decision, epilogue, target)
    e = body.e
    column_units = columns.units * p.groups
    extent = p.window.batch * rows.units * column_units
    body.registers.configure()
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        row_unit = e.bind("row_unit", tirx.floordiv(unit, column_units))
        rest = e.bind("rest", tirx.floormod(unit, column_units))
        group = e.bind("group", tirx.floordiv(rest, columns.units)) if p.groups > 1 else index(0)
        column_unit = e.bind("column_unit", tirx.floormod(rest, columns.units))
        image = e.bind("image", tirx.floordiv(row_unit, rows.units)) if p.window.batch > 1 else index(0)
        y = e.bind("y", (row_unit - image * rows.units) * rows.per_unit)
        body.unit(image, y, group, column_unit)
    body.registers.release()
    func = tirx.PrimFunc([body.image, body.right.buffer, *epilogue.buffers], e.finish())
    outputs = p.window.output_rows * p.window.output[1] * p.groups * p.channels
    flops = 2 * outputs * math.prod(p.window.kernel) * p.depth + epilogue.flops
    return Kernel(func, extent, core_model.grain(cycles(p, decision, target), extent), flops)


class _Body:
    """Statements inside a unit."""

    def __init__(self, problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> None:
        p, window = problem, problem.window
        self.e = Emitter()
        self._p = p
        self._epilogue = epilogue
        self._target = target
        self._layout = p.layout(decision.tile_rows, decision.crossing)
        self._shape = _shape(self._layout, decision)
        self._reduction = _reduction(self._layout)
        self._rows, self._columns = decision.cut(p)
        panels = p.groups * math.ceil(p.channels / amx.COLUMNS)
        groups = math.prod(window.kernel) * p.tap
        size = panels * amx.COLUMNS * groups * self._layout.group
        self._storage = amx.storage_of(p.left)
        pixels = window.batch * math.prod(window.size)
        self.image = flat_buffer("image", pixels * self._layout.pitch, self._storage)
        weights = flat_buffer("right", size, amx.storage_of(p.right))
        self.right = right_operand(weights, groups, self._reduction.size, self._layout.group)
        self.registers = amx.TileRegisters(self.e, self._shape, p.left, p.right)

    def unit(self, image: Expr, y: Expr, group: Expr, column_unit: Expr) -> None:
        """Output rows from ``y`` on of an image, for some columns of a group."""
        e, p, layout, window = self.e, self._p, self._layout, self._p.window
        count: Index = min(self._rows.per_unit, window.output[0])
        if self._rows.per_unit * self._rows.units > window.output[0]:
            count = e.bind("rows", tirx.min(index(count), window.output[0] - y))
        buffer, start = self.image, image * window.size[0] + y * window.stride[0]
        base = start * (layout.row_pixels * layout.pixel) + group * p.depth
        if not layout.in_place:
            lines = RowCopy(e, layout, self.image, p.pad_value, self._target)
            buffer = lines.emit((image, y, group), count, self._rows.per_unit, self._shape.rows)
            base = index(0)
        left = Left(
            buffer,
            layout.tile_step * layout.pixel * item_bytes(p.left),
            self._shape.groups * layout.group,
            lambda tile, kh, kw: tile + layout.tap_pixels(self._rows.per_unit, kh, kw) * layout.pixel,
        )
        first_row = e.bind("first_row", image * window.output[0] + y)

        def finish(
            sums: tirx.Buffer, at: Expr, m: Expr, place: Expr, column: Expr, widths: Sequence[int]
        ) -> None:
            out_column = e.bind("out_column", group * p.channels + column)
            self._finish(sums, at, m, place, first_row, out_column, widths)

        blocks = TileBlocks(
            e,
            self.registers,
            self._shape,
            self._reduction,
            left,
            self.right,
            p.dtype,
            finish,
            math.ceil(layout.tiles(self._rows.per_unit) / self._shape.rows),
        )
        pixels = self._pixels(count)
        base = e.bind("base", base)
        panels = math.ceil(p.channels / amx.COLUMNS) * self.right.panel

        def column_block(column: Expr, width: int) -> None:
            right_at = e.bind("right_at", group * panels + column * (self.right.panel // amx.COLUMNS))
            height = self._shape.height
            extent = -(-pixels // height) if isinstance(pixels, int) else _ceildiv(pixels, height)
            with e.loop("block", 0, extent) as number:
                blocks.multiply(self._block(e.bind("number", number), pixels, base), right_at, column, width)

        self._columns.emit(e, "column", column_unit, column_block, blocks.drain)

    def _pixels(self, rows: Index) -> Index:
        """Pixels of the tiles of ``rows`` output rows; those between rows and those done twice count."""
        layout = self._layout
        if layout.crossing:
            pixels = rows * layout.row_pixels - layout.gap
        else:
            pixels = rows * (layout.tiles_per_row * layout.tile_rows)
        return pixels if isinstance(pixels, int) else self.e.bind("pixels", pixels)

    def _block(self, number: Expr, pixels: Index, base: Expr) -> Rows:
        """Where the tiles of block ``number`` are, the unit's tiles having ``pixels`` pixels."""
        e, layout, shape, window = self.e, self._layout, self._shape, self._p.window
        first = e.bind("first_tile", number * shape.rows)
        end = tirx.min(index(shape.height), pixels - number * shape.height)
        if layout.crossing:
            offsets = [(first + i) * (shape.tile_rows * layout.pixel) for i in range(shape.rows)]
            return Rows(offsets, number, 0, end, first)
        offsets = []
        for i in range(shape.rows):
            tile = first
            if i > 0:
                tile = e.bind("tile", tirx.min(first + i, _truncdiv(index(pixels), shape.tile_rows) - 1))
            y, x = self._tile_place(tile)
            pixel = y * (window.stride[0] * layout.row_pixels) + x * window.stride[1]
            offsets.append(base + pixel * layout.pixel)
        return Rows(offsets, number, 0, end, first)

    def _tile_place(self, tile: Expr) -> tuple[Expr, Expr]:
        """Output row within the unit and first column of a tile that does not cross rows."""
        layout, columns = self._layout, self._p.window.output[1]
        if layout.tiles_per_row == 1:
            return tile, index(0)
        y = self.e.bind("tile_y", _truncdiv(tile, layout.tiles_per_row))
        x = (tile - y * layout.tiles_per_row) * layout.tile_rows
        if layout.tiles_per_row * layout.tile_rows > columns:
            x = tirx.min(x, index(columns - layout.tile_rows))
        return y, self.e.bind("tile_x", x)

    def _finish(
        self,
        sums: tirx.Buffer,
        at: Expr,
        m: Expr,
        place: Expr,
        first_row: Expr,
        column: Expr,
        widths: Sequence[int],
    ) -> None:
        """The epilogue of pixel ``m`` of the block whose first tile is ``place``."""
        e, layout, columns = self.e, self._layout, self._p.window.output[1]
        height = layout.tile_rows

        def store(pixel: Expr) -> None:
            self._epilogue.emit_row(e, sums, at, widths, amx.COLUMNS, e.bind("pixel", pixel), column)

        if layout.crossing:
            number = e.bind("number", place * height + m)
            y = e.bind("y_in_unit", _truncdiv(number, layout.row_pixels))
            x = e.bind("x", number - y * layout.row_pixels)
            with e.when(x < columns):
                store((first_row + y) * columns + x)
        elif layout.tiles_per_row * height == columns:
            store(first_row * columns + place * height + m)
        else:
            step = e.bind("tile_in_block", _truncdiv(m, height))
            y, start = self._tile_place(e.bind("tile", place + step))
            x = e.bind("x", start + (m - step * height))
            nominal = (place + step - y * layout.tiles_per_row) * height
            with e.when(x >= nominal):
                store((first_row + y) * columns + x)


def _shape(layout: TileWindow, decision: Decision) -> amx.Shape:
    groups = layout.run // amx.steps_of(layout.run)
    return amx.Shape(decision.row_tiles, decision.column_tiles, decision.tile_rows, groups)


def _reduction(layout: TileWindow) -> Reduction:
    kernel_h, kernel_w = layout.window.kernel
    return Reduction(kernel_h, 1 if layout.is_merged else kernel_w, amx.steps_of(layout.run))


def _unit_rows(rows: Blocks) -> list[tuple[int, int]]:
    """(output rows, how many such units)."""
    full, tail = divmod(rows.size, rows.per_unit)
    return [(size, n) for size, n in ((rows.per_unit, full), (tail, 1)) if size and n]


def _truncdiv(value: Expr, divisor: int) -> Expr:
    """Quotient of numbers that are not negative, which TVM cannot tell of what it loads from a buffer."""
    return tirx.truncdiv(value, index(divisor))


def _ceildiv(value: Expr, divisor: int) -> Expr:
    """The quotient, rounded up."""
    return _truncdiv(value + (divisor - 1), divisor)
