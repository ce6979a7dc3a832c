"""How the windows of a convolution become rows of tiles.

A tile holds output pixels whose windows start at equal distances in memory. There are two ways to find them:
in one output row; or along all of a copy of the image with its padding, where a tile goes on from one row to
the next and the sums between rows are left out. That copy has as many planes as the strides have phases, each
with the pixels that some taps see, side by side.

The image is read where it is if its windows never leave it and tiles stay in rows. Otherwise a unit of work
first copies the input rows that it needs into scratch memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.isa import amx
from tvm_ipu.kernels.window import Window


@dataclass(frozen=True)
class TileWindow:
    """Sizes that follow from a window and from how its tiles are laid.

    Attributes:
        window: Geometry of the convolution.
        pitch: Elements of the image from one pixel to the next.
        groups: Groups of channels.
        depth: Input channels of a group.
        tap: Groups of elements along the reduction that the weights have for each tap.
        group: Elements in such a group.
        tile_rows: Pixels of a tile.
        crossing: Whether tiles go on from one row to the next.
    """

    window: Window
    pitch: int
    groups: int
    depth: int
    tap: int
    group: int
    tile_rows: int
    crossing: bool

    @property
    def in_place(self) -> bool:
        """Whether tiles are loaded from the image itself."""
        whole = self.tap * self.group == self.depth
        return whole and not any(self.window.padding) and not self.crossing

    @property
    def pixel(self) -> int:
        """Elements from one pixel to the next, where tiles are loaded from."""
        return self.pitch if self.in_place else self.tap * self.group

    @property
    def steps(self) -> tuple[int, int]:
        """Input rows and columns from one pixel of a plane to the next."""
        return self.window.stride if self.crossing else (1, 1)

    @property
    def planes(self) -> tuple[int, int]:
        """Phases of rows and of columns that have a plane."""
        rows, columns = (1 + max(tap % self.steps[axis] for tap in self._taps(axis)) for axis in range(2))
        return rows, columns

    @property
    def row_pixels(self) -> int:
        """Pixels of a row of a plane, or of the image."""
        return self.window.size[1] if self.in_place else self._extent(self.window.output[1], 1)

    @property
    def tile_step(self) -> int:
        """Pixels from one row of a tile to the next."""
        return 1 if self.crossing else self.window.stride[1]

    @property
    def is_merged(self) -> bool:
        """Whether the columns of a window follow each other in memory."""
        dense = self.window.dilation[1] == 1 and self.pixel == self.tap * self.group
        return dense and (self.steps[1] == 1 or self.window.kernel[1] == 1)

    @property
    def run(self) -> int:
        """Groups along the reduction that follow each other in memory."""
        return self.tap * (self.window.kernel[1] if self.is_merged else 1)

    @property
    def tiles_per_row(self) -> int:
        """Tiles of an output row, where they do not cross rows; the last one may overlap the one before."""
        return math.ceil(self.window.output[1] / self.tile_rows)

    def plane_rows(self, rows: int) -> int:
        """Rows of a plane for ``rows`` output rows."""
        return self._extent(rows, 0)

    def tap_pixels(self, rows: int, kh: Expr, kw: Expr) -> Expr:
        """Pixels from where a window starts to a tap of it, with planes for ``rows`` output rows."""
        if self.in_place:
            return kh * (self.window.dilation[0] * self.row_pixels) + kw * self.window.dilation[1]
        down, right = (tap * dilation for tap, dilation in zip((kh, kw), self.window.dilation, strict=True))
        phase = self._part(down, 0, tirx.truncmod) * self.planes[1] + self._part(right, 1, tirx.truncmod)
        row = phase * self.plane_rows(rows) + self._part(down, 0, tirx.truncdiv)
        return row * self.row_pixels + self._part(right, 1, tirx.truncdiv)

    def _part(self, value: Expr, axis: int, operation: Callable[[Expr, Expr], Expr]) -> Expr:
        return operation(value, tirx.IntImm("int32", self.steps[axis]))

    def _taps(self, axis: int) -> list[int]:
        return [tap * self.window.dilation[axis] for tap in range(self.window.kernel[axis])]

    def _extent(self, outputs: int, axis: int) -> int:
        """Rows (axis 0) or columns of a plane that ``outputs`` output rows or columns see."""
        stride = self.window.stride[axis] // self.steps[axis]
        return (outputs - 1) * stride + 1 + max(tap // self.steps[axis] for tap in self._taps(axis))

    def tiles(self, rows: int) -> int:
        """Tiles of ``rows`` output rows."""
        if not self.crossing:
            return rows * self.tiles_per_row
        return math.ceil((rows * self.row_pixels - self.gap) / self.tile_rows)

    @property
    def gap(self) -> int:
        """Pixels between the last window of a row and the first one of the next, where tiles cross rows."""
        return self.row_pixels - self.window.output[1]

    def scratch_pixels(self, rows: int, row_tiles: int) -> int:
        """Pixels of the copy for ``rows`` output rows in blocks of ``row_tiles`` tiles; 0 without a copy.

        Tiles that cross rows may end behind the last row.
        """
        if self.in_place:
            return 0
        plane = self.plane_rows(rows) * self.row_pixels
        count = self.planes[0] * self.planes[1]
        if not self.crossing:
            return plane
        last = math.ceil(self.tiles(rows) / row_tiles) * row_tiles * self.tile_rows
        return (count - 1) * plane + max(plane, (self.plane_rows(1) - 1) * self.row_pixels + self.gap + last)


def layouts(window: Window) -> list[tuple[int, bool]]:
    """(rows of a tile, crossing) worth trying."""
    columns = window.output[1]
    even = math.ceil(columns / math.ceil(columns / amx.ROWS))
    found = [(even, False)]
    if columns >= amx.ROWS and even != amx.ROWS:
        found.append((amx.ROWS, False))
    if window.output[0] > 1:
        found.append((amx.ROWS, True))
    return found
