"""Depthwise 2-D convolution in NHWC: vectors hold neighbouring channels, register tiles neighbouring columns.

A unit of work is some output rows, of one block of channels where the image is small enough to stay in the
level-2 cache, or else of all channels, so that memory is read in its order. For each kernel row, every
input vector is loaded once and used by all taps that need it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.computes import pad_constant
from tvm_ipu.kernels.emit import Emitter, broadcast, flat_buffer, index, item_bytes
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.memory import span
from tvm_ipu.kernels.registers import RegisterTile, column_widths
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.window import Segment, Window, outside


@dataclass(frozen=True)
class Problem:
    """Depthwise convolution of ``[batch, height, width, channels]``.

    Attributes:
        window: Geometry.
        channels: Channels.
        lanes: Channels of a panel of weights.
        left: Type of the image.
        right: Type of the weights.
        dtype: Type of the accumulators.
        pitch: Elements from one pixel of the image to the next; 0 where they follow each other.
        pad_value: What the padding of the image holds.
    """

    window: Window
    channels: int
    lanes: int
    left: str
    right: str
    dtype: str
    pitch: int = 0
    pad_value: float = 0

    @property
    def left_pitch(self) -> int:
        """Elements from one pixel of the image to the next."""
        return self.pitch or self.channels


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        columns: Output columns of a register tile.
        vectors: Vectors of channels in it.
        row_blocks: Output rows of a unit.
        all_channels: Whether a unit runs through all channels for each tile's columns, not through its rows
            for one block of channels.
    """

    columns: int
    vectors: int
    row_blocks: int
    all_channels: bool

    def cut(self, problem: Problem) -> tuple[Blocks, Blocks]:
        """Output rows, and blocks of channels."""
        rows = Blocks(problem.window.output_rows, 1, self.row_blocks)
        block = self.vectors * problem.lanes
        return rows, Blocks(
            problem.channels, block, math.ceil(problem.channels / block) if self.all_channels else 1
        )


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    taps = problem.window.kernel[1]
    panels = math.ceil(problem.channels / problem.lanes)
    shapes = {
        (min(columns, problem.window.output[1]), min(vectors, panels))
        for vectors in (1, 2, 4)
        for columns in range(1, 17)
        if vectors * (columns + taps + 1) <= target.vector_registers or vectors == columns == 1
    }
    image = item_bytes(problem.left) * math.prod(problem.window.size) * problem.channels
    decisions = [
        Decision(*shape, rows, all_channels)
        for shape in sorted(shapes)
        for rows in core_model.per_unit(problem.window.output_rows)
        for all_channels in (False, True)
    ]
    is_large = image > target.l2_bytes
    return sorted(decisions, key=lambda d: (d.all_channels != is_large, cycles(problem, d, target)))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    window = problem.window
    rows, channels = decision.cut(problem)
    taps, stride = window.kernel[1], window.stride[1]
    row = 0.0
    for width, count in Blocks(window.output[1], decision.columns).pieces():
        inputs = min(width * taps, (width - 1) * stride + taps)
        line = max(width * taps / 2, (inputs + taps) / 2, core_model.LATENCY) * decision.vectors
        row += count * (window.kernel[0] * (line + 4) + core_model.TILE_OVERHEAD + width * decision.vectors)
    line_bytes = item_bytes(problem.left) * window.size[1] * channels.block * channels.per_unit
    fits = window.kernel[0] * line_bytes <= 0.8 * target.l1_bytes
    lines = (
        (rows.per_unit - 1) * window.stride[0] + window.kernel[0]
        if fits
        else rows.per_unit * window.kernel[0]
    )
    unit = (
        rows.per_unit * row * channels.per_unit
        + lines * line_bytes / core_model.L2_BYTES_PER_CYCLE
        + core_model.TILE_OVERHEAD
    )
    # a thread's units are neighbouring rows, as in the kernel that made the image: they are in its cache
    return unit * rows.units * channels.units * core_model.imbalance(rows.units, target.cores)


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the image, the weights and the epilogue's buffers."""
    p, window = problem, problem.window
    rows, channels = decision.cut(p)
    body = _Body(problem, decision, epilogue)
    e = body.e
    extent = rows.units * channels.units
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        row_unit = e.bind("row_unit", tirx.floordiv(unit, channels.units))
        channel_unit = e.bind("channel_unit", tirx.floormod(unit, channels.units))
        if decision.all_channels:
            rows.emit(e, "row", row_unit, lambda row, _: body.output_row(row, channels, index(0)))
        else:
            channels.emit(
                e,
                "channel",
                channel_unit,
                lambda channel, width: rows.emit(
                    e, "row", row_unit, lambda row, _: body.output_row(row, Blocks(width, width), channel)
                ),
            )
    func = tirx.PrimFunc([body.left, body.right, *epilogue.buffers], e.finish())
    products = rows.size * window.output[1] * p.channels * math.prod(window.kernel)
    grain = core_model.grain(cycles(p, decision, target), extent)
    return Kernel(func, extent, grain, 2 * products + epilogue.flops)


