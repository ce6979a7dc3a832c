"""Products of matrices that are both computed at run time, such as attention's.

Where several row blocks use the same columns of the right matrix, a unit first packs those columns into
scratch memory, as weights are packed at compile time; a transposed right matrix is transposed on the way,
block by block in registers. Otherwise rows of the right matrix are read where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.digits import register_tile
from tvm_ipu.kernels.dot import Dot, load_group
from tvm_ipu.kernels.emit import Emitter, Index, flat_buffer, item_bytes
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.registers import column_widths
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.templates.pack import Packer, Panel

Load = Callable[[Index, int], Expr]
"""Vector ``v`` of the right matrix for multiplication ``step``."""


@dataclass(frozen=True)
class Problem:
    """``[..., rows, depth] x [..., depth, columns]``.

    Attributes:
        batch: Leading dimensions of the result.
        left_batch: Leading dimensions of the left matrix, as many; 1 where it is broadcast.
        right_batch: Leading dimensions of the right matrix, as many; 1 where it is broadcast.
        rows: Rows of the left matrix.
        depth: Length of the reduction.
        columns: Columns of the result.
        transposed: Whether the right matrix is stored ``[columns, depth]``.
        lanes: Columns of a vector.
        left: Type of the left matrix.
        right: Type of the right matrix.
        dtype: Type of the accumulators.
    """

    batch: tuple[int, ...]
    left_batch: tuple[int, ...]
    right_batch: tuple[int, ...]
    rows: int
    depth: int
    columns: int
    transposed: bool
    lanes: int
    left: str
    right: str
    dtype: str

    def dot(self, target: Target) -> Dot:
        """The target's way to multiply."""
        return find_dot(self.left, self.right, target, self.dtype)


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        rows: Rows of a register tile.
        vectors: Vectors in a row of it.
        row_blocks: Row blocks of a unit, which is one column block wide.
        packed: Whether a unit packs its columns first.
    """

    rows: int
    vectors: int
    row_blocks: int
    packed: bool

    def cut(self, problem: Problem) -> tuple[Blocks, Blocks]:
        """Row blocks and column blocks."""
        rows = Blocks(problem.rows, self.rows, self.row_blocks)
        return rows, Blocks(problem.columns, self.vectors * problem.lanes)


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    panels = math.ceil(problem.columns / problem.lanes)
    dot = problem.dot(target)
    shapes = {
        (min(rows, problem.rows), min(vectors, panels))
        for rows, vectors in core_model.tile_shapes(target, dot)
    }
    must_pack = not dot.plain or (problem.transposed and problem.lanes > 1)
    decisions = [
        Decision(rows, vectors, row_blocks, packed)
        for rows, vectors in sorted(shapes)
        for row_blocks in core_model.per_unit(math.ceil(problem.rows / rows))
        for packed in ((True,) if must_pack else (False, True))
    ]
    return sorted(decisions, key=lambda d: cycles(problem, d, target))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    p = problem
    rows, columns = decision.cut(p)
    vectors = [(math.ceil(width / p.lanes), n) for width, n in columns.pieces()]
    pitch = p.depth * item_bytes(p.left)
    dot = p.dot(target)
    steps = dot.steps(p.depth)
    total = core_model.compute_cycles(rows.pieces(), vectors, steps, dot) * core_model.conflicts(
        rows.block, pitch, target
    )
    panel_loads = steps * math.ceil(p.columns / p.lanes)
    if decision.packed:
        total += panel_loads * rows.units * (4.0 if p.transposed else 2.0)
    else:
        total += panel_loads * rows.count * 0.5
    units = math.prod(p.batch) * rows.units * columns.units
    return total * math.prod(p.batch) * core_model.imbalance(units, target.cores, rows.filled)


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the left matrix, the right matrix and the epilogue's buffers."""
    p = problem
    rows, columns = decision.cut(p)
    body = _Body(p, epilogue, p.dot(target))
    e = body.e
    extent = math.prod(p.batch) * rows.units * columns.units
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        batch = e.bind("batch", tirx.floordiv(unit, rows.units * columns.units))
        row_unit = e.bind("row_unit", tirx.floormod(tirx.floordiv(unit, columns.units), rows.units))
        column_unit = e.bind("column_unit", tirx.floormod(unit, columns.units))
        left = e.bind("left_base", matrix_number(batch, p.batch, p.left_batch) * (p.rows * p.depth))
        right = e.bind("right_base", matrix_number(batch, p.batch, p.right_batch) * (p.depth * p.columns))

        def block(column: Expr, width: int) -> None:
            load = body.packed(right, column, width) if decision.packed else body.direct(right, column, width)
            rows.emit(
                e,
                "row",
                row_unit,
                lambda row, height: body.tile(
                    batch * p.rows + row, left + row * p.depth, height, column, width, load
                ),
            )

        columns.emit(e, "column", column_unit, block)
    func = tirx.PrimFunc([body.left, body.right, *epilogue.buffers], e.finish())
    flops = 2 * math.prod(p.batch) * p.rows * p.depth * p.columns + epilogue.flops
    return Kernel(func, extent, core_model.grain(cycles(p, decision, target), extent), flops)


