"""Emit reductions: vectors that hold different results, or vectors along what is reduced."""

from __future__ import annotations

from collections.abc import Iterator

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import flat_buffer
from tvm_ipu.kernels.expressions import cost, i32, loads, strides
from tvm_ipu.kernels.fusion.lanes import pieces
from tvm_ipu.kernels.fusion.layout import make_analyzer
from tvm_ipu.kernels.fusion.reducers import Reducer
from tvm_ipu.kernels.fusion.tile import Env, Loop, TileLoops

ACCUMULATORS = 8
"""Sums that are kept at once: enough to hide the latency of an addition."""

ALONG = 4
"""Sums of one result that are kept at once."""

MOST_UNROLLED = 160.0
"""Instructions of a loop body beyond which it is not repeated for more accumulators."""


class _Sums:
    """Vectors of accumulators in registers.

    Args:
        tile: The operation.
        count: Number of vectors.
        lanes: Lanes of each.
    """

    def __init__(self, tile: TileLoops, count: int, lanes: int) -> None:
        self._tile = tile
        self.count = count
        self.lanes = lanes
        self.buffers = [
            flat_buffer("sums", count * lanes, str(var.ty), "local") for var in tile.op.accumulators
        ]
        for buffer in self.buffers:
            tile.e.emit(tirx.AllocBuffer(buffer))
        for number in range(count):
            with tile.vector(lanes) as lane:
                self.store(number, lane, list(tile.op.inits))

    def store(self, number: int, lane: Expr, values: list[Expr]) -> None:
        """Write a lane of a vector; new values may use old ones of other accumulators."""
        e = self._tile.e
        if len(values) > 1:
            values = [e.bind("new", value) for value in values]
        for buffer, value in zip(self.buffers, values, strict=True):
            e.emit(tirx.BufferStore(buffer, value, [i32(number * self.lanes) + lane]))

    def load(self, number: int, lane: Expr) -> list[Expr]:
        """A lane of a vector."""
        return [tirx.BufferLoad(buffer, [i32(number * self.lanes) + lane]) for buffer in self.buffers]

    def update(self, number: int, lane: Expr, env: Env) -> None:
        """Take in the element at a point."""
        op = self._tile.op
        so_far = dict(zip(op.accumulators, self.load(number, lane), strict=True))
        self.store(number, lane, [self._tile.value(value, env, so_far) for value in op.values])


def reduce_across(tile: TileLoops, lane: Loop | None) -> None:
    """Several vectors of results at once, along the lane axis and one more, through the whole reduction."""
    block = _block_loop(tile, lane)
    rows = _rows(tile, block)
    with tile.loops([loop for loop in tile.spatial if loop is not lane and loop is not block]) as env:
        for first, height, times in pieces(block.extent, rows) if block else [(0, 1, 1)]:
            with tile.loop("row", times) as number:
                row = number * i32(height) + i32(first)
                for start, width, many, count in _columns(tile, lane, height):
                    with tile.loop("v", count) as column:
                        begin = column * i32(width * many) + i32(start)
                        _accumulate(tile, env, (block, row, height), (lane, begin, many, width))


def _block_loop(tile: TileLoops, lane: Loop | None) -> Loop | None:
    """Another axis to keep several results of: one along which data that vectors hold are read again."""
    if lane is None:
        return None
    analyzer = make_analyzer([*tile.op.axes, *tile.op.reduce])
    offsets = [load.indices[0] for value in tile.op.values for load in loads(value)]
    moving = [at for at in offsets if strides(at, [lane.axis.var], analyzer)[0] != 0]
    for loop in reversed(tile.spatial):
        if loop is lane or loop.extent == 1:
            continue
        if any(strides(at, [loop.axis.var], analyzer)[0] == 0 for at in moving):
            return loop
    return None


def _work(tile: TileLoops) -> float:
    """Cost of an element; not 0 where nothing is added, as by windows that lie in the padding."""
    return sum(cost(value) for value in tile.op.values) or 1.0


def _rows(tile: TileLoops, block: Loop | None) -> int:
    """Results along the block axis that are kept at once; a power of two."""
    rows = 4 if block else 1
    while rows > 1 and (rows > (block.extent if block else 1) or rows * _work(tile) > MOST_UNROLLED):
        rows //= 2
    return rows


