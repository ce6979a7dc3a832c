"""Emit elementwise operations whose results interleave a few sources, such as the planes of a colour image.

y[i, c] = f(x[c, i]), c < 3        vectors along i, one for each c, are shuffled into as many along y's memory
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import flat_buffer, index
from tvm_ipu.kernels.expressions import dtype_of, i32, loads, strides, substitute
from tvm_ipu.kernels.fusion.lanes import branches_on
from tvm_ipu.kernels.fusion.layout import make_analyzer
from tvm_ipu.kernels.fusion.tile import Env, Loop, TileLoops

MOST = 4
"""Sources that are interleaved at once."""


@dataclass(frozen=True)
class Interleaving:
    """The two axes.

    Attributes:
        inner: Results along it lie next to each other.
        lane: What is read lies next to each other along it; results are ``inner.extent`` apart.
    """

    inner: Loop
    lane: Loop


def find_interleaving(tile: TileLoops) -> Interleaving | None:
    """The axes along which an operation interleaves; None where it does not."""
    op = tile.op
    if op.accumulators or len(op.targets) != 1 or tile.lanes < MOST:
        return None
    analyzer = make_analyzer([*op.axes])

    def steps(loop: Loop) -> list[int | None]:
        accesses = [op.offsets[0], *(load.indices[0] for value in op.values for load in loads(value))]
        return [strides(at, [loop.axis.var], analyzer)[0] for at in accesses]

    for inner in tile.spatial:
        if not 2 <= inner.extent <= MOST or steps(inner)[0] != 1:
            continue
        for lane in tile.spatial:
            written, *read = steps(lane)
            if lane.extent < tile.lanes or written != inner.extent or branches_on(op.values, lane.axis.var):
                continue
            if any(step == 1 for step in read) and all(step in (0, 1) for step in read):
                return Interleaving(inner, lane)
    return None


def emit_interleaved(tile: TileLoops, found: Interleaving, env: Env, first: Expr) -> None:
    """All results of a full vector's places along the lane axis from ``first`` on."""
    e, lanes, count = tile.e, tile.lanes, found.inner.extent
    (target,), (offset,), (value,) = tile.op.targets, tile.op.offsets, tile.op.values
    block = flat_buffer("block", count * lanes, dtype_of(target), "local")
    e.emit(tirx.AllocBuffer(block))
    for number in range(count):
        with tile.vector(lanes) as at:
            result = tile.stored(target, tile.value(value, _point(tile, found, env, first + at, number)))
            e.store(block, i32(number * lanes) + at, result)
    vectors = [e.bind("plane", e.load(block, number * lanes, lanes)) for number in range(count)]
    start = tile.analyzer.simplify(substitute(offset, _point(tile, found, env, first, 0)))
    for number in range(count):
        places = range(number * lanes, (number + 1) * lanes)
        order = [index(place % count * lanes + place // count) for place in places]
        e.store(target, start + i32(number * lanes), tirx.Shuffle(vectors, order), lanes)


def _point(tile: TileLoops, found: Interleaving, env: Env, at: Expr, number: int) -> Env:
    return {
        **env,
        found.lane.axis.var: tile.coordinate(found.lane, at),
        found.inner.axis.var: tile.coordinate(found.inner, i32(number)),
    }
