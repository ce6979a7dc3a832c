"""Copying and filling runs of elements whose length is known, with vectors as wide as the chip has them."""

from __future__ import annotations

from collections.abc import Iterator

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter, Index, broadcast, index, item_bytes


def copy(
    e: Emitter,
    target: Target,
    to: tuple[tirx.Buffer, Index],
    source: tuple[tirx.Buffer, Index],
    count: int,
) -> None:
    """Copy ``count`` elements; both places are a buffer and an offset in it, of the same type."""
    (buffer, at), (read, read_at) = to, source
    for offset, lanes in _vectors(e, count, _lanes(buffer, target)):
        e.store(buffer, at + offset, e.load(read, read_at + offset, lanes), lanes)


def fill(e: Emitter, target: Target, to: tuple[tirx.Buffer, Index], value: Expr, count: int) -> None:
    """Set ``count`` elements to ``value``."""
    buffer, at = to
    for offset, lanes in _vectors(e, count, _lanes(buffer, target)):
        e.store(buffer, at + offset, broadcast(value, lanes), lanes)


def _vectors(e: Emitter, count: int, lanes: int) -> Iterator[tuple[Expr, int]]:
    """Offset and lanes of the vectors of a run: whole ones in a loop, then ever smaller ones."""
    whole = count // lanes
    if whole:
        with e.loop("vector", 0, whole) as number:
            yield number * lanes, lanes
    done = whole * lanes
    while done < count:
        lanes = 1 << (count - done).bit_length() - 1
        yield index(done), lanes
        done += lanes


def _lanes(buffer: tirx.Buffer, target: Target) -> int:
    return target.lanes(8 * item_bytes(str(buffer.ty.dtype.dtype)))
