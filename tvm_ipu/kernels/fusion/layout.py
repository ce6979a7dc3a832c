"""Where the data of a kernel lie: flat parameters, and tiles of the results that stay within the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import ir, sym, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import flat_buffer
from tvm_ipu.kernels.expressions import (
    bind_range,
    dtype_of,
    flat_offset,
    i32,
    loads,
    replace_loads,
    shape_of,
    strides,
    substitute,
    variables,
)
from tvm_ipu.kernels.fusion.ops import Axis, Op
from tvm_ipu.kernels.fusion.storage import (
    as_stored,
    has_half,
    is_movement,
    is_stored_half,
    local_dtype,
    storage_dtype,
    wide_constant,
    wide_variable,
    widened,
)
from tvm_ipu.kernels.half import in_float32
from tvm_ipu.kernels.memory import memory_shape, memory_size
from tvm_ipu.kernels.split import Group


@dataclass(frozen=True)
class Local:
    """A result that stays within its kernel.

    Attributes:
        inner_dims: Its dimensions that are no common axes; of those only a tile is kept.
        shape: Its whole shape.
    """

    inner_dims: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def inner_shape(self) -> tuple[int, ...]:
        """Extents of the inner dimensions."""
        return tuple(self.shape[dim] for dim in self.inner_dims)


def find_locals(group: Group, needed: set[tirx.Buffer]) -> dict[tirx.Buffer, Local]:
    """Results of the group that are not needed outside."""
    found = {}
    for op in group.ops:
        common = [axis.var for axis in group.common_of(op)]
        inner = tuple(
            dim for dim, at in enumerate(op.indices) if not (isinstance(at, ir.Var) and at in common)
        )
        for target in op.targets:
            if target not in needed:
                found[target] = Local(inner, shape_of(target))
    return found


def make_analyzer(axes: Sequence[Axis]) -> sym.Analyzer:
    """An analyzer that knows the ranges of the axes."""
    analyzer = sym.Analyzer()
    for axis in axes:
        bind_range(analyzer, axis.var, axis.extent)
    return analyzer


def merge_common(group: Group, local: dict[tirx.Buffer, Local]) -> Group:
    """The group with adjacent common axes made one, where all operations step evenly along both."""
    for at in reversed(range(len(group.common) - 1)):
        outer, inner = group.common[at], group.common[at + 1]
        accesses = [_global_accesses(op, local) for op in group.ops]
        if not all(
            _is_even(op.values, found, a, b, op)
            for op, found, a, b in zip(group.ops, accesses, outer, inner, strict=True)
        ):
            continue
        merged = tuple(
            Axis(tirx.Var(b.var.name, "int32"), a.extent * b.extent)
            for a, b in zip(outer, inner, strict=True)
        )
        ops = tuple(
            _merged_op(op, a, b, axis) for op, a, b, axis in zip(group.ops, outer, inner, merged, strict=True)
        )
        group = Group(ops, (*group.common[:at], merged, *group.common[at + 2 :]))
    return group


def _global_accesses(op: Op, local: dict[tirx.Buffer, Local]) -> list[Expr]:
    """Offsets of all loads and of the store, without the common dimensions of local results."""

    def offset(buffer: tirx.Buffer, indices: Sequence[Expr]) -> Expr:
        if buffer in local:
            own = local[buffer]
            return flat_offset([indices[dim] for dim in own.inner_dims], own.inner_shape)
        return flat_offset(indices, memory_shape(buffer))

    found = [offset(op.targets[0], op.indices)]
    found += [offset(load.source, load.indices) for value in op.values for load in loads(value)]
    return found


def _is_even(
    values: Sequence[Expr], offsets: Sequence[Expr], outer: Axis, inner: Axis, op: Op | FlatOp
) -> bool:
    """Whether one variable can take the place of two axes in all offsets."""
    if any({outer.var, inner.var} & variables(value, inside_loads=False) for value in values):
        return False
    analyzer = make_analyzer([*op.axes, *op.reduce])
    for offset in offsets:
        direct = replace_loads(offset, lambda load: tirx.const(0, str(load.ty)))
        far, near = strides(analyzer.simplify(direct), [outer.var, inner.var], analyzer)
        if far is None or near is None or far != near * inner.extent:
            return False
    return True


def _merged_values(outer: Axis, inner: Axis, axis: Axis) -> dict[tirx.Var, Expr]:
    size = i32(inner.extent)
    return {outer.var: tirx.floordiv(axis.var, size), inner.var: tirx.floormod(axis.var, size)}


def _merged_op(op: Op, outer: Axis, inner: Axis, axis: Axis) -> Op:
    axes = tuple(axis if own == inner else own for own in op.axes if own != outer)
    return replace(op.substituted(_merged_values(outer, inner, axis)), axes=axes)


@dataclass(frozen=True)
class FlatOp:
    """An operation over flat buffers.

    Attributes:
        targets: Flat buffers that it writes.
        offsets: Positions in them, in terms of the axes and of the tile's start.
        values: As in ``Op``, over flat buffers.
        common: Its own variables of the group's common axes.
        inner: Its other spatial axes.
        reduce: Axes of the reduction.
        accumulators: As in ``Op``.
        inits: As in ``Op``.
        kinds: 16-bit float type of the targets that hold one.
    """

    targets: tuple[tirx.Buffer, ...]
    offsets: tuple[Expr, ...]
    values: tuple[Expr, ...]
    common: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    reduce: tuple[Axis, ...]
    accumulators: tuple[tirx.Var, ...]
    inits: tuple[Expr, ...]
    kinds: dict[tirx.Buffer, str]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Spatial axes."""
        return (*self.common, *self.inner)

    def accesses(self) -> list[Expr]:
        """Offsets of all stores and loads, loads in the offsets of others included."""
        return [*self.offsets, *(load.indices[0] for value in self.values for load in loads(value))]


