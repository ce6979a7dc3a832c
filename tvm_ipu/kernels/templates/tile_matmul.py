"""Products of matrices that are both computed at run time, on tile registers.

A unit of work packs the columns that it needs into scratch memory, as weights are packed at compile time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model, tile_model
from tvm_ipu.kernels.emit import Emitter, flat_buffer, item_bytes
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import amx, find_dot
from tvm_ipu.kernels.registers import column_widths
from tvm_ipu.kernels.templates import tile_gemm
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.templates.matmul import matrix_number
from tvm_ipu.kernels.templates.pack import Packer, Panel
from tvm_ipu.kernels.templates.tile_gemm import Decision
from tvm_ipu.kernels.tile_blocks import Left, Reduction, Right, Rows, TileBlocks, matrix_rows

PACK_CYCLES = {False: 3.0, True: 5.0}
"""Cycles of packing 16 words of rows, and of columns that are transposed."""

FEWEST_ROWS = 8
"""With fewer, packing takes longer than the product."""


@dataclass(frozen=True)
class Problem:
    """``[..., rows, depth] x [..., depth, columns]``.

    Attributes:
        batch: Leading dimensions of the result.
        left_batch: Leading dimensions of the left matrix, as many; 1 where it is broadcast.
        right_batch: Leading dimensions of the right matrix, as many; 1 where it is broadcast.
        rows: Rows of the left matrix.
        depth: Length of the reduction, in whole groups.
        columns: Columns of the result.
        transposed: Whether the right matrix is stored ``[columns, depth]``.
        left: Type of the left matrix.
        right: Type of the right matrix.
        dtype: Type of the sums.
    """

    batch: tuple[int, ...]
    left_batch: tuple[int, ...]
    right_batch: tuple[int, ...]
    rows: int
    depth: int
    columns: int
    transposed: bool
    left: str
    right: str
    dtype: str

    @property
    def one(self) -> tile_gemm.Problem:
        """One product of the batch."""
        return tile_gemm.Problem(self.rows, self.depth, self.columns, self.left, self.right, self.dtype)


def takes(problem: Problem, target: Target) -> bool:
    """True where the tiles multiply the problem's types and are mostly full."""
    return tile_gemm.takes(problem.one, target) and problem.rows >= FEWEST_ROWS


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    return sorted(tile_gemm.space(problem.one, target), key=lambda d: cycles(problem, d, target))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    p, one = problem, problem.one
    rows, columns = decision.cut(one)
    shape, steps = decision.shape(one.groups), amx.steps_of(one.groups)
    units = rows.units * columns.units
    total = tile_model.Blocks(shape, steps, rows.count, columns.count).cycles(units)
    panels = math.ceil(p.columns / amx.COLUMNS)
    total += rows.units * panels * one.groups * PACK_CYCLES[p.transposed]
    batch = math.prod(p.batch)
    return batch * total * core_model.imbalance(batch * units, target.cores)


@dataclass(frozen=True)
class _Columns:
    """The columns that a unit of work needs, packed into scratch memory.

    Attributes:
        e: Where the statements go.
        problem: The product.
        packer: Packs the right matrices.
        words: Scratch memory, panel after panel.
        base: Where the unit's right matrix starts.
        first: First column of the unit.
    """

    e: Emitter
    problem: Problem
    packer: Packer
    words: tirx.Buffer
    base: Expr
    first: Expr

    def pack(self, column: Expr, width: int) -> Expr:
        """Pack the columns of a block; where its first panel starts."""
        e, p, groups = self.e, self.problem, self.problem.one.groups
        start = e.bind("panel_at", (column - self.first) * groups)
        for v, used in enumerate(column_widths(width, amx.COLUMNS)):
            at = e.bind("panel", start + v * amx.COLUMNS * groups)
            panel = Panel(e, self.words, amx.COLUMNS, at, amx.COLUMNS)
            number = column + v * amx.COLUMNS
            if p.transposed:
                place = e.bind("from", self.base + number * p.depth)
                self.packer.transposed(panel, place, used, p.depth, p.depth)
            else:
                self.packer.rows(panel, e.bind("from", self.base + number), used, p.depth, p.columns)
        return start


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the left matrix, the right matrix and the epilogue's buffers."""
    p, groups, group = problem, problem.one.groups, amx.group_of(problem.left)
    rows, columns = decision.cut(p.one)
    shape, steps = decision.shape(groups), amx.steps_of(groups)
    e = Emitter()
    left = flat_buffer("left", math.prod(p.left_batch) * p.rows * p.depth, amx.storage_of(p.left))
    right = flat_buffer("right", math.prod(p.right_batch) * p.depth * p.columns, p.right)
    packer = Packer(e, right, find_dot(p.left, p.right, target))
    registers = amx.TileRegisters(e, shape, p.left, p.right)
    registers.configure()
    extent = math.prod(p.batch) * rows.units * columns.units
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        batch = e.bind("batch", tirx.floordiv(unit, rows.units * columns.units))
        row_unit = e.bind("row_unit", tirx.floormod(tirx.floordiv(unit, columns.units), rows.units))
        column_unit = e.bind("column_unit", tirx.floormod(unit, columns.units))
        left_at = matrix_number(batch, p.batch, p.left_batch) * (p.rows * p.depth)
        right_at = matrix_number(batch, p.batch, p.right_batch) * (p.depth * p.columns)
        left_base, right_base = e.bind("left_base", left_at), e.bind("right_base", right_at)
        first = e.bind("first_column", column_unit * (columns.per_unit * columns.block))
        room = min(columns.per_unit, columns.count) * columns.block
        words = e.alloc("words", room * groups, packer.word, "global")
        packed = _Columns(e, p, packer, words, right_base, first)

        def finish(
            sums: tirx.Buffer, at: Expr, m: Expr, place: Expr, column: Expr, widths: Sequence[int]
        ) -> None:
            row = e.bind("row", batch * p.rows + place + m)
            epilogue.emit_row(e, sums, at, widths, amx.COLUMNS, row, column)

        blocks = TileBlocks(
            e,
            registers,
            shape,
            Reduction(1, 1, steps),
            Left(left, p.depth * item_bytes(p.left), shape.groups * group, lambda tile, _kh, _kw: tile),
            Right(words, shape.groups * amx.COLUMNS, groups * amx.COLUMNS),
            p.dtype,
            finish,
        )

        def column_block(column: Expr, width: int) -> None:
            start = packed.pack(column, width)

            def multiply(block: Rows) -> None:
                blocks.multiply(block, start, column, width)

            matrix_rows(e, rows, row_unit, shape, left_base, p.depth, multiply)

        columns.emit(e, "column", column_unit, column_block, blocks.drain)
    registers.release()
    func = tirx.PrimFunc([left, right, *epilogue.buffers], e.finish())
    flops = 2 * math.prod(p.batch) * p.rows * p.depth * p.columns + epilogue.flops
    return Kernel(func, extent, core_model.grain(cycles(p, decision, target), extent), flops)
