"""Emit elementwise operations that transpose: square blocks of their sources pass through registers.

y[i, j] = f(x[j, i])        rows of x are loaded as vectors along i and become vectors along j
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import flat_buffer
from tvm_ipu.kernels.expressions import dtype_of, i32, loads, replace_loads, strides, substitute
from tvm_ipu.kernels.fusion.layout import make_analyzer
from tvm_ipu.kernels.fusion.tile import Env, Loop, TileLoops
from tvm_ipu.kernels.templates.transpose import transpose

LARGEST_BLOCK = 16


@dataclass(frozen=True)
class Transposition:
    """What is read across.

    Attributes:
        across: Axis along which neighbours are read.
        loads: The loads that read them, with a stride along the lane axis.
        size: Edge of a block.
    """

    across: Loop
    loads: tuple[ir.TensorLoad, ...]
    size: int


def find_transposition(tile: TileLoops, lane: Loop) -> Transposition | None:
    """The transposition in an operation whose vectors run along ``lane``; None where there is none."""
    size = min(tile.lanes, LARGEST_BLOCK)
    if size < 4 or lane.extent < size:
        return None
    analyzer = make_analyzer([*tile.op.axes])
    strided: dict[str, ir.TensorLoad] = {}
    for value in tile.op.values:
        for load in loads(value):
            step = strides(load.indices[0], [lane.axis.var], analyzer)[0]
            if step not in (0, 1) and dtype_of(load.source) not in ("float16", "bool"):
                strided[str(load)] = load
    for loop in tile.spatial:
        if loop is lane or loop.extent < size:
            continue
        found = tuple(
            load for load in strided.values() if strides(load.indices[0], [loop.axis.var], analyzer)[0] == 1
        )
        if found and all(
            strides(load.indices[0], [lane.axis.var], analyzer)[0] is not None for load in found
        ):
            return Transposition(loop, found, size)
    return None


def emit_block(tile: TileLoops, found: Transposition, lane: Loop, env: Env, row: Expr, column: Expr) -> None:
    """One block of results: ``size`` vectors.

    Args:
        tile: The operation.
        found: What it transposes.
        lane: The lane axis.
        env: Point of the other axes.
        row: First place along the axis that is read across.
        column: First place along the lane axis.
    """
    size, across = found.size, found.across
    slot, at = tirx.Var("slot", "int32"), tirx.Var("at", "int32")
    blocks = [_load_block(tile, found, load, lane, env, row, column) for load in found.loads]

    def replacement(node: ir.TensorLoad) -> Expr:
        for load, block in zip(found.loads, blocks, strict=True):
            if tvm_ffi.structural_equal(node, load):
                return tirx.BufferLoad(block, [slot * i32(size) + at])
        return node

    values = [replace_loads(value, replacement) for value in tile.op.values]
    for number in range(size):
        with tile.vector(size) as place:
            point = {
                **env,
                across.axis.var: tile.coordinate(across, row + i32(number)),
                lane.axis.var: tile.coordinate(lane, column + place),
                slot: i32(number),
                at: place,
            }
            tile.store(point, [tile.value(value, point) for value in values])


def _load_block(
    tile: TileLoops, found: Transposition, load: ir.TensorLoad, lane: Loop, env: Env, row: Expr, column: Expr
) -> tirx.Buffer:
    """A block of a source in registers, transposed."""
    e, size = tile.e, found.size
    rows = []
    for number in range(size):
        point = {
            **env,
            found.across.axis.var: tile.coordinate(found.across, row),
            lane.axis.var: tile.coordinate(lane, column + i32(number)),
        }
        offset = tile.analyzer.simplify(substitute(load.indices[0], point))
        rows.append(e.bind("row", e.load(load.source, offset, size)))
    block = flat_buffer("block", size * size, dtype_of(load.source), "local")
    e.emit(tirx.AllocBuffer(block))
    for number, vector in enumerate(transpose(e, rows)):
        e.store(block, number * size, vector, size)
    return block