@dataclass(frozen=True)
class Layout:
    """The group's tile and the buffers of its kernel.

    Attributes:
        starts: Variable of the tile's first coordinate along each common axis.
        sizes: Largest extent of the tile along each.
        common_innermost: Whether local results are contiguous along the last common axis.
        local: Results that stay within the kernel.
        params: Flat buffer for each buffer that does not.
        local_buffers: Flat buffer for each local result.
        moves_only: Whether 16-bit floats are only moved.
    """

    starts: tuple[tirx.Var, ...]
    sizes: tuple[int, ...]
    common_innermost: bool
    local: dict[tirx.Buffer, Local]
    params: dict[tirx.Buffer, tirx.Buffer]
    local_buffers: dict[tirx.Buffer, tirx.Buffer]
    moves_only: bool

    def flatten(self, op: Op, common: tuple[Axis, ...]) -> FlatOp:
        """An operation over this layout's buffers."""
        bases = [axis.var - start for axis, start in zip(common, self.starts, strict=True)]
        analyzer = make_analyzer([*op.axes, *op.reduce])

        def offset(buffer: tirx.Buffer, indices: Sequence[Expr]) -> Expr:
            if buffer not in self.local:
                return analyzer.simplify(flat_offset(indices, memory_shape(buffer)))
            own = self.local[buffer]
            inner = [indices[dim] for dim in own.inner_dims]
            if self.common_innermost:
                return analyzer.simplify(flat_offset([*inner, *bases], (*own.inner_shape, *self.sizes)))
            return analyzer.simplify(flat_offset([*bases, *inner], (*self.sizes, *own.inner_shape)))

        def load(node: ir.TensorLoad) -> Expr:
            return tirx.BufferLoad(self.buffer(node.source), [offset(node.source, node.indices)])

        kinds = {
            self.buffer(b): dtype_of(b) for b in (*op.reads, *op.targets) if is_stored_half(b, self.local)
        }
        accumulators, inits, values = op.accumulators, op.inits, op.values
        if is_movement(op, () if self.moves_only else self.local):
            stored = dtype_of(self.buffer(op.targets[0]))
            values = tuple(as_stored(replace_loads(value, load), stored) for value in values)
            kinds = {}
        elif has_half(op):
            accumulators = tuple(map(wide_variable, accumulators))
            inits = tuple(map(wide_constant, inits))
            wide = dict(zip(op.accumulators, accumulators, strict=True))
            values = tuple(
                in_float32(substitute(replace_loads(value, lambda node: widened(load(node), kinds)), wide))
                for value in values
            )
        else:
            values = tuple(replace_loads(value, load) for value in values)
        return _merge_inner(
            FlatOp(
                tuple(self.buffer(target) for target in op.targets),
                tuple(offset(target, op.indices) for target in op.targets),
                values,
                common,
                tuple(axis for axis in op.axes if axis not in common),
                op.reduce,
                accumulators,
                inits,
                kinds,
            )
        )

    def buffer(self, buffer: tirx.Buffer) -> tirx.Buffer:
        """The flat buffer of a buffer of the function."""
        return self.local_buffers[buffer] if buffer in self.local else self.params[buffer]


