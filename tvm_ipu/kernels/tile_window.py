"""How the windows of a convolution become rows of tiles.

A tile holds output pixels whose windows start at equal distances in memory. There are two ways to find them:
in one output row, or, with strides of one, along all of an image with its padding, where a tile goes on from
one row to the next and the sums between rows are left out.

The image is read where it is if its windows never leave it. Otherwise a unit of work first copies the input
rows that it needs into scratch memory, padding included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm_ipu.kernels.isa import amx
from tvm_ipu.kernels.window import Window


@dataclass(frozen=True)
class TileWindow:
    """Sizes that follow from a window and from how its tiles are laid.

    Attributes:
        window: Geometry of the convolution.
        groups: Groups of channels.
        depth: Input channels of a group.
        tap: Groups of elements along the reduction that the weights have for each tap.
        group: Elements in such a group.
        tile_rows: Pixels of a tile.
        crossing: Whether tiles go on from one row to the next.
    """

    window: Window
    groups: int
    depth: int
    tap: int
    group: int
    tile_rows: int
    crossing: bool

    @property
    def in_place(self) -> bool:
        """Whether tiles are loaded from the image itself."""
        return not any(self.window.padding) and self.tap * self.group == self.depth

    @property
    def pixel(self) -> int:
        """Elements from one pixel to the next, where tiles are loaded from."""
        return self.groups * self.depth if self.in_place else self.tap * self.group

    @property
    def row_pixels(self) -> int:
        """Pixels of a row there."""
        return self.window.size[1] if self.in_place else self.reach(self.window.output[1], 1)

    @property
    def is_merged(self) -> bool:
        """Whether the columns of a window follow each other in memory."""
        return self.window.dilation[1] == 1 and self.pixel == self.tap * self.group

    @property
    def run(self) -> int:
        """Groups along the reduction that follow each other in memory."""
        return self.tap * (self.window.kernel[1] if self.is_merged else 1)

    @property
    def tiles_per_row(self) -> int:
        """Tiles of an output row, where they do not cross rows; the last one may overlap the one before."""
        return math.ceil(self.window.output[1] / self.tile_rows)

    def reach(self, outputs: int, axis: int) -> int:
        """Input rows or columns that ``outputs`` output rows (axis 0) or columns (axis 1) see."""
        w = self.window
        return (outputs - 1) * w.stride[axis] + (w.kernel[axis] - 1) * w.dilation[axis] + 1

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
        size = self.reach(rows, 0) * self.row_pixels
        if self.crossing:
            last = math.ceil(self.tiles(rows) / row_tiles) * row_tiles * self.tile_rows
            size = max(size, (self.reach(1, 0) - 1) * self.row_pixels + self.gap + last)
        return size


def layouts(window: Window, in_place: bool, row_tiles: int) -> list[tuple[int, bool]]:
    """(rows of a tile, crossing) worth trying for blocks of ``row_tiles`` tiles."""
    columns = window.output[1]
    even = math.ceil(columns / math.ceil(columns / amx.ROWS))
    found = [(even, False)]
    if columns >= amx.ROWS and even != amx.ROWS:
        found.append((amx.ROWS, False))
    if not in_place and window.stride == (1, 1):
        found.append((amx.ROWS, True))
    return found
