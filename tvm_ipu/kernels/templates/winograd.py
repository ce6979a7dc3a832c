"""3x3 convolution in NHWC by Winograd's minimal filtering, weights transformed and packed at compile time.

The output is cut into tiles of ``outputs`` x ``outputs`` pixels. A unit of work is a block of tiles by some
blocks of output channels. It transforms the tiles' inputs into scratch memory, multiplies the resulting
matrices, one for each of ``points`` x ``points`` places, with the weights in register tiles, and transforms
the products back, with the epilogue in registers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.dot import Dot, plain_dot
from tvm_ipu.kernels.emit import Emitter, flat_buffer, index, item_bytes, zero
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.memory import span
from tvm_ipu.kernels.registers import RegisterTile, column_widths
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.window import Window
from tvm_ipu.kernels.winograd import TAPS, operations, transform_inputs, transform_outputs

DTYPE = "float32"
"""Type of the transformed inputs and weights, and of the accumulators."""


@dataclass(frozen=True)
class Problem:
    """Convolution of ``[batch, height, width, depth]``.

    Attributes:
        window: Geometry; kernel 3x3, stride and dilation 1.
        depth: Input channels.
        channels: Output channels.
        outputs: Output rows and columns of a tile.
        lanes: Output channels of a panel of weights.
        left: Type of the image.
        pitch: Elements from one pixel of the image to the next; 0 where they follow each other.
    """

    window: Window
    depth: int
    channels: int
    outputs: int
    lanes: int
    left: str
    pitch: int = 0

    @property
    def left_pitch(self) -> int:
        """Elements from one pixel of the image to the next."""
        return self.pitch or self.depth

    def dot(self, target: Target) -> Dot:
        """The target's way to multiply."""
        return plain_dot(DTYPE, DTYPE, target)

    @property
    def points(self) -> int:
        """Rows and columns of a transformed tile."""
        return self.outputs + TAPS - 1

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles along the rows and the columns of an output image."""
        rows, columns = (math.ceil(size / self.outputs) for size in self.window.output)
        return rows, columns

    @property
    def tiles(self) -> int:
        """Tiles of all output images."""
        return self.window.batch * math.prod(self.grid)


@dataclass(frozen=True)
class Decision:
    """How to cut it.

    Attributes:
        rows: Image tiles of a register tile.
        vectors: Vectors of output channels in it.
        row_blocks: Register tiles along the image tiles of a unit.
        channel_blocks: Blocks of output channels of a unit.
    """

    rows: int
    vectors: int
    row_blocks: int
    channel_blocks: int

    def cut(self, problem: Problem) -> tuple[Blocks, Blocks]:
        """Blocks of image tiles, and blocks of channels."""
        block = self.vectors * problem.lanes
        return Blocks(problem.tiles, self.rows * self.row_blocks), Blocks(
            problem.channels, block, self.channel_blocks
        )


def applies(window: Window, groups: int) -> bool:
    """Whether a convolution is one that the template computes."""
    return window.kernel == (TAPS, TAPS) and window.stride == window.dilation == (1, 1) and groups == 1


def space(problem: Problem, target: Target) -> list[Decision]:
    """Decisions worth trying, the one that the model prefers first."""
    panels = math.ceil(problem.channels / problem.lanes)
    shapes = {
        (min(rows, problem.tiles), min(vectors, panels))
        for rows, vectors in core_model.tile_shapes(target, problem.dot(target))
    }
    ranked = sorted(shapes, key=lambda s: (_multiply(problem, Decision(s[0], s[1], 1, 1), target), s))[:8]
    decisions = [
        Decision(rows, vectors, row_blocks, channel_blocks)
        for rows, vectors in ranked
        for row_blocks in range(1, math.ceil(problem.tiles / rows) + 1)
        if row_blocks == 1 or _scratch_bytes(problem, rows * row_blocks, vectors) <= target.l2_bytes
        for channel_blocks in core_model.per_unit(math.ceil(panels / vectors))
    ]
    return sorted(decisions, key=lambda d: cycles(problem, d, target))


def cycles(problem: Problem, decision: Decision, target: Target) -> float:
    """Modelled cycles on all cores of the target together."""
    p = problem
    blocks, channels = decision.cut(p)
    places, each = p.points**2, operations(p.outputs)
    vectors = math.ceil(p.depth / p.lanes)
    per_input = p.points * each + 2 * places + core_model.TILE_OVERHEAD
    per_output = (p.points + p.outputs) * each / 2 + places + p.outputs**2 + core_model.TILE_OVERHEAD
    compute = (
        _multiply(p, decision, target)
        + blocks.count * blocks.block * channels.units * vectors * per_input
        + blocks.count * blocks.block * math.ceil(p.channels / p.lanes) * per_output
    )
    item = item_bytes(DTYPE)
    block = _scratch_bytes(p, blocks.block, decision.vectors)
    weights = item * places * p.depth * channels.size
    resident = weights + block <= 0.9 * target.l2_bytes
    from_l3 = 0.0 if resident else weights * blocks.count
    if block > 0.9 * target.l2_bytes:
        from_l3 += blocks.count * channels.count * block
    from_l2 = blocks.count * (weights * decision.row_blocks + channels.count * 2 * block)
    traffic = from_l3 / core_model.L3_BYTES_PER_CYCLE + from_l2 / core_model.L2_BYTES_PER_CYCLE
    filled = Blocks(p.tiles, decision.rows, decision.row_blocks).filled * channels.filled
    units = blocks.units * channels.units
    return core_model.overlapped(compute, traffic) * core_model.imbalance(units, target.cores, filled)


def _multiply(problem: Problem, decision: Decision, target: Target) -> float:
    """Cycles of the products."""
    _, channels = decision.cut(problem)
    rows = [(decision.rows, math.ceil(problem.tiles / decision.rows))]
    columns = [(math.ceil(width / problem.lanes), n) for width, n in channels.pieces()]
    return problem.points**2 * core_model.compute_cycles(rows, columns, problem.depth, problem.dot(target))


def _scratch_bytes(problem: Problem, block: int, vectors: int) -> int:
    """Bytes of the transformed inputs of a block of tiles, and of its products with a block of channels."""
    return item_bytes(DTYPE) * problem.points**2 * block * (problem.depth + vectors * problem.lanes)


def emit(problem: Problem, decision: Decision, epilogue: Epilogue, target: Target) -> Kernel:
    """The kernel: parameters are the image, the weights and the epilogue's buffers."""
    p = problem
    blocks, channels = decision.cut(p)
    extent = blocks.units * channels.units
    body = _Body(p, decision, epilogue)
    e = body.e
    with e.loop("unit", 0, extent, tirx.ForKind.PARALLEL) as unit:
        body.allocate()
        first = e.bind("first", tirx.floordiv(unit, channels.units) * blocks.block)
        count = e.bind("count", tirx.min(index(blocks.block), p.tiles - first))
        with e.loop("slot", 0, count) as slot:
            body.transform_input(slot, first + slot)

        def block(channel: Expr, width: int) -> None:
            body.multiply(count, channel, width)
            with e.loop("slot", 0, count) as slot:
                body.transform_output(slot, first + slot, channel, width)

        channels.emit(e, "channel", e.bind("channel_unit", tirx.floormod(unit, channels.units)), block)
    func = tirx.PrimFunc([body.left, body.right, *epilogue.buffers], e.finish())
    flops = 2 * p.tiles * p.points**2 * p.depth * p.channels + epilogue.flops
    return Kernel(func, extent, core_model.grain(cycles(p, decision, target), extent), flops)