def _columns(tile: TileLoops, lane: Loop | None, height: int) -> Iterator[tuple[int, int, int, int]]:
    """(first element, lanes, vectors at once, how often) along the lane axis."""
    if lane is None:
        yield 0, 1, 1, 1
        return
    room = min(ACCUMULATORS, tile.target.vector_registers // 2) // (height * len(tile.op.accumulators))
    most = max(1, min(room, int(MOST_UNROLLED / (_work(tile) * height))))
    for start, width, count in pieces(lane.extent, tile.lanes):
        many = min(most, count)
        yield start, width, many, count // many
        if count % many:
            yield start + count // many * many * width, width, count % many, 1


def _accumulate(
    tile: TileLoops,
    env: Env,
    rows: tuple[Loop | None, Expr, int],
    columns: tuple[Loop | None, Expr, int, int],
) -> None:
    """Vectors of results.

    Args:
        tile: The operation.
        env: Point of the other axes.
        rows: Block axis, first element along it, and how many.
        columns: Lane axis, first element along it, how many vectors, and their lanes.
    """
    block, row, height = rows
    lane, column, many, width = columns
    sums = _Sums(tile, height * many, width)

    def point(env: Env, number: int, at: Expr) -> Env:
        own = dict(env)
        if block is not None:
            own[block.axis.var] = tile.coordinate(block, row + i32(number // many))
        if lane is not None:
            own[lane.axis.var] = tile.coordinate(lane, column + i32(number % many * width) + at)
        return own

    with tile.loops(tile.reduce, env) as inside:
        for number in range(sums.count):
            with tile.vector(width) as at:
                sums.update(number, at, point(inside, number, at))
    for number in range(sums.count):
        with tile.vector(width) as at:
            tile.store(point(env, number, at), sums.load(number, at))


def reduce_along(tile: TileLoops, lane: Loop) -> None:
    """Partial results in the lanes of vectors, combined at the end; for a known reducer."""
    reducer = tile.reducer
    if reducer is None:
        raise ValueError("vectors along a reduction need a reducer of known form")
    others = [loop for loop in tile.reduce if loop is not lane]
    with tile.loops(tile.spatial) as env:
        parts = [
            (start, count, _Sums(tile, min(ALONG if reducer.is_simple else 1, count), width))
            for start, width, count in pieces(lane.extent, tile.lanes)
        ]
        with tile.loops(others, env) as inside:
            for start, count, sums in parts:
                _take_in(tile, lane, inside, start, count, sums)
        all_sums = [sums for _, _, sums in parts]
        combine = _combine_vectors if reducer.is_simple else _combine_lanes
        tile.store(env, combine(tile, all_sums, reducer))


def _take_in(tile: TileLoops, lane: Loop, env: Env, start: int, count: int, sums: _Sums) -> None:
    """``count`` vectors from ``start`` on, each sum taking its turn."""
    size = sums.count * sums.lanes
    times, rest = divmod(count, sums.count)
    for first, repeats, many in ((start, times, sums.count), (start + times * size, 1, rest)):
        with tile.loop("v", repeats) as turn:
            for number in range(many):
                with tile.vector(sums.lanes) as at:
                    place = turn * i32(size) + i32(first + number * sums.lanes) + at
                    sums.update(number, at, tile.with_lane(env, lane, place))


def _combine_vectors(tile: TileLoops, parts: list[_Sums], reducer: Reducer) -> list[Expr]:
    """One number from vectors of partial results, halving them; a shorter part joins at its own width."""
    e = tile.e
    total: Expr | None = None
    width = 0

    def halved(value: Expr, width: int) -> Expr:
        low, high = ([i32(lane + at) for lane in range(width // 2)] for at in (0, width // 2))
        both = reducer.combine([tirx.Shuffle([value], low)], [tirx.Shuffle([value], high)])
        return e.bind("sum", both[0])

    for sums in parts:
        vectors = [
            e.bind("sum", e.load(sums.buffers[0], n * sums.lanes, sums.lanes)) for n in range(sums.count)
        ]
        while total is not None and width > sums.lanes:
            total, width = halved(total, width), width // 2
        for vector in vectors:
            total = vector if total is None else e.bind("sum", reducer.combine([total], [vector])[0])
        width = sums.lanes
    while width > 1:
        total, width = halved(total, width), width // 2
    return [total]


def _combine_lanes(tile: TileLoops, parts: list[_Sums], reducer: Reducer) -> list[Expr]:
    """One tuple from many, one after the other."""
    result = _Sums(tile, 1, 1)
    for sums in parts:
        with tile.loop("lane", sums.count * sums.lanes) as lane:
            values = reducer.combine(result.load(0, i32(0)), sums.load(0, lane))
            result.store(0, i32(0), values)
    return result.load(0, i32(0))
