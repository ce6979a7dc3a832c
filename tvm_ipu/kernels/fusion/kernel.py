"""The kernel of a group: tiles, units of work and the operations on each tile."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tvm import sym, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.core_model import grain
from tvm_ipu.kernels.emit import Emitter
from tvm_ipu.kernels.expressions import bind_range, i32
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
from tvm_ipu.kernels.fusion.tiling import Tiles, make_tiles
from tvm_ipu.kernels.split import Group, inner_axes


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
    lanes = max(_lanes(op, target) for op in group.ops)
    tiles = make_tiles(group, local, lanes, common_lane, cycles)
    layout = make_layout(group, tiles.sizes, common_lane, local)
    e = Emitter()
    with e.loop("unit", 0, tiles.units, tirx.ForKind.PARALLEL) as unit:
        _emit_unit(e, group, layout, tiles, unit, target)
    body = e.finish()
    func = tirx.PrimFunc(list(layout.params.values()), body)
    flops = sum(op.iterations * max(1, round(op.cost)) for op in group.ops)
    return GroupKernel(func, tuple(layout.params), tiles.units, grain(cycles, tiles.units), flops)


def _emit_unit(
    e: Emitter, group: Group, layout: Layout, tiles: Tiles, unit: tirx.Expr, target: Target
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
        for condition, sizes in _variants(tiles, place):
            with ExitStack() as stack:
                if condition is not None:
                    stack.enter_context(e.when(condition))
                _emit_tile(e, group, layout, sizes, analyzer, target)


def _variants(tiles: Tiles, place: list[tirx.Expr]) -> Iterator[tuple[tirx.Expr | None, tuple[int, ...]]]:
    """(condition, extents) of full tiles and of those that are shorter along some axes."""
    choices: list[list[tuple[tirx.Expr | None, int]]] = []
    for at, extent, size in zip(place, tiles.extents, tiles.sizes, strict=True):
        full, rest = divmod(extent, size)
        if rest:
            choices.append([(at < i32(full), size), (at >= i32(full), rest)])
        else:
            choices.append([(None, size)])
    for choice in itertools.product(*choices):
        conditions = [condition for condition, _ in choice if condition is not None]
        yield (
            functools.reduce(tirx.And, conditions) if conditions else None,
            tuple(size for _, size in choice),
        )


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