class _Body:
    """Statements inside a unit."""

    def __init__(self, problem: Problem, decision: Decision, epilogue: Epilogue) -> None:
        p, window = problem, problem.window
        self.e = Emitter()
        self._p = p
        self._epilogue = epilogue
        self._panel = math.prod(window.kernel) * p.lanes
        self._segments = window.segments(decision.columns)
        panels = math.ceil(p.channels / p.lanes)
        self.left = flat_buffer("left", span((window.batch, *window.size, p.channels), p.left_pitch), p.left)
        self.right = flat_buffer("right", panels * self._panel, p.right)

    def output_row(self, row: Expr, channels: Blocks, first: Expr) -> None:
        """One output row for ``channels``, counted from ``first`` on."""
        e, p, window = self.e, self._p, self._p.window
        image, y = window.locate(e, row)
        kernel_rows = window.kernel_rows(e, y)
        first_row = image * window.size[0] + y * window.stride[0] - window.padding[0]
        left = e.bind("row_at", first_row * (window.size[1] * p.left_pitch) + first)
        start = e.bind("start", row * window.output[1])
        tap_pitch = window.dilation[1] * p.left_pitch

        def tile(segment: Segment, x: Expr, channel: Expr, width: int) -> None:
            registers = RegisterTile(e, segment.width, column_widths(width, p.lanes), p.lanes, p.dtype)
            at = left + (x * window.stride[1] - window.padding[1]) * p.left_pitch + channel
            at = e.bind("x_at", at)
            right = e.bind("weights_at", (first + channel) * math.prod(window.kernel))
            columns = window.kernel_columns(e, segment, x)
            everywhere = range(segment.width)
            with e.loop("kh", *kernel_rows) as kh:
                line = e.bind("left_at", at + kh * (window.dilation[0] * window.size[1] * p.left_pitch))
                weights = e.bind("right_at", right + kh * (window.kernel[1] * p.lanes))
                if segment.taps:
                    self._line(registers, segment, line, weights)
                else:
                    with e.loop("kw", *columns) as kw:
                        self._tap(registers, e.bind("tap_at", line + kw * tap_pitch), weights + kw * p.lanes)
                    if p.pad_value and segment.edge:
                        with outside(e, "kw", columns, window.kernel[1]) as kw:
                            self._padding(registers, weights + kw * p.lanes, everywhere)
            if p.pad_value and not isinstance(kernel_rows[1], int):
                rows = outside(e, "kh", kernel_rows, window.kernel[0])
                with rows as kh, e.loop("kw", 0, window.kernel[1]) as kw:
                    tap = right + (kh * window.kernel[1] + kw) * p.lanes
                    self._padding(registers, e.bind("right_at", tap), everywhere)
            self._epilogue.emit(
                e, registers, start + x, first + channel, lambda pixel: (image, y, pixel - start)
            )

        for segment in self._segments:
            with e.loop("block", 0, segment.count) as block:
                x = e.bind("x", block * segment.width + segment.start)
                channels.emit(e, "block_channel", 0, partial(tile, segment, x))

    def _line(self, tile: RegisterTile, segment: Segment, left: Expr, right: Expr) -> None:
        """Add one kernel row's products."""
        e, p, window = self.e, self._p, self._p.window
        products: dict[int, list[tuple[int, int]]] = {}
        for tap, (first, stop) in enumerate(segment.taps):
            for m in range(first, stop):
                products.setdefault(m * window.stride[1] + tap * window.dilation[1], []).append((m, tap))
        for v, width in enumerate(tile.widths):
            weights = [
                e.bind("w", e.load_as(p.dtype, self.right, right + v * self._panel + tap * p.lanes, width))
                for tap in range(window.kernel[1])
            ]
            for column, pairs in sorted(products.items()):
                at = left + (column * p.left_pitch + v * p.lanes)
                value = e.bind("x", e.load_as(p.dtype, self.left, at, width))
                for m, tap in pairs:
                    tile.add_product(m, v, value, weights[tap])
        for tap, (first, stop) in enumerate(segment.taps):
            columns = [m for m in range(tile.rows) if not first <= m < stop]
            if p.pad_value and columns:
                self._padding(tile, right + tap * p.lanes, columns)

    def _padding(self, tile: RegisterTile, right: Expr, columns: Sequence[int]) -> None:
        """Add the products of a tap that lies in the padding for ``columns``."""
        e, p = self.e, self._p
        for v, width in enumerate(tile.widths):
            weight = e.bind("w", e.load_as(p.dtype, self.right, right + v * self._panel, width))
            value = broadcast(pad_constant(p.pad_value, p.dtype), width)
            for m in columns:
                tile.add_product(m, v, value, weight)

    def _tap(self, tile: RegisterTile, left: Expr, right: Expr) -> None:
        """Add one kernel column's products, for a kernel so wide that its columns are a loop."""
        e, p = self.e, self._p
        for v, width in enumerate(tile.widths):
            weight = e.bind("w", e.load_as(p.dtype, self.right, right + v * self._panel, width))
            for m in range(tile.rows):
                at = left + (m * p.window.stride[1] * p.left_pitch + v * p.lanes)
                tile.add_product(m, v, e.load_as(p.dtype, self.left, at, width), weight)
