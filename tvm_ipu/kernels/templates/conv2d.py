"""2-D convolution in NHWC as an implicit matrix product with packed weights, in any number of groups.

A register tile holds neighbouring columns of one output row. A unit of work is some output rows by some
column blocks of one group; inside, the weights of a column block are reused by all rows of the unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model
from tvm_ipu.kernels.ahead import FEWEST_TILES, Ahead, ahead, lines_ahead
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.computes import pad_constant
from tvm_ipu.kernels.digits import register_tile
from tvm_ipu.kernels.dot import Dot, load_group
from tvm_ipu.kernels.emit import Emitter, Index, broadcast, flat_buffer, index, item_bytes
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.memory import span
from tvm_ipu.kernels.registers import RegisterTile, column_widths
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.window import Range, Segment, Window, outside

LEAST_LINES = 0.5
"""Where row tiles would have less to fetch, weights are few and come by themselves."""


@dataclass(frozen=True)
class Problem:
    """Convolution of ``[batch, height, width, groups * depth]``.

    Attributes:
        window: Geometry.
        groups: Groups of channels.
        depth: Input channels of a group.
        channels: Output channels of a group.
        lanes: Output channels of a panel of weights.
        left: Type of the image.
        right: Type of the weights.
        dtype: Type of the accumulators.
        pitch: Elements from one pixel of the image to the next; 0 where they follow each other.
        pad_value: What the padding of the image holds.
        whole_rows: Whether weights are packed along whole rows of the window, whose elements are neighbours
            in the image: one group, no padding and no dilation of columns.
    """

    window: Window
    groups: int
    depth: int
    channels: int
    lanes: int
    left: str
    right: str
    dtype: str
    pitch: int = 0
    pad_value: float = 0
    whole_rows: bool = False

    @property
    def left_pitch(self) -> int:
        """Elements from one pixel of the image to the next."""
        return self.pitch or self.groups * self.depth

    @property
    def reduction(self) -> int:
        """Products summed for one output element."""
        return math.prod(self.window.kernel) * self.depth

    def dot(self, target: Target) -> Dot:
        """The target's way to multiply."""
        return find_dot(self.left, self.right, target, self.dtype)

    def row_steps(self, dot: Dot) -> int:
        """Multiplications for one row of the window."""
        columns = self.window.kernel[1]
        return dot.steps(columns * self.depth) if self.whole_rows else columns * dot.steps(self.depth)


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        columns: Output columns of a register tile.
        vectors: Vectors of output channels in it.
        row_blocks: Output rows of a unit.
        channel_blocks: Blocks of output channels of a unit.
        fetch: Whether weights are fetched ahead, where there are enough of them.
    """

    columns: int
    vectors: int
    row_blocks: int
    channel_blocks: int
    fetch: bool = True

    def cut(self, problem: Problem) -> tuple[Blocks, Blocks]:
        """Output rows, and channel blocks of a group."""
        rows = Blocks(problem.window.output_rows, 1, self.row_blocks)
        return rows, Blocks(problem.channels, self.vectors * problem.lanes, self.channel_blocks)


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    panels = math.ceil(problem.channels / problem.lanes)
    shapes = {
        (min(columns, problem.window.output[1]), min(vectors, panels))
        for columns, vectors in core_model.tile_shapes(target, problem.dot(target))
    }
    costs = {shape: _compute(problem, Decision(*shape, 1, 1), target) for shape in shapes}
    ranked = sorted(shapes, key=lambda shape: (costs[shape], shape))[:8]
    decisions = [
        Decision(columns, vectors, row_blocks, channel_blocks)
        for columns, vectors in ranked
        for row_blocks in core_model.per_unit(problem.window.output_rows)
        for channel_blocks in core_model.per_unit(math.ceil(panels / vectors))
    ]
    found = [(_cycles(problem, d, target, costs[d.columns, d.vectors]), d) for d in decisions]
    both = [(total, replace(d, fetch=fetch)) for fetch in (True, False) for total, d in found]
    return [d for _, d in sorted(both, key=lambda one: (one[0], not one[1].fetch))]


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    return _cycles(problem, decision, target, _compute(problem, decision, target))


def _cycles(problem: Problem, decision: Decision, target: Target, compute: float) -> float:
    """The same with what the register tiles take, however they make units."""
    p = problem
    rows, channels = decision.cut(p)
    read = [
        min(1.0, kernel / stride) for kernel, stride in zip(p.window.kernel, p.window.stride, strict=True)
    ]
    row_bytes = item_bytes(p.left) * p.window.size[1] * p.depth * read[1]
    right = p.dot(target).right_bytes * p.reduction
    in_unit = rows.per_unit * p.window.stride[0] * read[0] + max(p.window.kernel[0] - p.window.stride[0], 0)
    blocks = math.ceil(p.window.output[1] / decision.columns)
    traffic = core_model.Traffic(
        left=row_bytes * p.window.size[0] * p.window.batch * read[0],
        right=right * p.channels,
        left_unit=row_bytes * in_unit,
        left_tile=row_bytes * p.window.kernel[0] / blocks,
        right_block=right * channels.block,
        row_units=rows.units,
        row_tiles=rows.count * blocks,
        column_blocks=channels.count,
    )
    total = p.groups * core_model.overlapped(compute, traffic.cycles(target))
    return total * core_model.imbalance(
        p.groups * rows.units * channels.units, target.cores, rows.filled * channels.filled
    )


def _compute(problem: Problem, decision: Decision, target: Target) -> float:
    rows, channels = decision.cut(problem)
    columns = Blocks(problem.window.output[1], decision.columns).pieces()
    vectors = [(math.ceil(width / problem.lanes), n) for width, n in channels.pieces()]
    pitch = problem.window.stride[1] * problem.left_pitch * item_bytes(problem.left)
    dot = problem.dot(target)
    steps = problem.window.kernel[0] * problem.row_steps(dot)
    total = rows.size * core_model.compute_cycles(columns, vectors, steps, dot)
    return total * core_model.conflicts(decision.columns, pitch, target)


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the image, the weights and the epilogue's buffers."""
    rows, channels = decision.cut(problem)
    units = channels.units * problem.groups
    extent = rows.units * units
    body = _Body(problem, decision, epilogue, problem.dot(target))
    e = body.e
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        row_unit = e.bind("row_unit", tirx.floordiv(unit, units))
        rest = e.bind("rest", tirx.floormod(unit, units))
        group = e.bind("group", tirx.floordiv(rest, channels.units)) if problem.groups > 1 else index(0)
        channel_unit = e.bind("channel_unit", tirx.floormod(rest, channels.units))
        channels.emit(
            e,
            "channel",
            channel_unit,
            lambda channel, width: rows.emit(
                e, "row", row_unit, lambda row, _: body.output_row(row, group, channel, width)
            ),
        )
    func = tirx.PrimFunc([body.left, body.right, *epilogue.buffers], e.finish())
    outputs = rows.size * problem.window.output[1] * problem.groups * problem.channels
    flops = 2 * outputs * problem.reduction + epilogue.flops
    return Kernel(func, extent, core_model.grain(cycles(problem, decision, target), extent), flops)


