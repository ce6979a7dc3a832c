"""Geometry of a two-dimensional window over a padded image, shared by the convolution templates.

Zero padding costs nothing at run time: rows outside the image are left out by the bounds of the loop over
kernel rows, and columns outside it by emitting the blocks at the left and right edge as code of their own.
With another value in the padding, the taps outside the image are multiplied with that value instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.computes import output_size
from tvm_ipu.kernels.emit import Emitter, Index, index

Span = tuple[int, int]
Range = tuple[Index, Index]
"""First and number."""

MAX_STATIC_PRODUCTS = 1500
"""Products of taps and columns that are emitted one by one; beyond, taps are a loop."""


@dataclass(frozen=True)
class Window:
    """Sizes of an image, of its output and of the window between them.

    Attributes:
        batch: Images.
        size: Rows and columns of an image.
        kernel: Rows and columns of the window.
        stride: Rows and columns from one window to the next.
        padding: Rows above, columns left, rows below, columns right.
        dilation: Rows and columns from one tap to the next.
    """

    batch: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    @property
    def output(self) -> tuple[int, int]:
        """Rows and columns of an output image."""
        rows, columns = (
            output_size(
                self.size[i],
                self.kernel[i],
                self.stride[i],
                self.padding[i],
                self.padding[i + 2],
                self.dilation[i],
            )
            for i in range(2)
        )
        return rows, columns

    @property
    def output_rows(self) -> int:
        """Rows of all output images."""
        return self.batch * self.output[0]

    @property
    def is_pointwise(self) -> bool:
        """True when the output depends on the same position of the input alone."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not any(self.padding)

    def locate(self, e: Emitter, output_row: Expr) -> tuple[Expr, Expr]:
        """Image and row within it of an output row counted over all images."""
        if self.batch == 1:
            return index(0), output_row
        image = e.bind("image", tirx.floordiv(output_row, self.output[0]))
        return image, e.bind("y", output_row - image * self.output[0])

    def kernel_rows(self, e: Emitter, y: Expr) -> Range:
        """First kernel row that lies inside the image for output row ``y``, and how many do."""
        kernel, step = self.kernel[0], self.dilation[0]
        last = (self.output[0] - 1) * self.stride[0] - self.padding[0] + (kernel - 1) * step
        if self.padding[0] == 0 and last < self.size[0]:
            return 0, kernel
        above = self.padding[0] - y * self.stride[0]
        first = e.bind("kh_first", tirx.max(index(0), tirx.floordiv(above + (step - 1), step)))
        stop = tirx.min(index(kernel), tirx.floordiv(above + (self.size[0] + step - 1), step))
        return first, e.bind("kh_count", stop - first)

    def kernel_columns(self, e: Emitter, segment: Segment, x: Expr) -> Range:
        """First kernel column that lies inside the image for output column ``x``, and how many do."""
        if not segment.edge:
            return 0, self.kernel[1]
        step = self.dilation[1]
        left = self.padding[1] - x * self.stride[1]
        first = e.bind("kw_first", tirx.max(index(0), tirx.floordiv(left + (step - 1), step)))
        stop = tirx.min(index(self.kernel[1]), tirx.floordiv(left + (self.size[1] + step - 1), step))
        return first, e.bind("kw_count", stop - first)

    def segments(self, block: int) -> list[Segment]:
        """Cut an output row into blocks of ``block`` columns, runs of equal ones together."""
        return self._looped_segments(block) if self.loops_over_taps(block) else self._static_segments(block)

    def loops_over_taps(self, block: int) -> bool:
        """Whether ``segments`` has so many products that taps are a loop, and edges blocks of one column."""
        found = self._static_segments(block)
        return sum(stop - first for one in found for first, stop in one.taps) > MAX_STATIC_PRODUCTS

    def _static_segments(self, block: int) -> list[Segment]:
        found: list[Segment] = []
        for start in range(0, self.output[1], block):
            width = min(block, self.output[1] - start)
            taps = tuple(self._inside(tap, start, width) for tap in range(self.kernel[1]))
            previous = found[-1] if found else None
            if previous and (previous.width, previous.taps) == (width, taps):
                found[-1] = Segment(previous.start, previous.count + 1, width, taps)
            else:
                found.append(Segment(start, 1, width, taps))
        return found

    def _looped_segments(self, block: int) -> list[Segment]:
        """The same for a kernel so wide that its taps are a loop; columns at the edges are blocks of one."""
        columns = self.output[1]
        first = min(self._inside(0, 0, columns)[0], columns)
        stop = max(first, self._inside(self.kernel[1] - 1, 0, columns)[1])
        full, tail = divmod(stop - first, block)
        cut = [
            Segment(0, first, 1, (), edge=True),
            Segment(first, full, block, ()),
            Segment(stop - tail, min(tail, 1), tail, ()),
            Segment(stop, columns - stop, 1, (), edge=True),
        ]
        return [segment for segment in cut if segment.count]

    def _inside(self, tap: int, start: int, width: int) -> Span:
        """Columns of the block at ``start`` whose tap ``tap`` lies inside the image."""
        left = self.padding[1] - tap * self.dilation[1]
        stride = self.stride[1]
        first = -(-left // stride) - start
        stop = (self.size[1] - 1 + left) // stride + 1 - start
        first = min(max(first, 0), width)
        return first, max(first, min(stop, width))


@contextmanager
def outside(e: Emitter, name: str, inside: Range, kernel: int) -> Iterator[Expr]:
    """A loop over the taps of ``kernel`` that are not ``inside``; a number below zero there means none."""
    first, count = inside[0], tirx.max(index(inside[1]), index(0))
    with e.loop(name, 0, kernel - count) as number:
        yield e.bind(name, tirx.Select(number < first, number, number + count))


@dataclass(frozen=True)
class Segment:
    """Equal blocks of output columns, side by side.

    Attributes:
        start: First column of the first block.
        count: Number of blocks.
        width: Columns of a block.
        taps: For each kernel column, the columns of a block (first, stop) for which it lies inside the image.
            Empty where kernel columns are a loop, and all that the loop visits lie inside.
        edge: Whether the bounds of that loop depend on the column.
    """

    start: int
    count: int
    width: int
    taps: tuple[Span, ...]
    edge: bool = False

    def runs(self, mergeable: bool, keep_empty: bool = False) -> list[tuple[int, int, range]]:
        """(first tap, taps, columns) of neighbouring taps that serve the same columns.

        Args:
            mergeable: Whether neighbouring taps are neighbours in memory.
            keep_empty: Whether to tell of taps that serve no columns.
        """
        found: list[tuple[int, int, range]] = []
        for tap, (first, stop) in enumerate(self.taps):
            columns = range(first, stop)
            if not columns and not keep_empty:
                continue
            if mergeable and found and found[-1][2] == columns and sum(found[-1][:2]) == tap:
                found[-1] = (found[-1][0], found[-1][1] + 1, columns)
            else:
                found.append((tap, 1, columns))
        return found
