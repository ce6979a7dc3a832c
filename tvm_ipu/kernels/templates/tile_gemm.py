"""Matrix product with packed constant weights on tile registers.

A unit of work is some row blocks by some column blocks; the columns of a block stay in the level-1 cache for
all its rows.
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
from tvm_ipu.kernels.emit import Emitter, flat_buffer, index, item_bytes
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import amx
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.tile_blocks import Left, Reduction, TileBlocks, matrix_rows, right_operand

MIN_FILLED = 0.25
"""With emptier tiles, vectors are as fast."""


@dataclass(frozen=True)
class Problem:
    """``[rows, depth] x [depth, columns]``.

    Attributes:
        rows: Rows of the left matrix and of the result.
        depth: Length of the reduction, in whole groups.
        columns: Columns of the result.
        left: Type of the left matrix.
        right: Type of the weights.
        dtype: Type of the sums.
        pitch: Elements from one row of the left matrix to the next; 0 where they follow each other.
    """

    rows: int
    depth: int
    columns: int
    left: str
    right: str
    dtype: str
    pitch: int = 0

    @property
    def left_pitch(self) -> int:
        """Elements from one row of the left matrix to the next."""
        return self.pitch or self.depth

    @property
    def groups(self) -> int:
        """Groups along the reduction."""
        return self.depth // amx.group_of(self.left)


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        row_tiles: Tiles of a block below each other.
        column_tiles: Tiles of a block side by side.
        tile_rows: Rows of a tile.
        row_blocks: Row blocks of a unit.
        column_blocks: Column blocks of a unit.
    """

    row_tiles: int
    column_tiles: int
    tile_rows: int
    row_blocks: int
    column_blocks: int

    def shape(self, groups: int) -> amx.Shape:
        """Shape of a block, given the groups along the reduction."""
        step = groups // amx.steps_of(groups)
        return amx.Shape(self.row_tiles, self.column_tiles, self.tile_rows, step)

    def cut(self, problem: Problem) -> tuple[Blocks, Blocks]:
        """Row blocks and column blocks."""
        shape = self.shape(problem.groups)
        rows = Blocks(problem.rows, shape.height, self.row_blocks)
        return rows, Blocks(problem.columns, shape.width, self.column_blocks)


def takes(problem: Problem, target: Target) -> bool:
    """True where the tiles multiply the problem's types, are mostly full, and load its rows as they are."""
    p = problem
    if not amx.multiplies(p.left, p.right, target) or p.depth % amx.group_of(p.left):
        return False
    return amx.filled(p.groups) >= MIN_FILLED and p.columns >= amx.COLUMNS // 2


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    panels = math.ceil(problem.columns / amx.COLUMNS)
    decisions = [
        Decision(rows, columns, height, row_blocks, column_blocks)
        for rows, columns in amx.SHAPES
        if columns <= panels
        for height in tile_model.tile_heights(problem.rows, rows)
        for row_blocks in core_model.per_unit(math.ceil(problem.rows / (rows * height)))
        for column_blocks in core_model.per_unit(math.ceil(panels / columns))
    ]
    return sorted(decisions, key=lambda d: cycles(problem, d, target))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    p, (rows, columns) = problem, decision.cut(problem)
    left, right = item_bytes(p.left) * p.depth, item_bytes(p.right) * p.depth
    streams = _left_streams(p, decision, target)
    traffic = core_model.Traffic.of_matrices(rows, columns, left, right, streams)
    blocks = tile_model.Blocks(decision.shape(p.groups), amx.steps_of(p.groups), rows.count, columns.count)
    total = core_model.overlapped(blocks.cycles(rows.units * columns.units), traffic.cycles(target))
    total = tile_model.with_cold_weights(total, right * p.columns)
    return total * core_model.imbalance(rows.units * columns.units, target.cores)


def _left_streams(problem: Problem, decision: Decision, target: Target) -> bool:
    """Whether a block's columns fit the level-1 cache, but not with its rows."""
    shape, depth = decision.shape(problem.groups), problem.groups * amx.GROUP_BYTES
    room = target.l1_bytes * core_model.NEAR
    return shape.width * depth <= room < (shape.width + shape.height) * depth


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the left matrix, the weights and the epilogue's buffers."""
    p, group = problem, amx.group_of(problem.left)
    rows, columns = decision.cut(p)
    steps, shape = amx.steps_of(p.groups), decision.shape(p.groups)
    e = Emitter()
    left = flat_buffer("left", p.rows * p.left_pitch, amx.storage_of(p.left))
    packed = math.ceil(p.columns / amx.COLUMNS) * amx.COLUMNS * p.depth
    weights = flat_buffer("right", packed, amx.storage_of(p.right))
    right = right_operand(weights, p.groups, steps, group)
    pitch, streams = p.left_pitch * item_bytes(p.left), _left_streams(p, decision, target)
    operand = Left(left, pitch, shape.groups * group, lambda tile, _kh, _kw: tile, streams)

    def finish(
        sums: tirx.Buffer, at: Expr, m: Expr, place: Expr, column: Expr, widths: Sequence[int]
    ) -> None:
        epilogue.emit_row(e, sums, at, widths, amx.COLUMNS, e.bind("row", place + m), column)

    tile_registers = amx.TileRegisters(e, shape, p.left, p.right)
    tile_registers.configure()
    extent = rows.units * columns.units
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        row_unit = e.bind("row_unit", tirx.floordiv(unit, columns.units))
        column_unit = e.bind("column_unit", tirx.floormod(unit, columns.units))
        blocks = TileBlocks(
            e,
            tile_registers,
            shape,
            Reduction(1, 1, steps),
            operand,
            right,
            p.dtype,
            finish,
            min(rows.per_unit, rows.count),
        )

        def column_block(column: Expr, width: int) -> None:
            right_at = e.bind("right_at", column * p.depth)
            matrix_rows(
                e,
                rows,
                row_unit,
                shape,
                index(0),
                p.left_pitch,
                lambda block: blocks.multiply(block, right_at, column, width),
            )

        columns.emit(e, "column", column_unit, column_block, blocks.drain)
    tile_registers.release()
    func = tirx.PrimFunc([left, right.buffer, *epilogue.buffers], e.finish())
    flops = 2 * p.rows * p.depth * p.columns + epilogue.flops
    return Kernel(func, extent, core_model.grain(cycles(p, decision, target), extent), flops)
