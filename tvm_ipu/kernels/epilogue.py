"""Elementwise operators after a template's own computation, evaluated on its registers before the store.

The epilogue of a fused function is the largest set of blocks after the anchor that read the anchor's
result, or each other's, only at their own output position. Whatever else they read may be broadcast or
indexed in any way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter, flat_buffer, index
from tvm_ipu.kernels.expressions import dtype_of, loads, shape_of, strides_of
from tvm_ipu.kernels.half import in_float32, is_half, narrow, widen
from tvm_ipu.kernels.llvm import NARROW_BF16
from tvm_ipu.kernels.memory import memory_shape, memory_size, row_pitch
from tvm_ipu.kernels.registers import RegisterTile

Coordinates = Callable[[Expr], tuple[Expr, ...]]
"""Position in all dimensions but the last, from the flat number of a row."""

Finish = Callable[[Expr, Expr, Expr], None]
"""Takes an element's row in its tile, its column and its value."""

MAX_UNROLLED_SIZE = 12
"""A longer epilogue is emitted once, in a loop over the register tile's rows."""


@dataclass(frozen=True)
class Step:
    """One elementwise block: ``target[axes] = value``.

    Attributes:
        target: Buffer that the block defines.
        axes: Its axis variables, one for each dimension.
        value: Scalar expression in terms of the axes.
    """

    target: tirx.Buffer
    axes: tuple[tirx.Var, ...]
    value: Expr


class Epilogue:
    """Steps on the elements of ``anchor`` and the tensors that they read and write.

    Args:
        anchor: Buffer that the template computes; all steps have its shape.
        steps: Elementwise blocks in order.
        outputs: Those of ``anchor`` and the steps' targets that later kernels need.
        target: Chip, for its conversion to bfloat16; None to convert by operations on bits.

    Attributes:
        sources: Buffers of the fused function that the epilogue reads and writes.
        buffers: The same as flat buffers, to be parameters of the kernel.
        has_half: Whether 16-bit floating point occurs.
    """

    def __init__(
        self,
        anchor: tirx.Buffer,
        steps: Sequence[Step],
        outputs: Sequence[tirx.Buffer],
        target: Target | None = None,
    ) -> None:
        self.anchor = anchor
        self._rounds_vectors = target is not None and "avx512bf16" in target.isa
        self.steps = tuple(steps)
        self.outputs = tuple(outputs)
        internal = {anchor, *(step.target for step in steps)}
        operands = [b for step in steps for b in loaded_buffers(step.value) if b not in internal]
        self.sources = tuple(dict.fromkeys([*operands, *outputs]))
        self._flat = {b: flat_buffer(b.name, memory_size(b), dtype_of(b)) for b in self.sources}
        self.buffers = tuple(self._flat.values())
        kinds = {dtype_of(b) for b in (*self.sources, *(step.target for step in steps))}
        self.has_half = any(is_half(kind) for kind in kinds)
        read = [b for step in steps for b in loaded_buffers(step.value)]
        self._used_once = {step.target for step in steps if read.count(step.target) == 1} - {*outputs}
        # HVX has no floats; the one product that is rounded is computed in integers (isa/hexagon_epilogue.py)
        hvx = target is not None and "hvx" in target.isa
        self._serial = hvx and "int" in dtype_of(anchor) and _float_operations(steps) > 1
        self._unroll = not self._serial and sum(expression_size(s.value) for s in steps) <= MAX_UNROLLED_SIZE

    @property
    def flops(self) -> int:
        """Arithmetic operations on the whole tensor: one for each operator of the steps."""
        return math.prod(shape_of(self.anchor)) * sum(expression_size(s.value) for s in self.steps)

    def emit(
        self,
        e: Emitter,
        tile: RegisterTile,
        row: Expr,
        column: Expr,
        coordinates: Coordinates | None = None,
        *,
        row_step: int = 1,
        finish: Finish | None = None,
    ) -> None:
        """Finish a register tile and store it.

        Args:
            e: Where the statements go.
            tile: Results of the anchor.
            row: Flat number of the tile's first row.
            column: First column.
            coordinates: Position of a row; by default worked out from its number.
            row_step: Difference of the numbers of two consecutive rows of the tile.
            finish: Takes the last step's values; by default they are stored in ``outputs``.
        """
        position = coordinates or self._decode
        tile.settle()
        if self._unroll:
            for m in range(tile.rows):
                for v, width in enumerate(tile.widths):
                    at = index(tile.at(m, v))
                    place = _Place(self, row + m * row_step, column + v * tile.lanes, position)
                    self._vector(e, tile.buffer, at, index(m), place, width, finish)
            return
        per_row = len(tile.widths) * tile.lanes
        memory = e.alloc("tile", tile.rows * per_row, tile.dtype)
        for at in range(0, tile.rows * per_row, tile.lanes):
            e.store(memory, at, e.load(tile.buffer, at, tile.lanes), tile.lanes)
        with e.loop("m", 0, tile.rows) as m:
            for first, width in _pairs(tile.widths, tile.lanes):
                place = _Place(self, row + m * row_step, column + first, position)
                self._vector(e, memory, m * per_row + first, m, place, width, finish)

    def emit_row(
        self,
        e: Emitter,
        memory: tirx.Buffer,
        at: Expr,
        widths: Sequence[int],
        lanes: int,
        row: Expr,
        column: Expr,
        m: Expr | None = None,
        finish: Finish | None = None,
    ) -> None:
        """Finish one row of results that lie in memory and store it.

        Args:
            e: Where the statements go.
            memory: Results of the anchor.
            at: Where the row starts there.
            widths: Columns in use of each vector of the row.
            lanes: Columns that a vector has.
            row: Flat number of the row.
            column: First column.
            m: The row's number for ``finish``.
            finish: As for ``emit``.
        """
        for v, width in enumerate(widths):
            place = _Place(self, row, column + v * lanes, self._decode)
            self._vector(e, memory, at + v * lanes, index(0) if m is None else m, place, width, finish)

    def _vector(
        self,
        e: Emitter,
        tile: tirx.Buffer,
        at: Expr,
        m: Expr,
        first: _Place,
        width: int,
        finish: Finish | None,
    ) -> None:
        """Finish ``width`` elements of row ``m`` of a tile, ``at`` in its buffer, ``first`` in the result."""
        late: dict[tirx.Buffer, tirx.Buffer] = {}
        if finish is None and self._rounds_vectors and width % NARROW_BF16.lanes == 0:
            halves = [output for output in self.outputs if dtype_of(output) == "bfloat16"]
            late = {output: e.alloc("wide", width, "float32") for output in halves}
        kind = tirx.ForKind.SERIAL if self._serial else tirx.ForKind.VECTORIZED
        with e.loop("lane", 0, width, kind) as lane:
            place = first.moved(lane)
            value = e.bind("value", e.load(tile, at + lane))
            values = {self.anchor: value}
            for step in self.steps:
                value = place.evaluate(step, values)
                value = value if step.target in self._used_once else e.bind("value", value)
                values[step.target] = value
            if finish is not None:
                finish(m, place.column, value)
            for output in self.outputs if finish is None else ():
                value, dtype = values[output], dtype_of(output)
                if output in late:
                    e.store(late[output], lane, value)
                    continue
                value = narrow(value, dtype) if is_half(dtype) else value
                e.store(self._flat[output], place.row * row_pitch(output) + place.column, value)
        for output, wide in late.items():
            at = first.row * row_pitch(output) + first.column
            for part in range(0, width, NARROW_BF16.lanes):
                bits = NARROW_BF16.call(e.load(wide, part, NARROW_BF16.lanes))
                rounded = tirx.reinterpret(f"bfloat16x{NARROW_BF16.lanes}", bits)
                e.store(self._flat[output], at + part, rounded, NARROW_BF16.lanes)

    def _decode(self, row: Expr) -> tuple[Expr, ...]:
        """Position of a row in the anchor's dimensions but the last."""
        leading = shape_of(self.anchor)[:-1]
        position = []
        for axis, size in enumerate(leading):
            inner = math.prod(leading[axis + 1 :])
            outer = row if inner == 1 else tirx.floordiv(row, inner)
            position.append(outer if axis == 0 else tirx.floormod(outer, size))
        return tuple(position)


