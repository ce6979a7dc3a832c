"""A fused function as a list of operations over dense index spaces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import (
    contains,
    cost,
    dtype_of,
    loads,
    narrow,
    narrow_indices,
    replace_loads,
    shape_of,
    substitute,
)

REDUCTION = 2
"""TVM's kind of a block variable that is reduced over."""


@dataclass(frozen=True)
class Axis:
    """A loop of an operation.

    Attributes:
        var: int32 variable.
        extent: It runs from 0 to here.
    """

    var: tirx.Var
    extent: int


@dataclass(frozen=True)
class Op:
    """``targets[indices] = values`` over all axes, or a reduction of ``values`` over the ``reduce`` axes.

    Attributes:
        targets: Buffers that it writes; several only for reductions of tuples such as argmax.
        axes: Spatial axes.
        indices: Position in the targets, in terms of the axes.
        values: One for each target; for a reduction an accumulator's new value, in terms of ``accumulators``.
        reduce: Axes of the reduction, empty where it is none.
        accumulators: Variables that stand for the values so far.
        inits: Initial values of a reduction.
    """

    targets: tuple[tirx.Buffer, ...]
    axes: tuple[Axis, ...]
    indices: tuple[Expr, ...]
    values: tuple[Expr, ...]
    reduce: tuple[Axis, ...] = ()
    accumulators: tuple[tirx.Var, ...] = ()
    inits: tuple[Expr, ...] = ()

    @property
    def reads(self) -> list[tirx.Buffer]:
        """Buffers that it loads from, each once."""
        return list(dict.fromkeys(load.source for value in self.values for load in loads(value)))

    @property
    def iterations(self) -> int:
        """Evaluations of ``values``."""
        return math.prod(axis.extent for axis in (*self.axes, *self.reduce))

    @property
    def cost(self) -> float:
        """Vector instructions for one evaluation."""
        return sum(cost(value) for value in self.values)

    @property
    def is_reduction(self) -> bool:
        """Whether there is something to reduce."""
        return bool(self.accumulators)

    def substituted(self, values: dict[tirx.Var, Expr]) -> Op:
        """The same with variables replaced everywhere but in the axes."""
        return replace(
            self,
            indices=tuple(substitute(at, values) for at in self.indices),
            values=tuple(substitute(value, values) for value in self.values),
        )


@dataclass(frozen=True)
class Opaque:
    """Statements that are kept as they are.

    Attributes:
        stmt: The statements.
        reads: Buffers that they load from.
        targets: Buffers that they store to.
    """

    stmt: tirx.Stmt
    reads: list[tirx.Buffer]
    targets: tuple[tirx.Buffer, ...]


def read_function(func: tirx.PrimFunc) -> list[Op | Opaque]:
    """The operations of a function, in order."""
    return [_read_nest(stmt) for stmt in _statements(func.body)]


def _statements(stmt: tirx.Stmt) -> Iterator[tirx.Stmt]:
    """Statements of the root block and of blocks without variables, unless declarations join them."""
    if isinstance(stmt, s_tir.SBlockRealize) and _is_plain(stmt.block):
        yield from _statements(stmt.block.body)
        return
    if isinstance(stmt, tirx.SeqStmt) and not any(_declares(one) for one in stmt.seq):
        for one in stmt.seq:
            yield from _statements(one)
        return
    yield stmt


def _is_plain(block: s_tir.SBlock) -> bool:
    """Whether a block is no more than its body, or the root block."""
    is_free = block.name_hint == "root" or not block.alloc_buffers
    return is_free and not block.iter_vars and not block.match_buffers


def _declares(stmt: tirx.Stmt) -> bool:
    return isinstance(stmt, tirx.Bind | tirx.AllocBuffer | tirx.DeclBuffer)


def _opaque(stmt: tirx.Stmt) -> Opaque:
    read: dict[tirx.Buffer, None] = {}
    written: dict[tirx.Buffer, None] = {}
    local: set[tirx.Buffer] = set()
    tvm_ffi.structural_walk(
        stmt,
        [
            (ir.TensorLoad, lambda node: read.setdefault(node.source)),
            (tirx.BufferStore, lambda node: written.setdefault(node.buffer)),
            (tirx.AllocBuffer, lambda node: local.add(node.buffer)),
            (s_tir.SBlock, lambda node: local.update(node.alloc_buffers)),
        ],
    )
    return Opaque(
        stmt,
        [buffer for buffer in read if buffer not in local],
        tuple(buffer for buffer in written if buffer not in local),
    )


def _read_nest(stmt: tirx.Stmt) -> Op | Opaque:
    inner, loop_vars = stmt, set[tirx.Var]()
    while isinstance(inner, tirx.For) and inner.kind == tirx.ForKind.SERIAL:
        loop_vars.add(inner.loop_var)
        inner = inner.body
    op = _read_block(inner, loop_vars) if isinstance(inner, s_tir.SBlockRealize) else None
    return _opaque(stmt) if op is None else op


