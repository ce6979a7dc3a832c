"""A copy of the rows of an image that some rows of a convolution's output see, as tiles want to load them."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.copies import copy, fill
from tvm_ipu.kernels.emit import Emitter, Index
from tvm_ipu.kernels.tile_window import TileWindow

Unit = tuple[Expr, Expr, Expr]
"""Image, first output row, group of channels."""


@dataclass(frozen=True)
class RowCopy:
    """Statements that copy, padding included.

    Attributes:
        e: Where they go.
        layout: Geometry of the convolution and of its tiles.
        image: The image; 16-bit floats as bits.
        pad_value: What stands around it.
        target: Chip to compile for.
    """

    e: Emitter
    layout: TileWindow
    image: tirx.Buffer
    pad_value: int
    target: Target

    def emit(self, unit: Unit, rows: Index, most_rows: int, row_tiles: int) -> tirx.Buffer:
        """Copy to scratch memory.

        Args:
            unit: What for.
            rows: Output rows of this unit.
            most_rows: Output rows of a unit; the copy has room for as many.
            row_tiles: Tiles of a block.
        """
        e, layout = self.e, self.layout
        pixels = layout.scratch_pixels(most_rows, row_tiles)
        buffer = e.alloc("copy", pixels * layout.pixel, self._dtype, "global")
        stride = layout.window.stride[0] // layout.steps[0]
        lines = (rows - 1) * stride + layout.plane_rows(1)
        lines = lines if isinstance(lines, int) else e.bind("lines", lines)
        for row_phase in range(layout.planes[0]):
            for column_phase in range(layout.planes[1]):
                plane = row_phase * layout.planes[1] + column_phase
                with e.loop("line", 0, lines) as line:
                    number = e.bind("to_line", line + plane * layout.plane_rows(most_rows))
                    self._line((buffer, number), unit, line, (row_phase, column_phase))
        return buffer

    @property
    def _dtype(self) -> str:
        return str(self.image.ty.dtype.dtype)

    def _line(self, to: tuple[tirx.Buffer, Expr], unit: Unit, line: Expr, phases: tuple[int, int]) -> None:
        """Copy pixels of an image's row, or what stands around the image, to a row of a plane."""
        e, layout, window = self.e, self.layout, self.layout.window
        (buffer, number), (image, y, group) = to, unit
        value = tirx.const(self.pad_value, self._dtype)
        step, columns = layout.steps[1], layout.row_pixels
        skipped = window.padding[1] - phases[1]
        first = min(max(0, -(-skipped // step)), columns)
        stop = min(max(first, (window.size[1] - 1 + skipped) // step + 1), columns)
        start = e.bind("to", number * (columns * layout.pixel))
        row = y * window.stride[0] + (phases[0] - window.padding[0]) + line * layout.steps[0]
        row = e.bind("row", row)
        is_inside = tirx.all(row >= 0, row < window.size[0])
        with e.when(is_inside):
            fill(e, self.target, (buffer, start), value, first * layout.pixel)
            source = (image * window.size[0] + row) * window.size[1] + (first * step - skipped)
            self._pixels((buffer, start + first * layout.pixel), e.bind("from", source), group, stop - first)
            fill(
                e, self.target, (buffer, start + stop * layout.pixel), value, (columns - stop) * layout.pixel
            )
        with e.when(tirx.Not(is_inside)):
            fill(e, self.target, (buffer, start), value, columns * layout.pixel)

    def _pixels(self, to: tuple[tirx.Buffer, Expr], source: Expr, group: Expr, count: int) -> None:
        """Copy ``count`` pixels, a step apart from number ``source`` on; zeros fill up their channels."""
        e, layout = self.e, self.layout
        buffer, start = to
        pitch = layout.pitch
        if pitch == layout.pixel == layout.depth and layout.steps[1] == 1:
            copy(e, self.target, to, (self.image, source * pitch), count * pitch)
            return
        zero = tirx.const(0, self._dtype)
        with e.loop("x", 0, count) as x:
            at = e.bind("pixel", start + x * layout.pixel)
            read = e.bind("read", (source + x * layout.steps[1]) * pitch + group * layout.depth)
            copy(e, self.target, (buffer, at), (self.image, read), layout.depth)
            fill(e, self.target, (buffer, at + layout.depth), zero, layout.pixel - layout.depth)