class _Place:
    """One element's position, and the value of a step's expression there."""

    def __init__(self, epilogue: Epilogue, row: Expr, column: Expr, position: Coordinates) -> None:
        self._epilogue = epilogue
        self.row = row
        self.column = column
        self._position = position

    def moved(self, columns: Expr) -> _Place:
        """The place some columns further."""
        return _Place(self._epilogue, self.row, self.column + columns, self._position)

    def evaluate(self, step: Step, values: dict[tirx.Buffer, Expr]) -> Expr:
        def load(node: ir.TensorLoad) -> Expr:
            if node.source in values:
                return values[node.source]
            return self._load(node, step.axes)

        def axis(var: ir.Var) -> Expr:
            for i, own in enumerate(step.axes):
                if own.same_as(var):
                    return self._coordinate(i).astype(str(var.ty))
            return var

        value = tvm_ffi.structural_map(step.value, [(ir.TensorLoad, load), (ir.Var, axis)], order="pre")
        value = without_round_trips(value)
        return in_float32(value) if self._epilogue.has_half else value

    def _load(self, node: ir.TensorLoad, axes: tuple[tirx.Var, ...]) -> Expr:
        """Load from an operand, with the index as simple as it can be."""
        flat = self._epilogue._flat.get(node.source)
        if flat is None:
            return node
        shape = shape_of(node.source)
        if shape == shape_of(self._epilogue.anchor) and is_identity(node.indices, axes, shape):
            return _read(flat, self.row * row_pitch(node.source) + self.column)
        offset: Any = 0
        for at, size, stride in zip(node.indices, shape, strides_of(memory_shape(node.source)), strict=True):
            if size > 1:
                offset = offset + self._index(at, axes) * stride
        return _read(flat, index(offset))

    def _index(self, at: Expr, axes: tuple[tirx.Var, ...]) -> Expr:
        """An index expression of a step as an int32 expression of the position."""
        for i, own in enumerate(axes):
            if own.same_as(at):
                return self._coordinate(i)
        if isinstance(at, tirx.IntImm):
            return index(int(at))
        step = Step(self._epilogue.anchor, axes, at)
        return self.evaluate(step, {}).astype("int32")

    def _coordinate(self, axis: int) -> Expr:
        last = len(shape_of(self._epilogue.anchor)) - 1
        return self.column if axis == last else self._position(self.row)[axis]


