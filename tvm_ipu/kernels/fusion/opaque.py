"""Kernels of statements that are kept as they are: sorting, scattering, scans."""

from __future__ import annotations

import tvm_ffi
from tvm import ir, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.chip_questions import answer
from tvm_ipu.kernels.core_model import grain
from tvm_ipu.kernels.expressions import dtype_of, shape_of
from tvm_ipu.kernels.fusion.kernel import GroupKernel
from tvm_ipu.kernels.fusion.ops import Opaque

CYCLES_PER_STORE = 8.0


def opaque_kernel(op: Opaque, target: Target) -> GroupKernel:
    """The statements as a kernel; a parallel loop around all of them gives its units of work."""
    buffers = tuple(dict.fromkeys([*op.reads, *op.targets]))
    params = {buffer: tirx.decl_buffer(shape_of(buffer), dtype_of(buffer), buffer.name) for buffer in buffers}
    stmt = _only_outermost_parallel(
        _over(answer(op.stmt, target.vector_bits * target.vector_registers), params)
    )
    extent = 1
    if (
        isinstance(stmt, tirx.For)
        and stmt.kind == tirx.ForKind.PARALLEL
        and isinstance(stmt.extent, tirx.IntImm)
    ):
        extent = int(stmt.extent)
    stores = _stores(stmt)
    units = grain(CYCLES_PER_STORE * stores, extent)
    return GroupKernel(tirx.PrimFunc(list(params.values()), stmt), buffers, extent, units, stores)


def _over(stmt: tirx.Stmt, params: dict[tirx.Buffer, tirx.Buffer]) -> tirx.Stmt:
    """The statement over other buffers: those of ``te.extern`` have symbolic offsets that nothing binds."""

    def load(node: ir.TensorLoad) -> ir.TensorLoad:
        return tirx.BufferLoad(params[node.source], node.indices) if node.source in params else node

    def store(node: tirx.BufferStore) -> tirx.BufferStore:
        if node.buffer not in params:
            return node
        return tirx.BufferStore(params[node.buffer], node.value, node.indices)

    return tvm_ffi.structural_map(stmt, [(ir.TensorLoad, load), (tirx.BufferStore, store)])


def _only_outermost_parallel(stmt: tirx.Stmt) -> tirx.Stmt:
    """The statement with parallel loops made serial, but for one that is the whole statement."""

    def serial(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL or loop.same_as(stmt):
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return tvm_ffi.structural_map(stmt, (tirx.For, serial), order="pre")


def _stores(stmt: tirx.Stmt) -> int:
    """Stores that the statement makes, as far as the extents of its loops are known."""
    if isinstance(stmt, tirx.For):
        return _stores(stmt.body) * (int(stmt.extent) if isinstance(stmt.extent, tirx.IntImm) else 1)
    if isinstance(stmt, tirx.SeqStmt):
        return sum(_stores(one) for one in stmt.seq)
    if isinstance(stmt, tirx.IfThenElse):
        return _stores(stmt.then_case)
    if isinstance(stmt, tirx.AttrStmt | tirx.While):
        return _stores(stmt.body)
    return int(isinstance(stmt, tirx.BufferStore))
