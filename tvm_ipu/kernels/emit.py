"""A small builder of TIR statements, for templates that write their loops, vectors and registers themselves.

Statements are appended in order; ``with`` nests loops and conditions::

    e = Emitter()
    with e.loop("k", 0, 64) as k:
        e.store(y, k * 16, e.load(x, k * 16, 16))
    body = e.finish()

All buffers are flat (one dimension). A scalar is a vector of one lane throughout, so that the same template
serves chips without vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.half import widen

Index: TypeAlias = int | Expr
"""An integer known now, or an int32 expression."""

LINE_BYTES = 64
"""Bytes of a cache line."""

STREAM_BYTES = 2048
"""Distance from what is read to what is asked for: some hundred cycles of a microkernel."""


def flat_buffer(name: str, size: int, dtype: str, scope: str = "global") -> tirx.Buffer:
    """A buffer of one dimension with ``size`` elements."""
    return tirx.decl_buffer((size,), dtype, name=name, scope=scope)


def index(value: Index) -> Expr:
    """``value`` as an int32 expression."""
    return tirx.IntImm("int32", value) if isinstance(value, int) else value


def vector_type(dtype: str, lanes: int) -> str:
    """TVM's name of a vector of ``lanes`` elements."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


@cache
def item_bytes(dtype: str) -> int:
    """Bytes of one element of type ``dtype``."""
    return int(tirx.const(0, dtype).ty.dtype.bits) // 8


def broadcast(value: Expr, lanes: int) -> Expr:
    """A vector with ``value`` in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, index(lanes))


def zero(dtype: str, lanes: int = 1) -> Expr:
    """A vector of zeros."""
    return broadcast(tirx.const(0, dtype), lanes)


def lanes_of(value: Expr) -> int:
    """Number of lanes of an expression; 1 for a scalar."""
    return int(value.ty.dtype.lanes)


class Emitter:
    """Collects statements."""

    def __init__(self) -> None:
        self._blocks: list[list[tirx.Stmt]] = [[]]

    def emit(self, stmt: tirx.Stmt) -> None:
        """Append a statement."""
        self._blocks[-1].append(stmt)

    def finish(self) -> tirx.Stmt:
        """Everything emitted, as one statement."""
        (block,) = self._blocks
        return _sequence(block)

    def bind(self, name: str, value: Index) -> Expr:
        """A variable with the given value; a constant stays itself."""
        value = index(value)
        if isinstance(value, tirx.IntImm | tirx.Var):
            return value
        var = tirx.Var(name, value.ty)
        self.emit(tirx.Bind(var, value))
        return var

    def alloc(self, name: str, size: int, dtype: str, scope: str = "local") -> tirx.Buffer:
        """A flat buffer that lives in the current block."""
        buffer = flat_buffer(name, size, dtype, scope)
        self.emit(tirx.AllocBuffer(buffer))
        return buffer

    def load(self, buffer: tirx.Buffer, at: Index, lanes: int = 1) -> Expr:
        """``lanes`` consecutive elements from ``at`` on."""
        return tirx.BufferLoad(buffer, [_span(at, lanes)])

    def load_stream(self, buffer: tirx.Buffer, at: Index, lanes: int) -> Expr:
        """``load`` from a buffer that is read in order; asks for what lies ``STREAM_BYTES`` further on."""
        size = item_bytes(str(buffer.ty.dtype.dtype))
        if lanes * size >= LINE_BYTES // 2:
            self.prefetch(buffer, at + STREAM_BYTES // size)
        return self.load(buffer, at, lanes)

    def load_as(self, dtype: str, buffer: tirx.Buffer, at: Index, lanes: int = 1) -> Expr:
        """``load``, with the elements converted to ``dtype``."""
        value = self.load(buffer, at, lanes)
        have, want = str(value.ty), vector_type(dtype, lanes)
        if have == want:
            return value
        if have == vector_type("bfloat16", lanes) and dtype == "float32":
            return self.bind("wide", widen(value))
        return value.astype(want)

    def store(self, buffer: tirx.Buffer, at: Index, value: Expr, lanes: int = 1) -> None:
        """Write ``lanes`` consecutive elements from ``at`` on."""
        self.emit(tirx.BufferStore(buffer, value, [_span(at, lanes)]))

    def prefetch(self, buffer: tirx.Buffer, at: Index) -> None:
        """Ask for the cache line of an element, which may lie past the end, in the level-2 cache."""
        address = tirx.address_of(tirx.BufferLoad(buffer, [index(at)]))
        read, level_2, data = (index(value) for value in (0, 2, 1))
        self.emit(tirx.Evaluate(tirx.call_intrin("void", "tirx.prefetch", address, read, level_2, data)))

    @contextmanager
    def loop(
        self, name: str, start: Index, extent: Index, kind: tirx.ForKind = tirx.ForKind.SERIAL
    ) -> Iterator[Expr]:
        """``extent`` iterations from ``start`` on; a single one becomes plain statements."""
        if isinstance(extent, int) and extent == 1 and kind != tirx.ForKind.PARALLEL:
            yield index(start)
            return
        var = tirx.Var(name, "int32")
        with self._block() as body:
            yield var
        self.emit(tirx.For(var, index(start), index(extent), kind, _sequence(body)))

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Statements that run if ``condition`` holds."""
        with self._block() as body:
            yield
        self.emit(tirx.IfThenElse(condition, _sequence(body), None))

    @contextmanager
    def _block(self) -> Iterator[list[tirx.Stmt]]:
        body: list[tirx.Stmt] = []
        self._blocks.append(body)
        yield body
        self._blocks.pop()


def _span(at: Index, lanes: int) -> Expr:
    return index(at) if lanes == 1 else tirx.Ramp(index(at), index(1), index(lanes))


def _sequence(stmts: list[tirx.Stmt]) -> tirx.Stmt:
    if not stmts:
        return tirx.Evaluate(index(0))
    return stmts[0] if len(stmts) == 1 else tirx.SeqStmt(stmts)
