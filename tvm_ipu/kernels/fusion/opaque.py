"""Kernels of statements that are kept as they are: sorting, scattering, scans."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx

from tvm_ipu.kernels.fusion.kernel import GroupKernel
from tvm_ipu.kernels.fusion.ops import Opaque


def opaque_kernel(op: Opaque) -> GroupKernel:
    """The statements as a kernel; a parallel loop around all of them gives its units of work."""
    buffers = tuple(dict.fromkeys([*op.reads, *op.targets]))
    stmt = _only_outermost_parallel(op.stmt)
    extent = 1
    if isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL and isinstance(stmt.extent, tirx.IntImm):
        extent = int(stmt.extent)
    return GroupKernel(tirx.PrimFunc(list(buffers), stmt), buffers, extent, 1, 0)


def _only_outermost_parallel(stmt: tirx.Stmt) -> tirx.Stmt:
    """The statement with parallel loops made serial, but for one that is the whole statement."""

    def serial(loop: tirx.For) -> tirx.For:
        if loop.kind != tirx.ForKind.PARALLEL or loop.same_as(stmt):
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return tvm_ffi.structural_map(stmt, (tirx.For, serial), order="pre")
