"""Emit one operation on one tile: loops, and vectors along one axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.tirx import Expr, ForKind

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter, flat_buffer
from tvm_ipu.kernels.fusion.expressions import (
    bind_range,
    contains,
    cost,
    i32,
    is_branch,
    loads,
    replace_loads,
    strides,
    substitute,
    variables,
)
from tvm_ipu.kernels.fusion.lanes import branches_on, lane_cost, lanes_for, pieces
from tvm_ipu.kernels.fusion.layout import FlatOp, make_analyzer
from tvm_ipu.kernels.fusion.ops import Axis
from tvm_ipu.kernels.fusion.reducers import Reducer, reducer_of
from tvm_ipu.kernels.fusion.storage import narrowed

_BOUNDING = (tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max, tirx.Select, ir.Call, ir.TensorLoad)

Env = Mapping[tirx.Var, Expr]

ACCUMULATORS = 8
"""Sums that are kept at once: enough to hide the latency of an addition."""

MOST_UNROLLED = 160.0
"""Instructions of a loop body beyond which it is not repeated for more accumulators."""

WORTH_BINDING = 4.0


@dataclass(frozen=True)
class Loop:
    """An axis within a tile: ``axis = start + 0 .. extent``."""

    axis: Axis
    start: Expr | None
    extent: int


class OpEmitter:
    """Emits one operation.

    Args:
        e: Where the statements go.
        op: The operation.
        starts: First coordinate of the tile along the common axes.
        extents: Extent of the tile along them.
        analyzer: Knows the ranges of the starts.
        target: Chip.
    """

    def __init__(
        self,
        e: Emitter,
        op: FlatOp,
        starts: Sequence[tirx.Var],
        extents: Sequence[int],
        analyzer: sym.Analyzer,
        target: Target,
    ) -> None:
        self.e = e
        self.op = op
        self.analyzer = analyzer
        self.target = target
        self.lanes = lanes_for(op.values, op.targets, target)
        common = [
            Loop(axis, start, extent) for axis, start, extent in zip(op.common, starts, extents, strict=True)
        ]
        self.spatial = [*common, *(Loop(axis, None, axis.extent) for axis in op.inner)]
        self.reduce = [Loop(axis, None, axis.extent) for axis in op.reduce]
        self.reducer = reducer_of(op) if op.accumulators else None

    def emit(self) -> None:
        """All of the operation on the tile."""
        lane = self._choose_lane()
        if not self.op.accumulators:
            self._map(lane)
        elif lane is not None and lane in self.reduce:
            assert self.reducer is not None
            self._reduce_along(lane, self.reducer)
        else:
            self._reduce_across(lane)

    def _choose_lane(self) -> Loop | None:
        """The loop that vectors run along; None for scalars."""
        candidates = [loop for loop in self.spatial if loop.extent > 1]
        if self.reducer is not None:
            candidates += [loop for loop in self.reduce if loop.extent > 1]
        if not candidates or self.lanes == 1:
            return None
        analyzer = make_analyzer([*self.op.axes, *self.op.reduce])
        accesses = self.op.accesses()
        work = sum(cost(value) for value in self.op.values)
        best, best_cost = None, float("inf")
        for loop in candidates:
            steps = [strides(at, [loop.axis.var], analyzer)[0] for at in accesses]
            reduced = loop in self.reduce
            price = lane_cost(
                steps, work, loop.extent, self.lanes, reduced, branches_on(self.op.values, loop.axis.var)
            )
            if price <= best_cost:
                best, best_cost = loop, price
        return best

    # --- elementwise ---

    def _map(self, lane: Loop | None) -> None:
        with self._loops([loop for loop in self.spatial if loop is not lane]) as env:
            if lane is None:
                self._store(env, [self.value(value, env) for value in self.op.values])
                return
            values = [self._bind_invariant(value, lane.axis.var, env) for value in self.op.values]
            for start, width, count in pieces(lane.extent, self.lanes):
                with self._loop("v", count) as number, self._vector(width) as at:
                    full = self._with_lane(env, lane, number * i32(width) + i32(start) + at)
                    self._store(full, [self.value(value, full) for value in values])

    def _bind_invariant(self, value: Expr, lane: tirx.Var, env: Env) -> Expr:
        """``value`` with its expensive parts that do not change along a vector computed first."""

        def visit(node: Expr, mutator: tvm_ffi.StructuralMutator) -> Expr:
            if is_branch(node):
                return node
            if (
                isinstance(node, tirx.Div | ir.Call)
                and cost(node) >= WORTH_BINDING
                and lane not in variables(node)
            ):
                if contains(node, (ir.Var,), lambda var: var in self.op.accumulators):
                    return mutator.default_mutate(node)
                if str(node.ty) in ("float32", "float64"):
                    return self.e.bind("same", self.value(node, env))
            return mutator.default_mutate(node)

        return tvm_ffi.structural_mutate(value, [((ir.Call, tirx.Div), visit)])

    # --- reductions whose vectors hold different results ---

    def _reduce_across(self, lane: Loop | None) -> None:
        block = self._block_loop(lane)
        rest = [loop for loop in self.spatial if loop is not lane and loop is not block]
        rows = self._rows(block, lane)
        with self._loops(rest) as env:
            for first, height, times in pieces(block.extent, rows) if block else [(0, 1, 1)]:
                with self._loop("row", times) as number:
                    at = number * i32(height) + i32(first)
                    for start, width, many, count in self._columns(lane, height):
                        with self._loop("v", count) as column:
                            begin = column * i32(width * many) + i32(start)
                            self._accumulate(env, block, at, height, lane, begin, width, many)

    def _block_loop(self, lane: Loop | None) -> Loop | None:
        """Another axis to keep several results of: one along which data that vectors hold are read again."""
        if lane is None:
            return None
        analyzer = make_analyzer([*self.op.axes, *self.op.reduce])
        found = [load.indices[0] for value in self.op.values for load in loads(value)]
        along = [strides(at, [lane.axis.var], analyzer)[0] for at in found]
        for loop in reversed(self.spatial):
            if loop is lane or loop.extent == 1:
                continue
            steps = [strides(at, [loop.axis.var], analyzer)[0] for at in found]
            if any(step == 0 and own != 0 for step, own in zip(steps, along, strict=True)):
                return loop
        return None

    def _rows(self, block: Loop | None, lane: Loop | None) -> int:
        """Results along the block axis that are kept at once; a power of two."""
        if block is None or lane is None:
            return 1
        work = sum(cost(value) for value in self.op.values)
        rows = 4
        while rows > 1 and (rows > block.extent or rows * work > MOST_UNROLLED):
            rows //= 2
        return rows

    def _columns(self, lane: Loop | None, height: int) -> Iterator[tuple[int, int, int, int]]:
        """(first element, lanes, vectors at once, how often) along the lane axis."""
        if lane is None:
            yield 0, 1, 1, 1
            return
        work = sum(cost(value) for value in self.op.values) * height
        kept = height * len(self.op.accumulators)
        most = min(ACCUMULATORS, self.target.vector_registers // 2) // kept
        most = max(1, min(most, int(MOST_UNROLLED / work)))
        for start, width, count in pieces(lane.extent, self.lanes):
            many = min(most, count)
            yield start, width, many, count // many
            if count % many:
                yield start + count // many * many * width, width, count % many, 1

    def _accumulate(
        self,
        env: Env,
        block: Loop | None,
        row: Expr,
        height: int,
        lane: Loop | None,
        column: Expr,
        width: int,
        many: int,
    ) -> None:
        """``height`` times ``many`` vectors of results."""
        sums = self._alloc_sums(height * many * width)
        self._init_sums(sums, height * many, width)

        def at(env: Env, slot: int, lane_at: Expr) -> tuple[Env, Env]:
            own = dict(env)
            if block is not None:
                own[block.axis.var] = self._coordinate(block, row + i32(slot // many))
            if lane is not None:
                own[lane.axis.var] = self._coordinate(lane, column + i32(slot % many * width) + lane_at)
            place = i32(slot * width) + lane_at
            so_far = {v: tirx.BufferLoad(s, [place]) for v, s in zip(self.op.accumulators, sums, strict=True)}
            return own, so_far

        with self._loops(self.reduce, env) as inside:
            for slot in range(height * many):
                with self._vector(width) as lane_at:
                    own, so_far = at(inside, slot, lane_at)
                    values = [self.value(value, own, so_far) for value in self.op.values]
                    self._store_sums(sums, i32(slot * width) + lane_at, values)
        for slot in range(height * many):
            with self._vector(width) as lane_at:
                own, so_far = at(env, slot, lane_at)
                self._store(own, list(so_far.values()))

    # --- reductions along vectors ---

    def _reduce_along(self, lane: Loop, reducer: Reducer) -> None:
        others = [loop for loop in self.reduce if loop is not lane]
        cover = pieces(lane.extent, self.lanes)
        with self._loops(self.spatial) as env:
            groups = []
            for start, width, count in cover:
                many = min(4 if reducer.is_simple else 1, count)
                groups.append((start, width, many, count // many, self._alloc_sums(many * width)))
                if count % many:
                    groups.append(
                        (start + count // many * many * width, width, count % many, 1, groups[-1][4])
                    )
            for number, (_, width, many, _, sums) in enumerate(groups):
                if number == 0 or sums is not groups[number - 1][4]:
                    self._init_sums(sums, many, width)
            with self._loops(others, env) as inside:
                for start, width, many, times, sums in groups:
                    with self._loop("v", times) as number:
                        for slot in range(many):
                            with self._vector(width) as lane_at:
                                place = i32(slot * width) + lane_at
                                at = number * i32(many * width) + i32(start) + place
                                own = self._with_lane(inside, lane, at)
                                so_far = {
                                    v: tirx.BufferLoad(s, [place])
                                    for v, s in zip(self.op.accumulators, sums, strict=True)
                                }
                                values = [self.value(value, own, so_far) for value in self.op.values]
                                self._store_sums(sums, place, values)
            parts = [(sums, many * width) for _, width, many, _, sums in groups]
            unique = [part for i, part in enumerate(parts) if i == 0 or part[0] is not parts[i - 1][0]]
            result = (
                self._combine_vectors(unique, reducer)
                if reducer.is_simple
                else self._combine_lanes(unique, reducer)
            )
            self._store(env, result)

    def _combine_vectors(self, parts: list[tuple[list[tirx.Buffer], int]], reducer: Reducer) -> list[Expr]:
        """One number from vectors of partial results, halving them; a shorter part joins at its own width."""
        e = self.e
        total: Expr | None = None
        width = 0
        for (sums,), size in parts:
            lanes = min(size, self.lanes)
            value = [e.load(sums, at, lanes) for at in range(0, size, lanes)]
            joined = e.bind("sum", value[0])
            for other in value[1:]:
                joined = e.bind("sum", reducer.combine([joined], [other])[0])
            while total is not None and width > lanes:
                total, width = self._halved(total, width, reducer), width // 2
            total = joined if total is None else e.bind("sum", reducer.combine([total], [joined])[0])
            width = lanes
        assert total is not None
        while width > 1:
            total, width = self._halved(total, width, reducer), width // 2
        return [total]

    def _halved(self, value: Expr, width: int, reducer: Reducer) -> Expr:
        low = [tirx.IntImm("int32", lane) for lane in range(width // 2)]
        high = [tirx.IntImm("int32", lane + width // 2) for lane in range(width // 2)]
        return self.e.bind(
            "sum", reducer.combine([tirx.Shuffle([value], low)], [tirx.Shuffle([value], high)])[0]
        )

    def _combine_lanes(self, parts: list[tuple[list[tirx.Buffer], int]], reducer: Reducer) -> list[Expr]:
        """One tuple from many, one after the other."""
        e = self.e
        totals = self._alloc_sums(1)
        self._init_sums(totals, 1, 1)
        so_far = [e.load(total, 0) for total in totals]
        for sums, size in parts:
            with e.loop("lane", 0, size) as lane:
                values = reducer.combine(so_far, [e.load(s, lane) for s in sums])
                self._store_sums(totals, i32(0), values)
        return so_far

    # --- parts of all of them ---

    def _alloc_sums(self, size: int) -> list[tirx.Buffer]:
        sums = []
        for so_far in self.op.accumulators:
            buffer = flat_buffer("sums", size, str(so_far.ty), "local")
            self.e.emit(tirx.AllocBuffer(buffer))
            sums.append(buffer)
        return sums

    def _init_sums(self, sums: list[tirx.Buffer], many: int, width: int) -> None:
        for slot in range(many):
            with self._vector(width) as at:
                self._store_sums(sums, i32(slot * width) + at, list(self.op.inits))

    def _store_sums(self, sums: list[tirx.Buffer], at: Expr, values: list[Expr]) -> None:
        if len(values) > 1:
            values = [self.e.bind("new", value) for value in values]
        for buffer, value in zip(sums, values, strict=True):
            self.e.emit(tirx.BufferStore(buffer, value, [at]))

    def _store(self, env: Env, values: list[Expr]) -> None:
        for target, offset, value in zip(self.op.targets, self.op.offsets, values, strict=True):
            at = self.analyzer.simplify(substitute(offset, env))
            if target in self.op.kinds:
                value = narrowed(self.e.bind("wide", value), self.op.kinds[target])
            self.e.emit(tirx.BufferStore(target, value, [at]))

    def value(self, value: Expr, env: Env, so_far: Env | None = None) -> Expr:
        """``value`` at a point."""

        def load(node: ir.TensorLoad) -> Expr:
            return tirx.BufferLoad(node.source, [self.analyzer.simplify(node.indices[0])])

        result = replace_loads(substitute(value, env), load)
        if so_far:
            result = substitute(result, so_far)
        return self._bind_conditional(result)

    def _bind_conditional(self, value: Expr) -> Expr:
        """``value`` with what its selections must not change computed first.

        TVM simplifies either side of a ``Select`` as if its condition held or not there, though both sides are
        computed: an index kept within bounds by a branch or a remainder would lose that.
        """

        def part(node: Expr) -> Expr:
            is_bound = is_branch(node) or (
                isinstance(node, ir.TensorLoad) and contains(node.indices[0], _BOUNDING)
            )
            return self.e.bind("apart", node) if is_bound else node

        def select(node: tirx.Select) -> Expr:
            sides = [
                tvm_ffi.structural_map(side, ((ir.Call, ir.TensorLoad), part), order="pre")
                for side in (node.true_value, node.false_value)
            ]
            return tirx.Select(node.condition, *sides)

        return tvm_ffi.structural_map(value, (tirx.Select, select))

    def _coordinate(self, loop: Loop, at: Expr) -> Expr:
        return at if loop.start is None else loop.start + at

    def _with_lane(self, env: Env, lane: Loop, at: Expr) -> Env:
        return {**env, lane.axis.var: self._coordinate(lane, at)}

    @contextmanager
    def _loop(self, name: str, extent: int) -> Iterator[Expr]:
        with self.e.loop(name, 0, extent) as var:
            if isinstance(var, ir.Var):
                bind_range(self.analyzer, var, extent)
            yield var

    @contextmanager
    def _vector(self, lanes: int) -> Iterator[Expr]:
        with self.e.loop("lane", 0, lanes, ForKind.VECTORIZED) as var:
            if isinstance(var, ir.Var):
                bind_range(self.analyzer, var, lanes)
            yield var

    @contextmanager
    def _loops(self, loops: Sequence[Loop], env: Env | None = None) -> Iterator[Env]:
        """Nested loops, with the value of each axis."""
        values = dict(env or {})
        with ExitStack() as stack:
            for loop in loops:
                at = stack.enter_context(self._loop(loop.axis.var.name, loop.extent))
                values[loop.axis.var] = self._coordinate(loop, at)
            yield values
