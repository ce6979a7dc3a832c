"""AMX: eight tile registers of up to 16 rows of 64 bytes, and the instructions that multiply them.

A product takes a tile of left rows, ``[rows][groups][group]``, and a tile of right columns,
``[groups][16][group]``, where ``group`` neighbours along the reduction fill 4 bytes, and adds to a tile of
sums, ``[rows][16]`` in 32 bits. Shapes are those that the kernel configures at its start, for the calling
thread.

Costs are those that Intel's optimization manual gives for Sapphire Rapids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter, Index, index, item_bytes

TILES = 8
"""Tile registers."""

ROWS = 16
"""Rows of a tile."""

COLUMNS = 16
"""Sums in a row of a tile."""

GROUP_BYTES = 4
"""Bytes along the reduction that go to one sum at a time."""

GROUPS = 16
"""Groups in a row of a left tile."""

PRODUCT_CYCLES = 16.0
"""Cycles from one product to the next."""

LATENCY = 52.0
"""Cycles from one product to the next that adds to its result."""

STORE_CYCLES = 16.0
"""Cycles in which a tile of sums is written."""

LINES_PER_CYCLE = 2.0
"""Rows of a tile that are read from the level-1 cache in a cycle."""

_PRODUCTS = {
    ("uint8", "int8"): "llvm.x86.tdpbusd",
    ("int8", "int8"): "llvm.x86.tdpbssd",
    ("int8", "uint8"): "llvm.x86.tdpbsud",
    ("uint8", "uint8"): "llvm.x86.tdpbuud",
    ("bfloat16", "bfloat16"): "llvm.x86.tdpbf16ps",
}

_CONFIG_BYTES = 64
_CONFIG_WIDTHS, _CONFIG_ROWS = 16, 48
"""Where the configuration holds the tiles' bytes in a row (16 bits each) and their rows."""


def multiplies(left: str, right: str, target: Target) -> bool:
    """True where the target's tiles multiply elements of these types."""
    return "amx" in target.isa and (left, right) in _PRODUCTS


def group_of(dtype: str) -> int:
    """Elements of type ``dtype`` in a group."""
    return GROUP_BYTES // item_bytes(dtype)


def storage_of(dtype: str) -> str:
    """Type of a kernel's buffers of ``dtype``: tiles alone look into 16-bit floats, copies move bits."""
    return "uint16" if dtype == "bfloat16" else dtype


