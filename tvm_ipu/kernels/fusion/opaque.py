"""Kernels of statements that are kept as they are: sorting, scattering, scans."""

from __future__ import annotations

import tvm_ffi
from tvm import ir, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.core_model import grain
from tvm_ipu.kernels.expressions import dtype_of, shape_of
from tvm_ipu.kernels.fusion.kernel import GroupKernel
from tvm_ipu.kernels.fusion.ops import Opaque

CYCLES_PER_STORE = 8.0

REGISTERS_HOLD = "tvm_ipu_registers_hold"
"""What statements may call, with a number of bits: whether half of the chip's vector registers hold them."""


def opaque_kernel(op: Opaque, target: Target) -> GroupKernel:
    """The statements as a kernel; a parallel loop around all of them gives its units of work."""
    buffers = tuple(dict.fromkeys([*op.reads, *op.targets]))
    params = {buffer: tirx.decl_buffer(shape_of(buffer), dtype_of(buffer), buffer.name) for buffer in buffers}
    stmt = _only_outermost_parallel(_over(_for_chip(op.stmt, target), params))
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


def _for_chip(stmt: tirx.Stmt, target: Target) -> tirx.Stmt:
    """The statement with what it asks of the chip answered."""

    def answer(call: ir.Call) -> ir.Expr:
        if getattr(call.op, "name", "") != "tirx.call_pure_extern" or call.args[0].value != REGISTERS_HOLD:
            return call
        return tirx.const(2 * int(call.args[1]) <= target.vector_bits * target.vector_registers, "bool")

    def choose(branch: tirx.IfThenElse) -> tirx.Stmt:
        if not isinstance(branch.condition, tirx.IntImm):
            return branch
        chosen = branch.then_case if branch.condition.value else branch.else_case
        return tirx.Evaluate(0) if chosen is None else chosen

    return tvm_ffi.structural_map(stmt, [(ir.Call, answer), (tirx.IfThenElse, choose)])


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
