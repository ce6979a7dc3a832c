"""One operation on one tile: loops, points, loads and stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.tirx import Expr, ForKind

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter
from tvm_ipu.kernels.expressions import bind_range, contains, is_branch, replace_loads, substitute
from tvm_ipu.kernels.fusion.lanes import lanes_for
from tvm_ipu.kernels.fusion.layout import FlatOp
from tvm_ipu.kernels.fusion.ops import Axis
from tvm_ipu.kernels.fusion.reducers import reducer_of
from tvm_ipu.kernels.fusion.storage import narrowed

_BOUNDING = (tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max, tirx.Select, ir.Call, ir.TensorLoad)

Env = Mapping[tirx.Var, Expr]
"""A point: the value of each axis."""


@dataclass(frozen=True)
class Loop:
    """An axis within a tile: ``axis = start + 0 .. extent``."""

    axis: Axis
    start: Expr | None
    extent: int


class TileLoops:
    """An operation on one tile: its loops, and its value at a point of them.

    Args:
        e: Where the statements go.
        op: The operation.
        starts: First coordinate of the tile along the common axes.
        extents: Extent of the tile along them.
        analyzer: Knows the ranges of the starts.
        target: Chip.

    Attributes:
        spatial: Loops of the spatial axes.
        reduce: Loops of the reduction.
        lanes: Lanes of a full vector.
        reducer: What the reduction does, if there is one of a known form.
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
        self.reducer = reducer_of(op.accumulators, op.values)

    def store(self, env: Env, values: Sequence[Expr]) -> None:
        """Write the results at a point."""
        for target, offset, value in zip(self.op.targets, self.op.offsets, values, strict=True):
            at = self.analyzer.simplify(substitute(offset, env))
            self.e.emit(tirx.BufferStore(target, self.stored(target, value), [at]))

    def stored(self, target: tirx.Buffer, value: Expr) -> Expr:
        """A result as ``target`` holds it."""
        if target not in self.op.kinds:
            return value
        return narrowed(self.e.bind("wide", value), self.op.kinds[target])

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

        TVM simplifies the sides of a ``Select`` as if its condition held, or did not, there. But both are
        computed: an index that a branch or a remainder keeps within bounds would lose that.
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

    def coordinate(self, loop: Loop, at: Expr) -> Expr:
        """Coordinate along the loop's axis of a place in the tile."""
        return at if loop.start is None else loop.start + at

    def with_lane(self, env: Env, lane: Loop, at: Expr) -> Env:
        """A point further along the lane axis."""
        return {**env, lane.axis.var: self.coordinate(lane, at)}

    @contextmanager
    def loop(self, name: str, extent: int) -> Iterator[Expr]:
        """A loop, whose variable's range simplification knows."""
        with self.e.loop(name, 0, extent) as var:
            if isinstance(var, ir.Var):
                bind_range(self.analyzer, var, extent)
            yield var

    @contextmanager
    def vector(self, lanes: int) -> Iterator[Expr]:
        """A loop that becomes a vector."""
        with self.e.loop("lane", 0, lanes, ForKind.VECTORIZED) as var:
            if isinstance(var, ir.Var):
                bind_range(self.analyzer, var, lanes)
            yield var

    @contextmanager
    def loops(self, loops: Sequence[Loop], env: Env | None = None) -> Iterator[Env]:
        """Nested loops, with the value of each axis."""
        values = dict(env or {})
        with ExitStack() as stack:
            for loop in loops:
                at = stack.enter_context(self.loop(loop.axis.var.name, loop.extent))
                values[loop.axis.var] = self.coordinate(loop, at)
            yield values
