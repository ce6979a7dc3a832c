"""Read a fused function as the loop nests that it consists of, one block each, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm import s_tir, tirx

from tvm_ipu.kernels.epilogue import Step, is_identity
from tvm_ipu.kernels.expressions import loads, shape_of


@dataclass(frozen=True)
class Nest:
    """A loop nest around one block.

    Attributes:
        stmt: The whole nest.
        block: The block.
        reads: Buffers that it reads, without the one it writes.
        writes: Buffers that it writes.
    """

    stmt: tirx.Stmt
    block: s_tir.SBlock
    reads: tuple[tirx.Buffer, ...]
    writes: tuple[tirx.Buffer, ...]

    def as_step(self) -> Step | None:
        """The block as an elementwise step; None where it is not one."""
        store = self.block.body
        if self.block.init is not None or not isinstance(store, tirx.BufferStore):
            return None
        axes = tuple(iter_var.var for iter_var in self.block.iter_vars)
        shape = shape_of(store.buffer)
        extents = tuple(int(iter_var.dom.extent) for iter_var in self.block.iter_vars)
        if extents != shape or not is_identity(store.indices, axes, shape):
            return None
        return Step(store.buffer, axes, store.value)


def read_nests(func: tirx.PrimFunc) -> list[Nest] | None:
    """Nests of a function; None where it has another form than operators' fused blocks."""
    root = func.body
    if not isinstance(root, s_tir.SBlockRealize) or root.block.iter_vars:
        return None
    body = root.block.body
    stmts = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    nests = [_read_nest(stmt) for stmt in stmts]
    return None if any(nest is None for nest in nests) else [nest for nest in nests if nest is not None]


def _read_nest(stmt: tirx.Stmt) -> Nest | None:
    inner, loops = stmt, []
    while isinstance(inner, tirx.For):
        loops.append(inner.loop_var)
        inner = inner.body
    if not isinstance(inner, s_tir.SBlockRealize) or inner.block.alloc_buffers:
        return None
    writes = tuple(dict.fromkeys(region.source for region in inner.block.writes))
    reads = tuple(dict.fromkeys(r.source for r in inner.block.reads if r.source not in writes))
    return Nest(stmt, inner.block, reads, writes)


def follows(step: Step, shape: Sequence[int], internal: set[tirx.Buffer], later: set[tirx.Buffer]) -> bool:
    """True when a step can be evaluated on registers.

    Args:
        step: The step.
        shape: Shape of the anchor.
        internal: The anchor and the targets of earlier steps, to be read at the step's own position only.
        later: Buffers that only a kernel after this one computes.
    """
    if shape_of(step.target) != tuple(shape):
        return False
    read = loads(step.value)
    if any(load.source in later for load in read):
        return False
    return all(is_identity(load.indices, step.axes, shape) for load in read if load.source in internal)


def subfunction(
    nests: Sequence[Nest], outputs: Sequence[tirx.Buffer]
) -> tuple[tirx.PrimFunc, list[tirx.Buffer]]:
    """A function of some nests alone, and the buffers that are its parameters.

    Args:
        nests: The nests, in order.
        outputs: Buffers that they write and that are needed outside.
    """
    written = dict.fromkeys(buffer for nest in nests for buffer in nest.writes)
    inputs = dict.fromkeys(buffer for nest in nests for buffer in nest.reads if buffer not in written)
    params = [*inputs, *outputs]
    internal = [buffer for buffer in written if buffer not in outputs]
    stmts = [nest.stmt for nest in nests]
    root = s_tir.SBlock(
        [], [], [], "root", stmts[0] if len(stmts) == 1 else tirx.SeqStmt(stmts), alloc_buffers=internal
    )
    func = tirx.PrimFunc(params, s_tir.SBlockRealize([], True, root))
    return func.with_attr({"s_tir": tvm.tirx.const(True, "bool"), "tirx.noalias": True}), params
