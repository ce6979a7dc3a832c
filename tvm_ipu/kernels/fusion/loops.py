"""Emit one operation on one tile, with vectors along one axis."""

from __future__ import annotations

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import contains, cost, i32, is_branch, strides, variables
from tvm_ipu.kernels.fusion.interleaved import Interleaving, emit_interleaved, find_interleaving
from tvm_ipu.kernels.fusion.lanes import branches_on, lane_cost, pieces
from tvm_ipu.kernels.fusion.layout import make_analyzer
from tvm_ipu.kernels.fusion.sums import reduce_across, reduce_along
from tvm_ipu.kernels.fusion.tables import emit_table, find_table
from tvm_ipu.kernels.fusion.tile import Env, Loop, TileLoops
from tvm_ipu.kernels.fusion.transposed import Transposition, emit_block, find_transposition

WORTH_BINDING = 4.0
"""Instructions from which on what is the same in all lanes is computed before a loop."""


def emit_op(tile: TileLoops) -> None:
    """All of the operation on the tile."""
    lane = _choose_lane(tile)
    if not tile.op.accumulators:
        _map(tile, lane)
    elif lane is not None and lane in tile.reduce:
        reduce_along(tile, lane)
    else:
        reduce_across(tile, lane)


def _choose_lane(tile: TileLoops) -> Loop | None:
    """The loop that vectors run along; None for scalars."""
    candidates = [loop for loop in tile.spatial if loop.extent > 1]
    if tile.reducer is not None:
        candidates += [loop for loop in tile.reduce if loop.extent > 1]
    if not candidates or tile.lanes == 1:
        return None
    analyzer = make_analyzer([*tile.op.axes, *tile.op.reduce])
    accesses = tile.op.accesses()
    work = sum(cost(value) for value in tile.op.values)
    best, best_cost = None, float("inf")
    for loop in candidates:
        steps = [strides(at, [loop.axis.var], analyzer)[0] for at in accesses]
        reduced = loop in tile.reduce
        price = lane_cost(
            steps, work, loop.extent, tile.lanes, reduced, branches_on(tile.op.values, loop.axis.var)
        )
        if price <= best_cost:
            best, best_cost = loop, price
    return best


def _map(tile: TileLoops, lane: Loop | None) -> None:
    interleaving = find_interleaving(tile)
    if interleaving is not None:
        _map_interleaved(tile, interleaving)
        return
    found = None if lane is None else find_transposition(tile, lane)
    if lane is not None and found is not None:
        _map_transposed(tile, lane, found)
        return
    with tile.loops([loop for loop in tile.spatial if loop is not lane]) as env:
        if lane is None:
            tile.store(env, [tile.value(value, env) for value in tile.op.values])
        else:
            table = find_table(tile, lane)
            _map_row(tile, lane, env, emit_table(tile, table, lane, env) if table else 0)


def _map_row(tile: TileLoops, lane: Loop, env: Env, first: int) -> None:
    """All results along the lane axis from ``first`` on."""
    values = [_bind_invariant(tile, value, lane.axis.var, env) for value in tile.op.values]
    for start, width, count in pieces(lane.extent - first, tile.lanes):
        with tile.loop("v", count) as number, tile.vector(width) as at:
            point = tile.with_lane(env, lane, number * i32(width) + i32(first + start) + at)
            tile.store(point, [tile.value(value, point) for value in values])


def _map_transposed(tile: TileLoops, lane: Loop, found: Transposition) -> None:
    """Square blocks, and what remains along the two axes in rows."""
    across, size = found.across, found.size
    full, columns = across.extent // size * size, lane.extent // size * size
    with tile.loops([loop for loop in tile.spatial if loop is not lane and loop is not across]) as env:
        with tile.loop("row", full // size) as row, tile.loop("column", columns // size) as column:
            emit_block(tile, found, lane, env, row * i32(size), column * i32(size))
        for start, end, first in ((0, full, columns), (full, across.extent, 0)):
            if end > start and first < lane.extent:
                with tile.loop("row", end - start) as row:
                    point = {**env, across.axis.var: tile.coordinate(across, row + i32(start))}
                    _map_row(tile, lane, point, first)


def _map_interleaved(tile: TileLoops, found: Interleaving) -> None:
    """Full vectors of the sources together, and what remains of each by itself."""
    inner, lane = found.inner, found.lane
    full = lane.extent // tile.lanes
    with tile.loops([loop for loop in tile.spatial if loop is not lane and loop is not inner]) as env:
        with tile.loop("v", full) as number:
            emit_interleaved(tile, found, env, number * i32(tile.lanes))
        if lane.extent > full * tile.lanes:
            with tile.loops([inner], env) as point:
                _map_row(tile, lane, point, full * tile.lanes)


def _bind_invariant(tile: TileLoops, value: Expr, lane: tirx.Var, env: Env) -> Expr:
    """``value`` with its expensive parts that do not change along a vector computed first."""

    def visit(node: Expr, mutator: tvm_ffi.StructuralMutator) -> Expr:
        if is_branch(node):
            return node
        if (
            isinstance(node, tirx.Div | ir.Call)
            and cost(node) >= WORTH_BINDING
            and lane not in variables(node)
        ):
            if contains(node, (ir.Var,), lambda var: var in tile.op.accumulators):
                return mutator.default_mutate(node)
            if str(node.ty) in ("float32", "float64"):
                return tile.e.bind("same", tile.value(node, env))
        return mutator.default_mutate(node)

    return tvm_ffi.structural_mutate(value, [((ir.Call, tirx.Div), visit)])