def make_layout(
    group: Group, sizes: tuple[int, ...], common_innermost: bool, local: dict[tirx.Buffer, Local]
) -> Layout:
    """Buffers of the group's kernel, for tiles of ``sizes``."""
    used = dict.fromkeys(b for op in group.ops for b in (*op.reads, *op.targets) if b not in local)
    moves_only = all(is_movement(op, ()) for op in group.ops if has_half(op))
    params = {
        buffer: flat_buffer(buffer.name, memory_size(buffer), storage_dtype(dtype_of(buffer), moves_only))
        for buffer in used
    }
    points = math.prod(sizes)
    local_buffers = {
        buffer: flat_buffer(
            buffer.name, points * math.prod(own.inner_shape), local_dtype(dtype_of(buffer), moves_only)
        )
        for buffer, own in local.items()
    }
    starts = tuple(tirx.Var("start", "int32") for _ in sizes)
    return Layout(starts, sizes, common_innermost, local, params, local_buffers, moves_only)


def _merge_inner(op: FlatOp) -> FlatOp:
    """Adjacent inner axes, and adjacent reduced ones, made one where the steps along both are even."""
    for field in ("inner", "reduce"):
        for at in reversed(range(len(getattr(op, field)) - 1)):
            axes = getattr(op, field)
            outer, inner = axes[at], axes[at + 1]
            if not _is_even(op.values, op.accesses(), outer, inner, op):
                continue
            axis = Axis(tirx.Var(inner.var.name, "int32"), outer.extent * inner.extent)
            op = _substituted(op, _merged_values(outer, inner, axis), [*op.axes, *op.reduce, axis])
            merged = (*axes[:at], axis, *axes[at + 2 :])
            op = replace(op, inner=merged) if field == "inner" else replace(op, reduce=merged)
    return op


def _substituted(op: FlatOp, values: dict[tirx.Var, Expr], axes: Sequence[Axis]) -> FlatOp:
    analyzer = make_analyzer(axes)

    def simplified(load: ir.TensorLoad) -> Expr:
        return tirx.BufferLoad(load.source, [analyzer.simplify(load.indices[0])])

    return replace(
        op,
        offsets=tuple(analyzer.simplify(substitute(offset, values)) for offset in op.offsets),
        values=tuple(replace_loads(substitute(value, values), simplified) for value in op.values),
    )


def global_strides(op: Op, axis: Axis, local: dict[tirx.Buffer, Local]) -> list[int | None]:
    """How far the store and each load move with an axis; common dimensions of local results do not count."""
    analyzer = make_analyzer([*op.axes, *op.reduce])
    return [strides(analyzer.simplify(at), [axis.var], analyzer)[0] for at in _global_accesses(op, local)]
