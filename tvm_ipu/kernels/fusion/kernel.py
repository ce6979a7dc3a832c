"""The kernel of a group: tiles, units of work and the operations on each tile."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import sym, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter
from tvm_ipu.kernels.fusion.expressions import bind_range, i32
from tvm_ipu.kernels.fusion.lanes import branches_on, lane_cost, lanes_for
from tvm_ipu.kernels.fusion.layout import (
    Layout,
    Local,
    find_locals,
    global_strides,
    make_layout,
    merge_common,
)
from tvm_ipu.kernels.fusion.loops import emit_op
from tvm_ipu.kernels.fusion.ops import Axis, Op
from tvm_ipu.kernels.fusion.reducers import reducer_of
from tvm_ipu.kernels.fusion.storage import is_movement
from tvm_ipu.kernels.fusion.tile import TileLoops
from tvm_ipu.kernels.split import Group, inner_axes
from tvm_ipu.kernels.tiles import MIN_CYCLES_PER_THREAD, grain

MOST_UNITS = 4096
TILE_ELEMENTS = {True: 16384, False: 4096}
"""Elements of a tile, for one operation and for several, whose results in between should stay in level 1."""

WANTED_UNITS = 64


@dataclass(frozen=True)
class GroupKernel:
    """A kernel and the buffers of the fused function that its parameters are.

    Attributes:
        func: The kernel.
        buffers: For each parameter, the buffer.
        extent: Units of work.
        grain: Fewest units worth a thread of their own.
        flops: Arithmetic operations.
    """

    func: tirx.PrimFunc
    buffers: tuple[tirx.Buffer, ...]
    extent: int
    grain: int
    flops: int


def emit_group(group: Group, needed: set[tirx.Buffer], target: Target) -> GroupKernel:
    """The kernel of a group.

    Args:
        group: Operations and their common axes.
        needed: Buffers that are read outside of the group.
        target: Chip.
    """
    local = find_locals(group, needed)
    group = merge_common(group, local)
    common_lane, cycles = _choose_lane(group, local, target)
    extents = tuple(axes[0].extent for axes in group.common)
    lanes = max(_lanes(op, target) for op in group.ops) if common_lane else 1
    sizes = _tile_sizes(group, extents, lanes, cycles)
    layout = make_layout(group, sizes, common_lane, local)
    tiles = _Tiles(extents, sizes)
    e = Emitter()
    with e.loop("unit", 0, tiles.units, tirx.ForKind.PARALLEL) as unit:
        _emit_unit(e, group, layout, tiles, unit, target)
    body = e.finish()
    func = tirx.PrimFunc(list(layout.params.values()), body)
    flops = sum(op.iterations * max(1, round(op.cost)) for op in group.ops)
    return GroupKernel(func, tuple(layout.params), tiles.units, grain(cycles, tiles.units), flops)


@dataclass(frozen=True)
class _Tiles:
    """The common axes cut into tiles: single points of the outer ones, parts of one, the inner ones whole."""

    extents: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        return tuple(math.ceil(extent / size) for extent, size in zip(self.extents, self.sizes, strict=True))

    @property
    def total(self) -> int:
        """Tiles in all."""
        return math.prod(self.counts)

    @property
    def per_unit(self) -> int:
        """Tiles of a unit of work."""
        return math.ceil(self.total / MOST_UNITS)

    @property
    def units(self) -> int:
        """Units of work."""
        return math.ceil(self.total / self.per_unit)

    @property
    def ragged(self) -> int | None:
        """Axis whose last tile is shorter."""
        for axis, (extent, size) in enumerate(zip(self.extents, self.sizes, strict=True)):
            if extent % size:
                return axis
        return None


def _emit_unit(
    e: Emitter, group: Group, layout: Layout, tiles: _Tiles, unit: tirx.Expr, target: Target
) -> None:
    count: int | tirx.Expr = tiles.per_unit
    if tiles.total % tiles.per_unit:
        count = tirx.min(i32(tiles.per_unit), i32(tiles.total) - unit * i32(tiles.per_unit))
    with e.loop("tile", 0, count) as number:
        tile = unit if tiles.per_unit == 1 else e.bind("tile", unit * i32(tiles.per_unit) + number)
        analyzer = sym.Analyzer()
        place = []
        for axis, (start, size) in enumerate(zip(layout.starts, tiles.sizes, strict=True)):
            inner = math.prod(tiles.counts[axis + 1 :])
            at = tile if inner == 1 else tirx.floordiv(tile, i32(inner))
            if axis and tiles.counts[axis] > 1:
                at = tirx.floormod(at, i32(tiles.counts[axis]))
            if tiles.counts[axis] == 1:
                at = i32(0)
            place.append(at)
            e.emit(tirx.Bind(start, at * i32(size)))
            bind_range(analyzer, start, tiles.extents[axis])
        for buffer in layout.local_buffers.values():
            e.emit(tirx.AllocBuffer(buffer))
        ragged = tiles.ragged
        if ragged is None:
            _emit_tile(e, group, layout, tiles.sizes, analyzer, target)
            return
        full, rest = divmod(tiles.extents[ragged], tiles.sizes[ragged])
        if full:
            with e.when(place[ragged] < i32(full)):
                _emit_tile(e, group, layout, tiles.sizes, analyzer, target)
        short = (*tiles.sizes[:ragged], rest, *tiles.sizes[ragged + 1 :])
        with e.when(place[ragged] >= i32(full)):
            _emit_tile(e, group, layout, short, analyzer, target)


def _emit_tile(
    e: Emitter,
    group: Group,
    layout: Layout,
    extents: tuple[int, ...],
    analyzer: sym.Analyzer,
    target: Target,
) -> None:
    for op in group.ops:
        flat = layout.flatten(op, group.common_of(op))
        emit_op(TileLoops(e, flat, layout.starts, extents, analyzer, target))


def _choose_lane(group: Group, local: dict[tirx.Buffer, Local], target: Target) -> tuple[bool, float]:
    """Whether vectors run along the last common axis rather than each operation's own, and cycles in all."""
    own = sum(
        op.iterations * _op_cost(op, [*inner_axes(group, op), *op.reduce], local, target) for op in group.ops
    )
    if not group.common:
        return False, own / 2
    shared = sum(
        op.iterations * _op_cost(op, [group.common[-1][i]], local, target) for i, op in enumerate(group.ops)
    )
    return shared <= own, min(shared, own) / 2


