"""Product of a row-major matrix and packed weights: dense layers and 1x1 convolutions.

A unit of work is some row blocks by some column blocks. Inside, a column block's weights are reused by all
row blocks of the unit; a register tile runs through the whole reduction before it is finished and stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model
from tvm_ipu.kernels.ahead import FEWEST_TILES, ahead, lines_ahead
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.digits import register_tile
from tvm_ipu.kernels.dot import Dot, load_group
from tvm_ipu.kernels.emit import Emitter, Index, flat_buffer, item_bytes
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.memory import span
from tvm_ipu.kernels.registers import STRETCH, column_widths
from tvm_ipu.kernels.templates.kernel import Kernel

COLD_BYTES_PER_CYCLE = 8.0
"""Reading of weights that are not fetched ahead: between two inferences, others have pushed them out of the
caches. What is fetched ahead costs the less, the more tiles share it."""


@dataclass(frozen=True)
class Problem:
    """``[rows, depth] x [depth, columns]``.

    Attributes:
        rows: Rows of the left matrix and of the result.
        depth: Length of the reduction.
        columns: Columns of the result.
        lanes: Columns of a panel of weights.
        left: Type of the left matrix.
        right: Type of the weights.
        dtype: Type of the accumulators.
        pitch: Elements from one row of the left matrix to the next; 0 where they follow each other.
    """

    rows: int
    depth: int
    columns: int
    lanes: int
    left: str
    right: str
    dtype: str
    pitch: int = 0

    @property
    def left_pitch(self) -> int:
        """Elements from one row of the left matrix to the next."""
        return self.pitch or self.depth

    def dot(self, target: Target) -> Dot:
        """The target's way to multiply."""
        return find_dot(self.left, self.right, target, self.dtype)


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        rows: Rows of a register tile.
        vectors: Vectors in a row of it.
        row_blocks: Row blocks of a unit.
        column_blocks: Column blocks of a unit.
        fetch: Whether weights are fetched ahead, where that is possible.
    """

    rows: int
    vectors: int
    row_blocks: int
    column_blocks: int
    fetch: bool = True

    def cut(self, problem: Problem) -> tuple[Blocks, Blocks]:
        """Row blocks and column blocks."""
        rows = Blocks(problem.rows, self.rows, self.row_blocks)
        return rows, Blocks(problem.columns, self.vectors * problem.lanes, self.column_blocks)


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    shapes = {
        (min(rows, problem.rows), min(vectors, math.ceil(problem.columns / problem.lanes)))
        for rows, vectors in core_model.tile_shapes(target, problem.dot(target))
    }
    costs = {shape: _compute(problem, Decision(*shape, 1, 1), target) for shape in shapes}
    ranked = sorted(shapes, key=lambda shape: (costs[shape], shape))[:8]
    is_long = problem.dot(target).steps(problem.depth) >= STRETCH
    decisions = [
        Decision(rows, vectors, row_blocks, column_blocks, fetch)
        for rows, vectors in ranked
        for row_blocks in core_model.per_unit(math.ceil(problem.rows / rows))
        for column_blocks in core_model.per_unit(math.ceil(problem.columns / (vectors * problem.lanes)))
        for fetch in ((True, False) if is_long and row_blocks >= FEWEST_TILES else (True,))
    ]
    return sorted(decisions, key=lambda d: _cycles(problem, d, target, costs[d.rows, d.vectors]))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    return _cycles(problem, decision, target, _compute(problem, decision, target))


def _cycles(problem: Problem, decision: Decision, target: Target, compute: float) -> float:
    """The same with what the register tiles take, however they make units."""
    rows, columns = decision.cut(problem)
    left = item_bytes(problem.left) * problem.depth
    right = problem.dot(target).right_bytes * problem.depth
    traffic = core_model.Traffic.of_matrices(rows, columns, left, right)
    total = core_model.overlapped(compute, traffic.cycles(target))
    cold = right * problem.columns / COLD_BYTES_PER_CYCLE
    is_fetched = decision.fetch and rows.per_unit >= FEWEST_TILES
    total += cold * 2 / rows.per_unit if is_fetched else cold
    return total * core_model.imbalance(
        rows.units * columns.units, target.cores, rows.filled * columns.filled
    )


def _compute(problem: Problem, decision: Decision, target: Target) -> float:
    rows, columns = decision.cut(problem)
    vectors = [(math.ceil(width / problem.lanes), n) for width, n in columns.pieces()]
    pitch = problem.left_pitch * item_bytes(problem.left)
    dot = problem.dot(target)
    total = core_model.compute_cycles(rows.pieces(), vectors, dot.steps(problem.depth), dot)
    return total * core_model.conflicts(rows.block, pitch, target)


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the left matrix, the weights and the epilogue's buffers."""
    p = problem
    rows, columns = decision.cut(p)
    dot = p.dot(target)
    panel = dot.steps(p.depth) * dot.panel
    left = flat_buffer("left", span((p.rows, p.depth), p.left_pitch), p.left)
    right = flat_buffer("right", math.ceil(p.columns / p.lanes) * panel, dot.stored or p.right)
    e = Emitter()

    def tile(row: Expr, height: int, column: Expr, width: int) -> None:
        registers = register_tile(e, height, column_widths(width, p.lanes), p.lanes, dot, p.depth)
        left_at = e.bind("left_at", row * p.left_pitch)
        right_at = e.bind("right_at", column * (panel // p.lanes))

        registers.add_dots(
            dot,
            p.depth,
            lambda m, k, count: load_group(e, left, left_at + (k + m * p.left_pitch), count, dot.group),
            lambda v, step: e.load(right, right_at + (step * dot.panel + v * panel), dot.panel),
            meanwhile=fetch(row, right_at, len(registers.widths)),
        )
        epilogue.emit(e, registers, row, column)

    def fetch(row: Expr, right_at: Expr, vectors: int) -> Callable[[Index], None] | None:
        """Fetches this tile's share of the next columns' weights."""
        row_tiles, steps = min(rows.per_unit, rows.count), dot.steps(p.depth)
        if not decision.fetch or row_tiles < FEWEST_TILES or steps < STRETCH:
            return None
        number = tirx.floormod(tirx.floordiv(row, rows.block), row_tiles)
        lines = lines_ahead(dot, decision.vectors, row_tiles)
        return ahead(e, right, dot, right_at, vectors, steps, number, lines).meanwhile(right_at)

    extent = rows.units * columns.units
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        row_unit = e.bind("row_unit", tirx.floordiv(unit, columns.units))
        column_unit = e.bind("column_unit", tirx.floormod(unit, columns.units))
        columns.emit(
            e,
            "column",
            column_unit,
            lambda column, width: rows.emit(
                e, "row", row_unit, lambda row, height: tile(row, height, column, width)
            ),
        )
    func = tirx.PrimFunc([left, right, *epilogue.buffers], e.finish())
    flops = 2 * p.rows * p.depth * p.columns + epilogue.flops
    return Kernel(func, extent, core_model.grain(cycles(p, decision, target), extent), flops)
