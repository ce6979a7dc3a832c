"""Emit look-ups in tables of 256 bytes, such as functions of 8-bit numbers, with the table in registers.

y[i] = table[x[i]]
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import ir, tirx

from tvm_ipu.kernels.expressions import dtype_of, i32, size_of, strides, substitute
from tvm_ipu.kernels.fusion.layout import make_analyzer
from tvm_ipu.kernels.fusion.tile import Env, Loop, TileLoops
from tvm_ipu.kernels.llvm import TABLE_BYTES

BYTES = 64
"""Look-ups at once."""


@dataclass(frozen=True)
class Table:
    """A look-up.

    Attributes:
        source: The table.
        position: The load of the positions.
    """

    source: tirx.Buffer
    position: ir.TensorLoad


def find_table(tile: TileLoops, lane: Loop) -> Table | None:
    """The look-up that an operation is along ``lane``; None where it is none, or the chip cannot."""
    op = tile.op
    if "avx512" not in tile.target.isa or op.accumulators or len(op.values) != 1 or lane.extent < BYTES:
        return None
    (value,), (target,), (offset,) = op.values, op.targets, op.offsets
    if not isinstance(value, ir.TensorLoad) or size_of(value.source) != 256:
        return None
    (at,) = value.indices
    position = at.value if isinstance(at, tirx.Cast) else at
    if not isinstance(position, ir.TensorLoad) or dtype_of(position.source) != "uint8":
        return None
    if dtype_of(value.source) != dtype_of(target) or dtype_of(target) not in ("uint8", "int8"):
        return None
    analyzer = make_analyzer([*op.axes])
    steps = [strides(where, [lane.axis.var], analyzer)[0] for where in (offset, position.indices[0])]
    return Table(value.source, position) if steps == [1, 1] else None


def emit_table(tile: TileLoops, found: Table, lane: Loop, env: Env) -> int:
    """Results along the lane axis, as many as fill whole vectors; their number."""
    e, (target,), (offset,) = tile.e, tile.op.targets, tile.op.offsets
    parts = [e.bind("table", e.load(found.source, i32(at), BYTES)) for at in range(0, 256, BYTES)]
    count = lane.extent // BYTES
    with tile.loop("v", count) as number:
        point = tile.with_lane(env, lane, number * i32(BYTES))
        read, written = (
            tile.analyzer.simplify(substitute(at, point)) for at in (found.position.indices[0], offset)
        )
        positions = e.load(found.position.source, read, BYTES)
        result = tirx.call_pure_extern(f"{dtype_of(target)}x{BYTES}", TABLE_BYTES.name, *parts, positions)
        e.store(target, written, result, BYTES)
    return count * BYTES