def matrix_number(number: Expr, batch: tuple[int, ...], own: tuple[int, ...]) -> Expr:
    """Number of an operand's matrix, of a batch ``own``, for matrix ``number`` of the result's batch."""
    if own == batch:
        return number
    found: Expr = tirx.IntImm("int32", 0)
    for axis, size in enumerate(own):
        if size > 1:
            inner = math.prod(batch[axis + 1 :])
            at = tirx.floormod(tirx.floordiv(number, inner), size)
            found = found + at * math.prod(own[axis + 1 :])
    return found


class _Body:
    """Statements inside a unit."""

    def __init__(self, problem: Problem, epilogue: Epilogue, dot: Dot) -> None:
        p = problem
        self._dot = dot
        self.e = Emitter()
        self._p = p
        self._epilogue = epilogue
        self.left = flat_buffer("left", math.prod(p.left_batch) * p.rows * p.depth, p.left)
        self.right = flat_buffer("right", math.prod(p.right_batch) * p.depth * p.columns, p.right)

    def tile(self, number: Expr, left: Expr, height: int, column: Expr, width: int, load: Load) -> None:
        """One register tile: through the reduction, then finished."""
        e, p, dot = self.e, self._p, self._dot
        registers = register_tile(e, height, column_widths(width, p.lanes), p.lanes, dot, p.depth)
        left_at = e.bind("left_at", left)
        registers.add_dots(
            dot,
            p.depth,
            lambda m, k, count: load_group(e, self.left, left_at + k + m * p.depth, count, dot.group),
            lambda v, step: load(step, v),
        )
        self._epilogue.emit(e, registers, e.bind("row_number", number), column)

    def direct(self, base: Expr, column: Expr, width: int) -> Load:
        """Read columns where they are; the last vector may be shorter."""
        e, p = self.e, self._p
        widths = column_widths(width, p.lanes)
        if p.transposed:
            at = e.bind("right_at", base + column * p.depth)
            return lambda k, v: e.load_as(p.dtype, self.right, at + k + v * p.depth)
        at = e.bind("right_at", base + column)
        return lambda k, v: e.load_as(p.dtype, self.right, at + k * p.columns + v * p.lanes, widths[v])

    def packed(self, base: Expr, column: Expr, width: int) -> Load:
        """Pack columns as ``[steps, vectors, lanes]`` first."""
        e, p, dot = self.e, self._p, self._dot
        widths = column_widths(width, p.lanes)
        pitch = len(widths) * p.lanes
        packer = Packer(e, self.right, dot)
        words = e.alloc("panel", dot.steps(p.depth) * pitch, packer.word, "global")
        for v, used in enumerate(widths):
            panel = Panel(e, words, pitch, v * p.lanes, p.lanes)
            first = column + v * p.lanes
            if p.transposed:
                at = e.bind("right_at", base + first * p.depth)
                packer.transposed(panel, at, used, p.depth, p.depth)
            else:
                packer.rows(panel, e.bind("right_at", base + first), used, p.depth, p.columns)
        return lambda step, v: packer.elements(e.load(words, step * pitch + v * p.lanes, p.lanes))