class _Body:
    """Statements inside a unit.

    The transformed inputs are ``[places, tiles of the block, depth]``, the products ``[places, tiles of the
    block, channels of the block]``.
    """

    def __init__(self, problem: Problem, decision: Decision, epilogue: Epilogue) -> None:
        p, window = problem, problem.window
        self.e = Emitter()
        self._p = p
        self._rows = decision.rows
        self._epilogue = epilogue
        self._places = p.points**2
        self._block = decision.rows * decision.row_blocks
        self._pitch = p.depth + p.lanes  # lines of a tile begin in different sets of the level-1 cache
        self._width = decision.vectors * p.lanes
        panels = math.ceil(p.channels / p.lanes)
        size = span((window.batch, *window.size, p.depth), p.left_pitch)
        self.left = flat_buffer("left", size, p.left)
        self.right = flat_buffer("right", panels * self._places * p.depth * p.lanes, DTYPE)

    def allocate(self) -> None:
        """Scratch memory of a unit."""
        size = self._places * self._block
        self._inputs = self.e.alloc("inputs", size * self._pitch, DTYPE, "global")
        self._products = self.e.alloc("products", size * self._width, DTYPE, "global")

    def _locate(self, tile: Expr) -> tuple[Expr, Expr, Expr]:
        """Image of a tile, and its first output row and column."""
        e, (rows, columns) = self.e, self._p.grid
        image = e.bind("image", tirx.floordiv(tile, rows * columns))
        y = tirx.floormod(tirx.floordiv(tile, columns), rows) * self._p.outputs
        x = tirx.floormod(tile, columns) * self._p.outputs
        return image, e.bind("y", y), e.bind("x", x)

    def transform_input(self, slot: Expr, tile: Expr) -> None:
        """Transform the inputs of one tile; what lies outside the image is zero."""
        e, p, (height, width) = self.e, self._p, self._p.window.size
        image, y, x = self._locate(tile)
        top = e.bind("top", y - p.window.padding[0])
        left = e.bind("left_column", x - p.window.padding[1])
        base = e.bind("tile_at", ((image * height + top) * width + left) * p.left_pitch)
        rows = self._range("row", top, height)
        columns = self._range("column", left, width)
        inside = e.bind("inside", tirx.all(rows[1] == p.points, columns[1] == p.points))

        def straight(channel: Expr, lanes: int) -> None:
            pitch = p.left_pitch
            self._store_inputs(slot, channel, lanes, self.left, base + channel, width * pitch, pitch)

        def patched(channel: Expr, lanes: int) -> None:
            patch = e.alloc("patch", self._places * lanes, DTYPE)
            for place in range(self._places):
                e.store(patch, place * lanes, zero(DTYPE, lanes), lanes)
            with e.loop("i", *rows) as i, e.loop("j", *columns) as j:
                value = e.load_as(DTYPE, self.left, base + (i * width + j) * p.left_pitch + channel, lanes)
                e.store(patch, (i * p.points + j) * lanes, value, lanes)
            self._store_inputs(slot, channel, lanes, patch, index(0), p.points * lanes, lanes)

        vectors = Blocks(p.depth, p.lanes, math.ceil(p.depth / p.lanes))
        with e.when(inside):
            vectors.emit(e, "vector", 0, straight)
        with e.when(tirx.Not(inside)):
            vectors.emit(e, "vector", 0, patched)

    def _range(self, name: str, start: Expr, size: int) -> tuple[Expr, Expr]:
        """First row or column of a tile at ``start`` that lies inside the image, and how many do."""
        e, points = self.e, self._p.points
        first = e.bind(f"{name}_first", tirx.max(index(0), -start))
        stop = tirx.min(index(points), size - start)
        return first, e.bind(f"{name}_count", tirx.max(index(0), stop - first))

    def _store_inputs(
        self, slot: Expr, channel: Expr, lanes: int, source: tirx.Buffer, at: Expr, row: int, column: int
    ) -> None:
        """Transform one vector of channels, with the tile's elements ``row`` and ``column`` apart."""
        e, p = self.e, self._p
        at = e.bind("source_at", at)
        to = e.bind("inputs_at", slot * self._pitch + channel)
        half = e.alloc("half", self._places * lanes, DTYPE)
        with e.loop("j", 0, p.points) as j:
            values = [
                e.bind("d", e.load_as(DTYPE, source, at + (i * row + j * column), lanes))
                for i in range(p.points)
            ]
            for i, value in enumerate(transform_inputs(e, p.outputs, values)):
                e.store(half, (i * p.points + j) * lanes, value, lanes)
        with e.loop("i", 0, p.points) as i:
            values = [e.bind("d", e.load(half, (i * p.points + j) * lanes, lanes)) for j in range(p.points)]
            for j, value in enumerate(transform_inputs(e, p.outputs, values)):
                place = (i * p.points + j) * (self._block * self._pitch)
                e.store(self._inputs, to + place, value, lanes)

    def multiply(self, count: Expr, channel: Expr, width: int) -> None:
        """Products of the block's tiles with the weights of ``width`` channels from ``channel`` on."""
        e, p = self.e, self._p
        panel = self._places * p.depth * p.lanes
        weights = e.bind("weights_at", channel * (self._places * p.depth))
        widths = [p.lanes] * len(column_widths(width, p.lanes))
        with e.loop("place", 0, self._places) as place:
            right = e.bind("right_at", weights + place * (p.depth * p.lanes))
            with e.loop("row", 0, tirx.floordiv(count + (self._rows - 1), self._rows)) as number:
                first = e.bind("first_slot", place * self._block + number * self._rows)
                left = e.bind("left_at", first * self._pitch)
                registers = RegisterTile(e, self._rows, widths, p.lanes, DTYPE)
                with e.loop("k", 0, p.depth) as k:
                    registers.add_outer_product(
                        lambda m: e.load(self._inputs, left + k + m * self._pitch),
                        lambda v: e.load_stream(self.right, right + v * panel + k * p.lanes, p.lanes),
                    )
                for m in range(self._rows):
                    for v in range(len(widths)):
                        value = e.load(registers.buffer, registers.at(m, v), p.lanes)
                        e.store(self._products, (first + m) * self._width + v * p.lanes, value, p.lanes)

    def transform_output(self, slot: Expr, tile: Expr, channel: Expr, width: int) -> None:
        """Transform the products of one tile back and finish its outputs."""
        e, p, (height, columns) = self.e, self._p, self._p.window.output
        image, y, x = self._locate(tile)
        widths = column_widths(width, p.lanes)
        half = e.alloc("half", len(widths) * p.outputs * p.points * p.lanes, DTYPE)

        def half_at(v: int, row: Expr | int, place: Expr | int) -> Expr:
            return ((row * len(widths) + v) * p.points + place) * p.lanes

        products = e.bind("products_at", slot * self._width)
        for v in range(len(widths)):
            with e.loop("j", 0, p.points) as j:
                values = [
                    e.bind(
                        "m",
                        e.load(
                            self._products,
                            products + (i * p.points + j) * (self._block * self._width) + v * p.lanes,
                            p.lanes,
                        ),
                    )
                    for i in range(p.points)
                ]
                for i, value in enumerate(transform_outputs(e, p.outputs, values)):
                    e.store(half, half_at(v, i, j), value, p.lanes)

        def finish(pixels: int) -> None:
            with e.loop("i", 0, tirx.min(index(p.outputs), height - y)) as i:
                start = e.bind("start", (image * height + y + i) * columns)
                registers = RegisterTile(e, pixels, widths, p.lanes, DTYPE)
                for v in range(len(widths)):
                    values = [e.bind("m", e.load(half, half_at(v, i, j), p.lanes)) for j in range(p.points)]
                    for m, value in enumerate(transform_outputs(e, p.outputs, values)[:pixels]):
                        e.store(registers.buffer, registers.at(m, v), value, p.lanes)
                self._epilogue.emit(
                    e, registers, start + x, channel, lambda pixel: (image, y + i, pixel - start)
                )

        tail = columns % p.outputs
        if not tail:
            finish(p.outputs)
            return
        with e.when(x + p.outputs <= columns):
            finish(p.outputs)
        with e.when(x + p.outputs > columns):
            finish(tail)
