"""Attention: scores, softmax and context of some rows of queries, one after the other in a core's cache.

A unit of work is one head's row blocks, or some of them. It packs the head's keys, transposed, and its values
in panels as weights are packed at compile time. A row block is as high as a register tile: its scores go
through the elementwise steps in registers into a small buffer, become exponentials there, and the context's
register tiles are divided by their sums at the end.
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
from tvm_ipu.kernels.dot import Dot, load_group, plain_dot
from tvm_ipu.kernels.emit import Emitter, broadcast, flat_buffer, index, item_bytes, zero
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.isa.amx import COLUMNS
from tvm_ipu.kernels.registers import RegisterTile, column_widths
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.templates.pack import Packer, Panel
from tvm_ipu.kernels.templates.rows import exponentials
from tvm_ipu.kernels.tile_product import MOST_COLUMN_TILES, TileProduct, cycles as tile_cycles, rows_for

EXP_CYCLES = 12.0
"""Cycles of the exponentials of one vector."""


@dataclass(frozen=True)
class Matrices:
    """Where the matrices of a batch lie in memory; elements of a row are neighbours.

    Attributes:
        batch: Elements from one matrix to the next along each dimension of the batch; 0 where it is shared.
        row: Elements from one row to the next.
        size: Elements of the whole tensor.
        dtype: Their type.
    """

    batch: tuple[int, ...]
    row: int
    size: int
    dtype: str


@dataclass(frozen=True)
class Problem:
    """``softmax(f(q @ k.T)) @ v`` for each head.

    Attributes:
        batch: Dimensions that number the heads.
        queries: Rows of ``q`` and of the result.
        keys: Rows of ``k`` and of ``v``.
        depth: Columns of ``q`` and of ``k``.
        width: Columns of ``v`` and of the result.
        lanes: Columns of a vector.
        query: Where ``q`` lies.
        key: Where ``k`` lies.
        value: Where ``v`` lies.
        result: Where the result lies.
        weights: Type to which weights are rounded before they meet the values.
    """

    batch: tuple[int, ...]
    queries: int
    keys: int
    depth: int
    width: int
    lanes: int
    query: Matrices
    key: Matrices
    value: Matrices
    result: Matrices
    weights: str

    def dots(self, target: Target) -> tuple[Dot, Dot]:
        """The target's way to multiply queries by keys, and weights by values."""
        pairs = (self.query.dtype, self.key.dtype), (self.weights, self.value.dtype)
        scores, context = (_find_dot(left, right, self.lanes, target) for left, right in pairs)
        return scores, context

    def tile_rows(self, target: Target) -> int:
        """Queries of a row block where products run on tile registers, else 0."""
        types = {self.query.dtype, self.key.dtype, self.weights, self.value.dtype}
        if len(types) > 1 or self.lanes != COLUMNS:
            return 0
        return rows_for(self.queries, self.query.dtype, self.key.dtype, (self.depth, self.keys), target)

    @property
    def key_panels(self) -> int:
        """Vectors in a row of scores."""
        return math.ceil(self.keys / self.lanes)

    @property
    def value_panels(self) -> int:
        """Vectors in a row of the result."""
        return math.ceil(self.width / self.lanes)


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        rows: Queries of a row block.
        score_vectors: Vectors in a row of a register tile of scores.
        value_vectors: Vectors in a row of a register tile of the result.
        row_blocks: Row blocks of a unit.
    """

    rows: int
    score_vectors: int
    value_vectors: int
    row_blocks: int


def _find_dot(left: str, right: str, lanes: int, target: Target) -> Dot:
    dot = find_dot(left, right, target)
    return dot if dot.lanes == lanes else plain_dot(left, right, target)


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    p = problem
    tile_rows = p.tile_rows(target)
    if tile_rows:
        scores, values = (min(MOST_COLUMN_TILES, panels) for panels in (p.key_panels, p.value_panels))
        row_blocks = core_model.per_unit(p.queries // tile_rows)
        on_tiles = [Decision(tile_rows, scores, values, count) for count in row_blocks]
        return sorted(on_tiles, key=lambda d: (cycles(p, d, target), d.row_blocks))
    shapes: dict[int, list[int]] = {}
    for rows, vectors in core_model.tile_shapes(target, p.dots(target)[0]):
        shapes.setdefault(min(rows, p.queries), []).append(vectors)
    decisions = {
        Decision(rows, min(scores, p.key_panels), min(values, p.value_panels), row_blocks)
        for rows, widths in shapes.items()
        for scores in sorted(widths)[-4:]
        for values in sorted(widths)[-4:]
        for row_blocks in core_model.per_unit(math.ceil(p.queries / rows))
    }
    return sorted(decisions, key=lambda d: (cycles(p, d, target), d.rows, d.score_vectors, d.row_blocks))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    p, d = problem, decision
    rows = Blocks(p.queries, d.rows, d.row_blocks)
    scores = _vectors(Blocks(p.keys, d.score_vectors * p.lanes), p.lanes)
    values = _vectors(Blocks(p.width, d.value_vectors * p.lanes), p.lanes)
    first, second = p.dots(target)
    if p.tile_rows(target):
        item = item_bytes(p.query.dtype)
        total = sum(n * tile_cycles(d.rows, p.depth, v * p.lanes, item) for v, n in scores)
        total += sum(n * tile_cycles(d.rows, p.keys, v * p.lanes, item) for v, n in values)
        total *= rows.count
    else:
        total = core_model.compute_cycles(rows.pieces(), scores, first.steps(p.depth), first)
        total += core_model.compute_cycles(rows.pieces(), values, second.steps(p.keys), second)
    total += p.queries * (EXP_CYCLES * p.key_panels + core_model.TILE_OVERHEAD)
    total += rows.units * (
        4.0 * first.steps(p.depth) * p.key_panels + 2.0 * second.steps(p.keys) * p.value_panels
    )
    heads = math.prod(p.batch)
    return total * heads * core_model.imbalance(heads * rows.units, target.cores)


def _vectors(columns: Blocks, lanes: int) -> list[tuple[int, int]]:
    return [(math.ceil(width / lanes), n) for width, n in columns.pieces()]


def emit(problem: Problem, decision: Decision, steps: Epilogue, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel.

    Its parameters are queries, keys, values, then the buffers of ``steps`` and of ``epilogue``.

    Args:
        problem: What to compute.
        decision: How to cut it.
        steps: What is done to the scores before softmax.
        epilogue: What is done to the result.
        target: Chip to compile for.
    """
    p = problem
    rows = Blocks(p.queries, decision.rows, decision.row_blocks)
    heads = math.prod(p.batch)
    extent = heads * rows.units
    body = _Body(p, decision, steps, epilogue, p.dots(target), "avx512bf16" in target.isa)
    e = body.e
    if p.tile_rows(target):
        columns = max(decision.score_vectors, decision.value_vectors)
        body.tiles = TileProduct(e, decision.rows, columns, p.query.dtype, p.key.dtype)
        body.tiles.configure()
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        head = e.bind("head", tirx.floordiv(unit, rows.units))
        row_unit = e.bind("row_unit", tirx.floormod(unit, rows.units))
        body.pack(head)
        rows.emit(e, "row", row_unit, lambda row, height: body.block(head, row, height))
    if body.tiles:
        body.tiles.release()
    params = [body.query, body.key, body.value, *steps.buffers, *epilogue.buffers]
    flops = 2 * heads * p.queries * p.keys * (p.depth + p.width) + steps.flops + epilogue.flops
    grain = core_model.grain(cycles(p, decision, target), extent)
    return Kernel(tirx.PrimFunc(params, e.finish()), extent, grain, flops)