def _op_cost(op: Op, candidates: list[Axis], local: dict[tirx.Buffer, Local], target: Target) -> float:
    """Instructions for each element with vectors along the best of the candidates."""
    lanes = _lanes(op, target)
    can_reduce = reducer_of(op.accumulators, op.values) is not None
    prices = [op.cost + 1]
    for axis in candidates:
        reduced = axis in op.reduce
        if reduced and not can_reduce:
            continue
        steps = global_strides(op, axis, local)
        prices.append(
            lane_cost(steps, op.cost, axis.extent, lanes, reduced, branches_on(op.values, axis.var))
        )
    return min(prices)


def _lanes(op: Op, target: Target) -> int:
    return target.lanes(16) if is_movement(op, ()) else lanes_for(op.values, op.targets, target)


def _tile_sizes(group: Group, extents: tuple[int, ...], lanes: int, cycles: float) -> tuple[int, ...]:
    """Extent of a tile along each common axis."""
    inner = max((math.prod(a.extent for a in inner_axes(group, op)) for op in group.ops), default=1)
    points = math.prod(extents)
    room = max(1, TILE_ELEMENTS[len(group.ops) == 1] // inner)
    units = min(WANTED_UNITS, math.ceil(cycles / MIN_CYCLES_PER_THREAD))
    room = max(lanes, min(room, math.ceil(points / units)))
    sizes = [1] * len(extents)
    for axis in reversed(range(len(extents))):
        if room <= 1:
            break
        step = lanes if axis == len(extents) - 1 else 1
        sizes[axis] = _part(extents[axis], room, step)
        if sizes[axis] < extents[axis]:
            break
        room //= extents[axis]
    return tuple(sizes)


def _part(extent: int, most: int, step: int) -> int:
    """Length of an axis's parts: at most ``most``, a multiple of ``step``, if possible equal parts."""
    if extent <= most:
        return extent
    top = max(step, most // step * step)
    for size in range(top, top // 2, -step):
        if extent % size == 0:
            return size
    return top