def _read_block(realize: s_tir.SBlockRealize, loop_vars: set[tirx.Var]) -> Op | None:
    block = realize.block
    if block.alloc_buffers or block.match_buffers or not _is_true(realize.predicate):
        return None
    axes: list[Axis] = []
    reduce: list[Axis] = []
    values: dict[tirx.Var, Expr] = {}
    for iter_var, value in zip(block.iter_vars, realize.iter_values, strict=True):
        if not isinstance(iter_var.dom.extent, tirx.IntImm) or not _is_zero(iter_var.dom.min):
            return None
        extent, var = int(iter_var.dom.extent), tirx.Var(iter_var.var.name, "int32")
        if extent == 1:
            values[iter_var.var] = tirx.const(0, str(iter_var.var.ty))
            continue
        if value not in loop_vars:
            return None
        loop_vars.remove(value)
        values[iter_var.var] = (
            var if str(iter_var.var.ty) == "int32" else tirx.Cast(str(iter_var.var.ty), var)
        )
        (reduce if iter_var.iter_type == REDUCTION else axes).append(Axis(var, extent))
    found = _read_stores(block)
    if found is None:
        return None
    stores, binds = found
    indices = tuple(narrow(substitute(at, values)) for at in stores[0].indices)
    if not _covers(indices, axes, shape_of(stores[0].buffer)):
        return None
    targets = tuple(store.buffer for store in stores)
    inlined = [substitute(substitute(store.value, binds), values) for store in stores]
    is_reduction = any(load.source in targets for value in inlined for load in loads(value))
    if not is_reduction and block.init is None and not reduce:
        return Op(targets, tuple(axes), indices, tuple(map(narrow_indices, inlined)))
    if block.init is None:
        return None
    inits = _read_inits(block.init, targets)
    if inits is None:
        return None
    return _reduction(targets, axes, reduce, indices, inlined, inits)


def _reduction(
    targets: tuple[tirx.Buffer, ...],
    axes: list[Axis],
    reduce: list[Axis],
    indices: tuple[Expr, ...],
    values: list[Expr],
    inits: list[Expr],
) -> Op:
    """A reduction, with loads of its own targets as accumulators."""
    accumulators = {target: tirx.Var("so_far", dtype_of(target)) for target in targets}
    values = [replace_loads(value, lambda load: accumulators.get(load.source, load)) for value in values]
    return Op(
        targets,
        tuple(axes),
        indices,
        tuple(map(narrow_indices, values)),
        tuple(reduce),
        tuple(accumulators.values()),
        tuple(inits),
    )


def _read_stores(block: s_tir.SBlock) -> tuple[list[tirx.BufferStore], dict[tirx.Var, Expr]] | None:
    body = block.body
    stores: list[tirx.BufferStore] = []
    binds: dict[tirx.Var, Expr] = {}
    for stmt in body.seq if isinstance(body, tirx.SeqStmt) else [body]:
        if isinstance(stmt, tirx.Bind):
            binds[stmt.var] = substitute(stmt.value, binds)
        elif isinstance(stmt, tirx.BufferStore):
            stores.append(stmt)
        else:
            return None
    if not stores:
        return None
    same = all(
        len(s.indices) == len(stores[0].indices)
        and all(tvm_ffi.structural_equal(a, b) for a, b in zip(s.indices, stores[0].indices, strict=True))
        for s in stores
    )
    if not same or (len(stores) > 1 and not binds):
        return None
    return stores, binds


def _read_inits(init: tirx.Stmt, targets: tuple[tirx.Buffer, ...]) -> list[Expr] | None:
    stores = list(init.seq) if isinstance(init, tirx.SeqStmt) else [init]
    if not all(isinstance(s, tirx.BufferStore) for s in stores):
        return None
    by_target = {s.buffer: s.value for s in stores}
    if set(by_target) != set(targets):
        return None
    values = [by_target[t] for t in targets]
    return None if any(contains(v, (ir.Var,)) for v in values) else values


def _covers(indices: tuple[Expr, ...], axes: list[Axis], shape: tuple[int, ...]) -> bool:
    """True when the axes are the target's dimensions, in order, each over its whole extent."""
    names = [axis.var for axis in axes]
    used = []
    for at, size in zip(indices, shape, strict=True):
        if at in names:
            axis = axes[names.index(at)]
            if axis.extent != size:
                return False
            used.append(axis.var)
        elif not (_is_zero(at) and size == 1):
            return False
    return used == names


def _is_zero(value: Expr) -> bool:
    return isinstance(value, tirx.IntImm) and int(value) == 0


def _is_true(value: Expr) -> bool:
    return value is True or (isinstance(value, tirx.IntImm) and int(value) == 1)