class _Body:
    """Statements inside a unit."""

    def __init__(self, problem: Problem, decision: Decision, epilogue: Epilogue, dot: Dot) -> None:
        p, window = problem, problem.window
        self.e = Emitter()
        self._p = p
        self._epilogue = epilogue
        self._pitch = p.left_pitch
        self._dot = dot
        self._tap_panel = dot.steps(p.depth) * dot.panel
        self._row_panel = p.row_steps(dot) * dot.panel
        self._panel = window.kernel[0] * self._row_panel
        self._segments = window.segments(decision.columns)
        rows, _ = decision.cut(p)
        self._rows_per_unit = min(rows.per_unit, rows.size)
        self._fetch = decision.fetch
        panels = math.ceil(p.channels / p.lanes)
        self.left = flat_buffer(
            "left", span((window.batch, *window.size, p.groups * p.depth), self._pitch), p.left
        )
        self.right = flat_buffer("right", p.groups * panels * self._panel, dot.stored or p.right)

    def output_row(self, row: Expr, group: Expr, channel: Expr, width: int) -> None:
        """One output row for ``width`` channels of a group from ``channel`` on."""
        e, p, window = self.e, self._p, self._p.window
        image, y = window.locate(e, row)
        kernel_rows = window.kernel_rows(e, y)
        first_row = image * window.size[0] + y * window.stride[0] - window.padding[0]
        left = e.bind("row_at", first_row * (window.size[1] * self._pitch) + group * p.depth)
        panels = math.ceil(p.channels / p.lanes)
        right = e.bind("weights_at", group * (panels * self._panel) + channel * (self._panel // p.lanes))
        start = row * window.output[1]
        out_channel = e.bind("out_channel", group * p.channels + channel)

        def coordinates(pixel: Expr) -> tuple[Expr, ...]:
            return image, y, pixel - start

        first_tile: Index = tirx.floormod(row, self._rows_per_unit) * self._tiles_per_row
        for segment in self._segments:
            with e.loop("block", 0, segment.count) as block:
                x = e.bind("x", block * segment.width + segment.start)
                widths = column_widths(width, p.lanes)
                tile = register_tile(e, segment.width, widths, p.lanes, self._dot, p.reduction)
                at = left + (x * window.stride[1] - window.padding[1]) * self._pitch
                taps = window.kernel_columns(e, segment, x)
                fetch = self._ahead(right, len(widths), first_tile + block)
                self._accumulate(tile, segment, kernel_rows, taps, e.bind("left_at", at), right, fetch)
                self._epilogue.emit(e, tile, e.bind("pixel", start + x), out_channel, coordinates)
            first_tile = first_tile + segment.count

    @property
    def _tiles_per_row(self) -> int:
        return sum(segment.count for segment in self._segments)

    def _ahead(self, right: Expr, vectors: int, tile: Expr) -> Ahead | None:
        """What a tile fetches of the next channel block's weights; those of its own start at ``right``."""
        e, dot = self.e, self._dot
        row_tiles = self._rows_per_unit * self._tiles_per_row
        lines = lines_ahead(dot, vectors, row_tiles)
        if not self._fetch or row_tiles < FEWEST_TILES or lines < LEAST_LINES:
            return None
        return ahead(e, self.right, dot, right, vectors, self._panel // dot.panel, tile, lines)

    def _accumulate(
        self,
        tile: RegisterTile,
        segment: Segment,
        kernel_rows: Range,
        taps: Range,
        left: Expr,
        right: Expr,
        fetch: Ahead | None,
    ) -> None:
        """Run through the window: its rows are a loop, its columns are one where ``segment`` says so."""
        e, p, window = self.e, self._p, self._p.window
        with e.loop("kh", *kernel_rows) as kh:
            line = window.dilation[0] * window.size[1] * self._pitch
            left_at = e.bind("line_at", left + kh * line)
            right_at = e.bind("right_at", right + kh * self._row_panel)
            self._row(tile, segment, taps, left_at, right_at, fetch)
        if p.pad_value and not isinstance(kernel_rows[1], int):
            rows = outside(e, "kh", kernel_rows, window.kernel[0])
            with rows as kh, e.loop("kw", 0, window.kernel[1]) as kw:
                right_at = right + (kh * self._row_panel + kw * self._tap_panel)
                self._run(tile, left, e.bind("right_at", right_at), p.depth, range(0))

    def _row(
        self,
        tile: RegisterTile,
        segment: Segment,
        taps: Range,
        left: Expr,
        right: Expr,
        fetch: Ahead | None,
    ) -> None:
        """Add the products of one row of the window."""
        e, p, window = self.e, self._p, self._p.window
        tap_pitch = window.dilation[1] * self._pitch
        everywhere = range(tile.rows)
        if p.whole_rows:
            self._run(tile, left, right, window.kernel[1] * p.depth, everywhere, fetch)
        elif segment.taps:
            mergeable = self._pitch == p.depth and window.dilation[1] == 1 and p.depth % self._dot.unit == 0
            for tap, count, columns in segment.runs(mergeable, keep_empty=p.pad_value != 0):
                right_tap = right + tap * self._tap_panel
                self._run(tile, left + tap * tap_pitch, right_tap, count * p.depth, columns, fetch)
        else:
            with e.loop("kw", *taps) as kw:
                left_kw = e.bind("left_kw", left + kw * tap_pitch)
                self._run(
                    tile, left_kw, e.bind("right_kw", right + kw * self._tap_panel), p.depth, everywhere
                )
            if p.pad_value and segment.edge:
                with outside(e, "kw", taps, window.kernel[1]) as kw:
                    right_kw = e.bind("right_kw", right + kw * self._tap_panel)
                    self._run(tile, left, right_kw, p.depth, range(0))

    def _run(
        self,
        tile: RegisterTile,
        left: Expr,
        right: Expr,
        length: int,
        columns: range,
        fetch: Ahead | None = None,
    ) -> None:
        """Add the products along ``length`` neighbouring elements of the image.

        Args:
            tile: Sums.
            left: The first element for the tile's first column.
            right: Its weights.
            length: Number of elements.
            columns: Columns for which these lie inside the image; the others meet padding.
            fetch: What is fetched meanwhile.
        """
        e, p, dot = self.e, self._p, self._dot
        column_pitch = p.window.stride[1] * self._pitch
        padding = broadcast(pad_constant(p.pad_value, p.left), dot.group)
        load = e.load_stream if fetch is None else e.load
        tile.add_dots(
            dot,
            length,
            lambda m, k, count: (
                load_group(e, self.left, left + (k + m * column_pitch), count, dot.group)
                if m in columns
                else padding
            ),
            lambda v, step: load(self.right, right + (v * self._panel + step * dot.panel), dot.panel),
            None if p.pad_value else columns,
            fetch.meanwhile(right) if fetch else None,
        )