@dataclass(frozen=True)
class _Rows:
    """Some rows of queries of a head.

    Attributes:
        height: How many.
        pitch: Elements from a row of scores to the next.
        query: First element of the queries.
        score: Number of the first row of scores among all heads'.
        result: Number of the result's first row.
        powers: float32 [rows, pitch]: scores, then their exponentials.
        weights: The same in the type that values are multiplied with.
        scale: float32 [rows]: what a row of the result is multiplied with.
    """

    height: int
    pitch: int
    query: Expr
    score: Expr
    result: Expr
    powers: tirx.Buffer
    weights: tirx.Buffer
    scale: tirx.Buffer


class _Body:
    """Statements inside a unit."""

    def __init__(
        self,
        problem: Problem,
        decision: Decision,
        steps: Epilogue,
        epilogue: Epilogue,
        dots: tuple[Dot, Dot],
        has_bf16: bool,
    ) -> None:
        p = problem
        self.e = Emitter()
        self._p, self._d = p, decision
        self._steps, self._epilogue = steps, epilogue
        self.query = flat_buffer("query", p.query.size, p.query.dtype)
        self.key = flat_buffer("key", p.key.size, p.key.dtype)
        self.value = flat_buffer("value", p.value.size, p.value.dtype)
        self._score_dot, self._value_dot = dots
        self._has_bf16 = has_bf16
        self.tiles: TileProduct | None = None
        self._pack_keys = Packer(self.e, self.key, self._score_dot)
        self._pack_values = Packer(self.e, self.value, self._value_dot)

    def pack(self, head: Expr) -> None:
        """Pack the keys and values of a head."""
        e, p, lanes = self.e, self._p, self._p.lanes
        key_steps, value_steps = self._score_dot.steps(p.depth), self._value_dot.steps(p.keys)
        keys = e.alloc("keys", p.key_panels * key_steps * lanes, self._pack_keys.word, "global")
        values = e.alloc("values", p.value_panels * value_steps * lanes, self._pack_values.word, "global")
        key_at = self._start("key_at", head, p.key)
        value_at = self._start("value_at", head, p.value)

        def pack_keys(key: Expr, used: int) -> None:
            panel = Panel(e, keys, lanes, e.bind("panel_at", key * key_steps), lanes)
            at = e.bind("at", key_at + key * p.key.row)
            self._pack_keys.transposed(panel, at, used, p.depth, p.key.row)

        def pack_values(column: Expr, used: int) -> None:
            panel = Panel(e, values, lanes, e.bind("panel_at", column * value_steps), lanes)
            self._pack_values.rows(panel, value_at + column, used, p.keys, p.value.row)

        Blocks(p.keys, lanes, p.key_panels).emit(e, "key", 0, pack_keys)
        Blocks(p.width, lanes, p.value_panels).emit(e, "column", 0, pack_values)
        self._keys, self._values = keys, values

    def _start(self, name: str, head: Expr, matrices: Matrices) -> Expr:
        """First element of a head's matrix."""
        at: Expr = tirx.IntImm("int32", 0)
        for axis, (size, stride) in enumerate(zip(self._p.batch, matrices.batch, strict=True)):
            if size > 1 and stride:
                inner = math.prod(self._p.batch[axis + 1 :])
                at = at + tirx.floormod(tirx.floordiv(head, inner), size) * stride
        return self.e.bind(name, at)

    def block(self, head: Expr, row: Expr, height: int) -> None:
        """The result's rows from ``row`` on, for ``height`` queries."""
        e, p, d = self.e, self._p, self._d
        rows = self._rows(head, row, height)
        scores = self._tile_scores if self.tiles else self._scores
        context = self._tile_context if self.tiles else self._context
        Blocks(p.keys, d.score_vectors * p.lanes, p.key_panels).emit(
            e, "column", 0, lambda column, width: scores(rows, column, width)
        )
        exponentials(e, rows.powers, height, p.key_panels, p.lanes, rows.scale, rows.weights, self._has_bf16)
        Blocks(p.width, d.value_vectors * p.lanes, p.value_panels).emit(
            e, "column", 0, lambda column, width: context(rows, column, width)
        )

    def _rows(self, head: Expr, row: Expr, height: int) -> _Rows:
        e, p, d = self.e, self._p, self._d
        pitch = p.key_panels * p.lanes
        powers = e.alloc("powers", d.rows * pitch, "float32", "global")
        weights = powers
        if p.weights != "float32":
            weights = e.alloc("weights", d.rows * pitch, p.weights, "global")
        scale = e.alloc("scale", d.rows, "float32", "global")
        query = e.bind("query_at", self._start("query_head", head, p.query) + row * p.query.row)
        score = e.bind("score_row", head * p.queries + row)
        first = self._start("result_head", head, p.result) + row * p.result.row
        result = e.bind("result_row", tirx.floordiv(first, p.width))
        return _Rows(height, pitch, query, score, result, powers, weights, scale)

    def _keep(self, rows: _Rows) -> Callable[[Expr, Expr, Expr], None]:
        """Stores scores."""
        return lambda m, at, value: self.e.store(rows.powers, m * rows.pitch + at, value)

    def _scores(self, rows: _Rows, column: Expr, width: int) -> None:
        """Scores of keys from ``column`` on, by register tiles."""
        e, p, dot = self.e, self._p, self._score_dot
        registers = RegisterTile(e, rows.height, column_widths(width, p.lanes), p.lanes, dot.acc)
        steps = dot.steps(p.depth)
        panel_at = e.bind("panel_at", column * steps)
        registers.add_dots(
            dot,
            p.depth,
            lambda m, k, count: load_group(
                e, self.query, rows.query + (k + m * p.query.row), count, dot.group
            ),
            lambda v, step: self._pack_keys.elements(
                e.load(self._keys, panel_at + (step + v * steps) * p.lanes, p.lanes)
            ),
        )
        if width % p.lanes:
            for m in range(rows.height):
                last = zero("float32", p.lanes) - broadcast(tirx.infinity("float32"), p.lanes)
                e.store(rows.powers, m * rows.pitch + rows.pitch - p.lanes, last, p.lanes)
        self._steps.emit(e, registers, rows.score, column, finish=self._keep(rows))

    def _tile_scores(self, rows: _Rows, column: Expr, width: int) -> None:
        """The same by a matrix unit."""
        e, p, product = self.e, self._p, self.tiles
        assert product is not None
        panel_at = e.bind("panel_at", column * self._score_dot.steps(p.depth))
        sums = product.emit((self.query, rows.query, p.query.row), (self._keys, panel_at), p.depth, width)
        widths = column_widths(width, p.lanes)
        with e.loop("m", 0, rows.height) as m:
            at = m * product.pitch
            self._steps.emit_row(e, sums, at, widths, p.lanes, rows.score + m, column, m, self._keep(rows))

    def _context(self, rows: _Rows, column: Expr, width: int) -> None:
        """Columns of the result from ``column`` on, by register tiles."""
        e, p, dot = self.e, self._p, self._value_dot
        registers = RegisterTile(e, rows.height, column_widths(width, p.lanes), p.lanes, "float32")
        steps = dot.steps(p.keys)
        panel_at = e.bind("panel_at", column * steps)
        registers.add_dots(
            dot,
            p.keys,
            lambda m, k, count: load_group(e, rows.weights, k + m * rows.pitch, count, dot.group),
            lambda v, step: self._pack_values.elements(
                e.load(self._values, panel_at + (step + v * steps) * p.lanes, p.lanes)
            ),
        )
        for m in range(rows.height):
            factor = broadcast(e.bind("factor", e.load(rows.scale, m)), p.lanes)
            for v in range(len(registers.widths)):
                at = registers.at(m, v)
                e.store(registers.buffer, at, e.load(registers.buffer, at, p.lanes) * factor, p.lanes)
        self._epilogue.emit(e, registers, rows.result, column, row_step=p.result.row // p.width)

    def _tile_context(self, rows: _Rows, column: Expr, width: int) -> None:
        """The same by a matrix unit."""
        e, p, product = self.e, self._p, self.tiles
        assert product is not None
        panel_at = e.bind("panel_at", column * self._value_dot.steps(p.keys))
        sums = product.emit((rows.weights, index(0), rows.pitch), (self._values, panel_at), p.keys, width)
        widths = column_widths(width, p.lanes)
        with e.loop("m", 0, rows.height) as m:
            factor = broadcast(e.bind("factor", e.load(rows.scale, m)), p.lanes)
            for v in range(len(widths)):
                at = e.bind("at", m * product.pitch + v * p.lanes)
                e.store(sums, at, e.load(sums, at, p.lanes) * factor, p.lanes)
            row = rows.result + m * (p.result.row // p.width)
            self._epilogue.emit_row(e, sums, m * product.pitch, widths, p.lanes, row, column)