def steps_of(groups: int) -> int:
    """Fewest equal steps, each of a tile's width or less, that ``groups`` groups take."""
    return next(n for n in range(-(-groups // GROUPS), groups + 1) if groups % n == 0)


def filled(groups: int) -> float:
    """Share of the tiles' width that ``groups`` groups along the reduction use."""
    return groups / (steps_of(groups) * GROUPS)


@dataclass(frozen=True)
class Shape:
    """A block of ``rows`` x ``columns`` tiles of sums, and the tiles that are multiplied for it.

    Attributes:
        rows: Tiles of sums below each other.
        columns: Tiles of sums side by side.
        tile_rows: Rows of a tile of sums.
        groups: Groups along the reduction of the tiles that are multiplied.
    """

    rows: int
    columns: int
    tile_rows: int
    groups: int

    @property
    def height(self) -> int:
        """Rows of the block."""
        return self.rows * self.tile_rows

    @property
    def width(self) -> int:
        """Columns of the block."""
        return self.columns * COLUMNS

    @property
    def step_cycles(self) -> float:
        """Cycles of one step along the reduction, operands in the level-1 cache."""
        lines = self.rows * self.tile_rows + self.columns * self.groups
        return max(self.rows * self.columns * PRODUCT_CYCLES, lines / LINES_PER_CYCLE, LATENCY)


SHAPES = ((2, 2), (1, 4), (4, 1), (1, 3), (3, 1), (1, 2), (2, 1), (1, 1))
"""Rows and columns of the blocks worth trying."""


class TileRegisters:
    """Statements on the tiles of a block.

    Sums come first. Of the operands, the side with fewer tiles stays while the other side's tiles take turns
    in the registers that are left.

    Args:
        e: Where the statements go.
        shape: The block, or the largest one where there are narrower ones.
        left: Type of the left elements.
        right: Type of the right elements.
    """

    def __init__(self, e: Emitter, shape: Shape, left: str, right: str) -> None:
        self._e = e
        self._shape = shape
        self._product = _PRODUCTS[left, right]
        free = TILES - shape.rows * shape.columns
        self._left_stays = shape.rows <= shape.columns
        fewer = min(shape.rows, shape.columns)
        more = min(max(shape.rows, shape.columns), free - fewer)
        self._lefts, self._rights = (fewer, more) if self._left_stays else (more, fewer)

    def configure(self) -> None:
        """Set the tiles' shapes; to be done once by each thread that runs the kernel."""
        shape = self._shape
        sums = [(shape.tile_rows, COLUMNS * 4)] * (shape.rows * shape.columns)
        lefts = [(shape.tile_rows, shape.groups * GROUP_BYTES)] * self._lefts
        rights = [(shape.groups, COLUMNS * GROUP_BYTES)] * self._rights
        config = bytearray(_CONFIG_BYTES)
        config[0] = 1  # palette
        for i, (rows, width) in enumerate([*sums, *lefts, *rights]):
            config[_CONFIG_WIDTHS + 2 * i] = width
            config[_CONFIG_ROWS + i] = rows
        memory = self._e.alloc("tile_config", _CONFIG_BYTES, "uint8")
        for i, value in enumerate(config):
            self._e.store(memory, i, tirx.const(value, "uint8"))
        self._call("llvm.x86.ldtilecfg", _address(memory, 0))

    def release(self) -> None:
        """Give the tiles' state up, so that the system need not save it."""
        self._call("llvm.x86.tilerelease")

    def clear(self, columns: int) -> None:
        """Set the sums of a block of ``columns`` tiles to zero."""
        for i in range(self._shape.rows):
            for j in range(columns):
                self._call("llvm.x86.tilezero", _tile(self._sum(i, j)))

    def multiply(
        self,
        left: tuple[tirx.Buffer, Sequence[Expr], Index],
        right: tuple[tirx.Buffer, Sequence[Expr]],
        left_streams: bool = False,
    ) -> None:
        """Add the product of one step along the reduction.

        Args:
            left: Buffer, offset of each tile's first element, bytes from one row to the next.
            right: Buffer and offset of each tile's first element; rows follow each other.
            left_streams: Whether left tiles are not worth a place in the level-1 cache.
        """
        memory, rows, pitch = left
        load = "llvm.x86.tileloaddt164" if left_streams else "llvm.x86.tileloadd64"
        weights, columns = right

        def load_left(i: int) -> None:
            self._load(load, self._left(i), memory, rows[i], pitch)

        def load_right(j: int) -> None:
            self._load("llvm.x86.tileloadd64", self._right(j), weights, columns[j], COLUMNS * GROUP_BYTES)

        def product(i: int, j: int) -> None:
            tiles = self._sum(i, j), self._left(i), self._right(j)
            self._call(self._product, *(_tile(t) for t in tiles))

        if self._left_stays:
            for i in range(len(rows)):
                load_left(i)
            for j in range(len(columns)):
                load_right(j)
                for i in range(len(rows)):
                    product(i, j)
        else:
            for j in range(len(columns)):
                load_right(j)
            for i in range(len(rows)):
                load_left(i)
                for j in range(len(columns)):
                    product(i, j)

    def store(self, buffer: tirx.Buffer, pitch: int, columns: int) -> None:
        """Write the sums of a block of ``columns`` tiles to rows of ``pitch`` elements of ``buffer``."""
        for i in range(self._shape.rows):
            for j in range(columns):
                at = _address(buffer, i * self._shape.tile_rows * pitch + j * COLUMNS)
                self._call("llvm.x86.tilestored64", _tile(self._sum(i, j)), at, _stride(4 * pitch))

    def _load(self, name: str, tile: int, buffer: tirx.Buffer, at: Expr, pitch: Index) -> None:
        self._call(name, _tile(tile), _address(buffer, at), _stride(pitch))

    def _sum(self, i: int, j: int) -> int:
        return i * self._shape.columns + j

    def _left(self, i: int) -> int:
        return self._shape.rows * self._shape.columns + i % self._lefts

    def _right(self, j: int) -> int:
        return self._shape.rows * self._shape.columns + self._lefts + j % self._rights

    def _call(self, name: str, *args: Expr) -> None:
        self._e.emit(tirx.Evaluate(tirx.call_llvm_intrin("void", name, *args)))


def _address(buffer: tirx.Buffer, at: Index) -> Expr:
    return tirx.address_of(tirx.BufferLoad(buffer, [index(at)]))


def _stride(size: Index) -> Expr:
    return tirx.IntImm("int64", size) if isinstance(size, int) else size.astype("int64")


def _tile(number: int) -> Expr:
    return tirx.IntImm("int8", number)