_MOST_PAIRED = 16
"""Lanes of vectors that may be finished in pairs: of 64 lanes of bytes that become floats on HVX, LLVM 22
takes the second half from the wrong place (tests/ops/test_wide_products_cross.py)."""


def _float_operations(steps: Sequence[Step]) -> int:
    """Sums and products of floats in the steps."""
    found = 0

    def count(node: Expr) -> None:
        nonlocal found
        found += "float" in str(node.ty)

    for step in steps:
        tvm_ffi.structural_walk(step.value, ((tirx.Add, tirx.Sub, tirx.Mul), count))
    return found


def _pairs(widths: Sequence[int], lanes: int) -> list[tuple[int, int]]:
    """(first column, columns) of what is finished together in a row of a tile: two full vectors, or one.

    A processor waits less for the results of long expressions where two of them alternate.
    """
    pairs: list[tuple[int, int]] = []
    for number, width in enumerate(widths):
        if number % 2 and width == lanes <= _MOST_PAIRED:
            first, _ = pairs.pop()
            pairs.append((first, 2 * lanes))
        else:
            pairs.append((number * lanes, width))
    return pairs


def _read(buffer: tirx.Buffer, at: Expr) -> Expr:
    """An element; one of 16-bit floating point as float32."""
    value = tirx.BufferLoad(buffer, [at])
    return widen(value) if is_half(dtype_of(buffer)) else value


def is_identity(indices: Sequence[Expr], axes: Sequence[tirx.Var], shape: Sequence[int]) -> bool:
    """True when ``indices`` are the axes in order; a dimension of one element may be indexed by zero."""
    return len(indices) == len(axes) and all(
        at.same_as(axis) or (size == 1 and isinstance(at, tirx.IntImm))
        for at, axis, size in zip(indices, axes, shape, strict=True)
    )


def loaded_buffers(value: Expr) -> list[tirx.Buffer]:
    """Buffers that an expression loads from."""
    return [node.source for node in loads(value)]


def without_round_trips(value: Expr) -> Expr:
    """An expression without conversions to fewer bits and back of integers that are clipped to them.

    ``int32(uint8(max(min(x, 255), 0)))`` is ``max(min(x, 255), 0)``.
    """

    def converted(cast: tirx.Cast) -> Expr:
        narrow = cast.value
        if not isinstance(narrow, tirx.Cast) or not _fits(narrow.value, str(narrow.ty)):
            return cast
        wide = narrow.value
        return wide if str(wide.ty) == str(cast.ty) else wide.astype(str(cast.ty))

    return tvm_ffi.structural_map(value, (tirx.Cast, converted))


def _fits(value: Expr, dtype: str) -> bool:
    """Whether an int32 expression is limited, by constants, to an integer type of fewer bits."""
    bounds: dict[type, int] = {}
    whole = value
    while isinstance(value, tirx.Min | tirx.Max) and isinstance(value.b, tirx.IntImm):
        bounds.setdefault(type(value), int(value.b))
        value = value.a
    if str(whole.ty) != "int32" or len(bounds) < 2 or "int" not in dtype:
        return False
    limits = np.iinfo(dtype)
    return bool(limits.min <= bounds[tirx.Max] <= bounds[tirx.Min] <= limits.max)


INSTRUCTIONS = frozenset(
    f"tirx.{name}"
    for name in (
        *("round", "nearbyint", "floor", "ceil", "trunc", "fabs", "sqrt", "fma", "reinterpret"),
        *("shift_left", "shift_right", "bitwise_and", "bitwise_or", "bitwise_xor", "if_then_else"),
    )
)
"""Calls that become an instruction or two; other functions become polynomials."""


def expression_size(value: Expr) -> int:
    """Operators in an expression; a mathematical function counts as many, for it becomes a polynomial."""
    size = 0

    def count(node: Expr) -> None:
        nonlocal size
        if not isinstance(node, ir.Var | ir.TensorLoad | tirx.IntImm | tirx.FloatImm):
            is_function = isinstance(node, ir.Call) and getattr(node.op, "name", "") not in INSTRUCTIONS
            size += 20 if is_function else 1

    tvm_ffi.structural_walk(value, (tirx.Expr, count))
    return size
