"""Convolutions and matrix products of quantised tensors, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.ops.integer_draws import (
    ACTIVATIONS,
    BYTES,
    COUNTS,
    FILLS,
    INTEGERS,
    POWERS,
    SEEDS,
    SHARES,
    SIZES,
    Bounds,
    Tensor,
    activated,
    bounded,
    filled,
    spread,
)
from tests.ops.integer_kit import Array, Graph
from tvm_ipu.quantize import reference as ref
from tvm_ipu.quantize.reference import Meaning, Operand


@dataclass(frozen=True)
class Window:
    """The window of a convolution; padding is above, left, below, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    def flat(self) -> Window:
        """The window along the second axis only."""
        (_, k), (_, s), (_, left, _, right), (_, d) = self.kernel, self.strides, self.padding, self.dilation
        return Window((1, k), (1, s), (0, left, 0, right), (1, d))

    def grown(self, size: tuple[int, int]) -> list[int]:
        """A size that holds one window at least."""
        return [max(s, d * (k - 1) + 1) for s, k, d in zip(size, self.kernel, self.dilation, strict=True)]

    def attributes(self, axes: int) -> dict[str, Any]:
        """Attributes of a node for the last ``axes`` axes."""
        first = 2 - axes
        pads = [*self.padding[first:2], *self.padding[2 + first :]]
        return {"strides": self.strides[first:], "dilations": self.dilation[first:], "pads": pads}


@dataclass(frozen=True)
class Convolution:
    """A convolution of one of ``KINDS``, a factor for each channel after it, an activation."""

    seed: int
    kind: str
    x: Tensor
    weight_type: str
    weight_fill: str
    weight_zero: int
    batch: int
    depth: int
    channels: int
    size: tuple[int, int]
    window: Window
    per_channel: bool
    has_bias: bool
    has_factor: bool
    bounds: Bounds
    y: Tensor
    share: float

    def add(self, g: Graph) -> None:
        random, x_is = np.random.default_rng(self.seed), self.x.meaning
        axes = 1 if self.kind == "one axis" else 2
        window = self._window()
        groups, depth, channels = self._channels()
        size = window.grown((1, self.size[1]) if axes == 1 else self.size)
        x = self.x.values(random, self.batch, groups * depth, *size)
        w_shape = (channels, depth, *window.kernel)
        w = filled(random, self.weight_type, self.weight_fill, w_shape)
        zero = self.weight_zero if self.weight_type == "uint8" else 0
        centred = w.astype(np.int64) - zero
        scale = self._weight_scale(random, channels)
        bias = random.normal(size=channels).astype(np.float32)
        factor = random.choice(np.float32([-0.5, 0.25, 1, 2]), channels)
        unit = (np.float64(x_is.scale) * scale).reshape(-1, 1, 1)
        attributes = window.strides, window.padding, window.dilation, groups
        sums, wide = (
            ref.conv2d(x, x_is.zero, centred, *attributes),
            ref.is_wide(x_is, centred.reshape(channels, -1)),
        )

        def on_axes(value: Array) -> Array:
            return value.squeeze(2) if axes == 1 else value

        inputs = [g.input(on_axes(x), x_is), g.weight(on_axes(w), scale, zero)]
        has_offset = False
        if self.has_bias:
            inputs.append(g.constant(bias))
            steps = ref.quantize_bias(bias.reshape(-1, 1, 1), unit)
            ends = np.iinfo(x_is.dtype)
            reach = max(x_is.zero - ends.min, ends.max - x_is.zero)
            largest = np.abs(centred).sum((1, 2, 3)).max() * reach + np.abs(steps).max()
            has_offset = not wide and largest >= 2**30
            sums = sums if has_offset else sums + steps
        real = g.op("Conv", inputs, group=groups, **window.attributes(axes))
        if self.has_factor:
            real = g.op("Mul", [real, g.constant(factor.reshape(-1, *[1] * axes))])
            unit, bias = unit * factor.reshape(-1, 1, 1), bias * factor
        y_is = spread(self.y, sums, unit, self.share)
        result = bounded(y_is, self.bounds)
        if has_offset:
            offset = Operand(np.float64(bias).reshape(-1, 1, 1), y_is, is_constant=True)
            total = Operand(sums, Meaning("int32", unit), is_sum=True)
            expected = ref.add([total, offset], result, g.family)
        else:
            expected = ref.requantize(sums, unit / y_is.scale, result, g.family, wide)
        g.result(activated(g, real, self.bounds), y_is, on_axes(expected))

    def _channels(self) -> tuple[int, int, int]:
        """Groups, input channels of each, output channels of all."""
        return {
            "grouped": (2, self.depth, 2 * self.channels),
            "depthwise": (self.channels, 1, self.channels),
            "multiplied": (self.channels, 1, 2 * self.channels),
        }.get(self.kind, (1, self.depth, self.channels))

    def _window(self) -> Window:
        if self.kind == "pointwise":
            return replace(self.window, kernel=(1, 1))
        return self.window.flat() if self.kind == "one axis" else self.window

    def _weight_scale(self, random: np.random.Generator, channels: int) -> Any:
        """One scale, or one for each channel; a power of two with a tensor whose scale is one."""
        if not self.per_channel and self.x.scale in POWERS:
            return np.float32(2.0**-8)
        return random.uniform(0.001, 0.01, channels if self.per_channel else ()).astype(np.float32)


ZEROS_OF_BYTES = st.sampled_from([0, 3, 128, 255])
WINDOWS = st.builds(
    Window,
    kernel=st.sampled_from([(1, 1), (3, 3), (3, 3), (2, 3), (1, 4), (5, 1)]),
    strides=st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 3)]),
    padding=st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0), (2, 0, 1, 2)]),
    dilation=st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 3)]),
)
KINDS = ("dense", "pointwise", "grouped", "depthwise", "multiplied", "one axis")


def convolutions(kind: str) -> st.SearchStrategy[Convolution]:
    """Convolutions of a kind."""
    return st.builds(
        Convolution,
        seed=SEEDS,
        kind=st.just(kind),
        x=INTEGERS,
        weight_type=st.sampled_from(["int8", "int8", "uint8", "int16"]),
        weight_fill=FILLS,
        weight_zero=ZEROS_OF_BYTES,
        batch=st.integers(1, 2),
        depth=COUNTS,
        channels=COUNTS,
        size=SIZES,
        window=WINDOWS,
        per_channel=st.booleans(),
        has_bias=st.booleans(),
        has_factor=st.booleans(),
        bounds=ACTIVATIONS,
        y=INTEGERS,
        share=SHARES,
    )


@dataclass(frozen=True)
class Dense:
    """A product with a constant matrix, whose zero point counts if it is one of uint8."""

    seed: int
    is_gemm: bool
    x: Tensor
    weight_type: str
    weight_fill: str
    weight_zero: int
    rows: int
    depth: int
    units: int
    y: Tensor
    share: float

    def add(self, g: Graph) -> None:
        random, x_is = np.random.default_rng(self.seed), self.x.meaning
        zero = self.weight_zero if self.weight_type == "uint8" else 0
        x = self.x.values(random, self.rows, self.depth)
        w = self._weight(random)
        centred = w.astype(np.int64) - zero
        scale = random.uniform(0.001, 0.01, self.units).astype(np.float32)
        unit = np.float64(x_is.scale) * scale
        sums = ref.matmul(x, x_is.zero, centred)
        y_is = spread(self.y, sums, unit, self.share)
        stored, axis = (w.T.copy(), 0) if self.is_gemm else (w, 1)
        if self.weight_type == "int4":
            weight = g.weight_of_4_bits(stored, scale, axis)
        else:
            weight = g.weight(stored, scale, zero, axis)
        operands = [g.input(x, x_is), weight]
        real = g.op("Gemm", operands, transB=1) if self.is_gemm else g.op("MatMul", operands)
        wide = ref.is_wide(x_is, centred.T)
        g.result(real, y_is, ref.requantize(sums, unit / y_is.scale, y_is, g.family, wide))

    def _weight(self, random: np.random.Generator) -> Array:
        shape = (self.depth, self.units)
        if self.weight_type == "int4":
            return filled(random, "int8", self.weight_fill, shape) >> 4
        return filled(random, self.weight_type, self.weight_fill, shape)


DENSE = st.builds(
    Dense,
    seed=SEEDS,
    is_gemm=st.booleans(),
    x=INTEGERS,
    weight_type=st.sampled_from(["int8", "int8", "int8", "uint8", "int16", "int4"]),
    weight_fill=FILLS,
    weight_zero=ZEROS_OF_BYTES,
    rows=st.integers(1, 9),
    depth=st.integers(1, 200),
    units=st.one_of(COUNTS, st.integers(1, 70)),
    y=INTEGERS,
    share=SHARES,
)


FULL = st.builds(
    Dense,
    seed=SEEDS,
    is_gemm=st.booleans(),
    x=BYTES,
    weight_type=st.just("int8"),
    weight_fill=FILLS,
    weight_zero=st.just(0),
    rows=st.integers(16, 40),
    depth=st.sampled_from([64, 128, 192]),
    units=st.integers(16, 64),
    y=BYTES,
    share=SHARES,
)
"""Products that fill vectors and tiles."""

MANY_ROWS = (
    *(
        st.builds(
            replace,
            convolutions(kind),
            x=BYTES,
            weight_type=st.just("int8"),
            size=st.tuples(st.integers(22, 24), st.integers(22, 24)),
            window=WINDOWS.map(lambda window: replace(window, strides=(1, 1))),
        )
        for kind in ("dense", "pointwise", "grouped")
    ),
    st.builds(replace, FULL, rows=st.integers(192, 200)),
)
"""Products each of whose weights is used often."""


@dataclass(frozen=True)
class Product:
    """A product of two computed matrices."""

    seed: int
    a: Tensor
    b: Tensor
    transposed: bool
    batch: tuple[int, int]
    rows: int
    depth: int
    columns: int
    y: Tensor
    share: float

    def add(self, g: Graph) -> None:
        random, a_is, b_is = np.random.default_rng(self.seed), self.a.meaning, self.b.meaning
        a = self.a.values(random, *self.batch, self.rows, self.depth)
        b = self.b.values(random, *self.batch, self.depth, self.columns)
        sums = ref.matmul(a, a_is.zero, b, b_is.zero)
        unit = np.float64(a_is.scale) * b_is.scale
        y_is = spread(self.y, sums, unit, self.share)
        left = g.input(a, a_is)
        if self.transposed:
            right = g.op("Transpose", [g.input(b.swapaxes(-1, -2).copy(), b_is)], perm=[0, 1, 3, 2])
        else:
            right = g.input(b, b_is)
        wide = "16" in self.a.dtype + self.b.dtype
        expected = ref.requantize(sums, unit / y_is.scale, y_is, g.family, wide)
        g.result(g.op("MatMul", [left, right]), y_is, expected)


BATCHES = st.sampled_from([(1, 1), (2, 3)])
PRODUCTS = st.builds(
    Product, SEEDS, INTEGERS, INTEGERS, st.booleans(), BATCHES, COUNTS, COUNTS, COUNTS, INTEGERS, SHARES
)


@dataclass(frozen=True)
class Residual:
    """An addition, one of whose operands is a convolution's sum that was not quantised."""

    seed: int
    x: Tensor
    other: Tensor
    depth: int
    channels: int
    size: tuple[int, int]
    bounds: Bounds
    y: Tensor
    share: float

    def add(self, g: Graph) -> None:
        random, x_is, other_is = np.random.default_rng(self.seed), self.x.meaning, self.other.meaning
        x = self.x.values(random, 1, self.depth, *self.size)
        other = self.other.values(random, 1, self.channels, *self.size)
        w, scale = filled(random, "int8", "random", (self.channels, self.depth, 1, 1)), np.float32(0.003)
        unit = np.float64(x_is.scale) * scale
        sums = ref.conv2d(x, x_is.zero, w)
        y_is = spread(self.y, sums, unit, self.share)
        wide = ref.is_wide(x_is, w.reshape(self.channels, -1))
        total = Meaning("int64" if wide else "int32", unit)
        operands = [Operand(sums, total, is_sum=True), Operand(other, other_is)]
        real = g.op("Conv", [g.input(x, x_is), g.weight(w, scale)])
        real = activated(g, g.op("Add", [real, g.input(other, other_is)]), self.bounds)
        g.result(real, y_is, ref.add(operands, bounded(y_is, self.bounds), g.family))


RESIDUALS = st.builds(
    Residual, SEEDS, INTEGERS, INTEGERS, COUNTS, COUNTS, SIZES, ACTIVATIONS, INTEGERS, SHARES
)


@dataclass(frozen=True)
class FunctionOfSums:
    """A convolution and SiLU with nothing quantised between them."""

    seed: int
    x: Tensor
    depth: int
    channels: int
    step: float

    def add(self, g: Graph) -> None:
        random, x_is = np.random.default_rng(self.seed), self.x.meaning
        x = self.x.values(random, 1, self.depth, 6, 5)
        w = filled(random, "int8", "random", (self.channels, self.depth, 3, 3))
        scale = random.uniform(0.0005, 0.002, self.channels).astype(np.float32)
        unit = (np.float64(x_is.scale) * scale).reshape(-1, 1, 1)
        sums = ref.conv2d(x, x_is.zero, w)
        info = np.iinfo(x_is.dtype)
        largest = max(x_is.zero - info.min, info.max - x_is.zero)
        reach = int(np.abs(w.astype(np.int64)).sum((1, 2, 3)).max()) * largest
        y_is = Meaning("uint8", np.float32(self.step), 20)
        expected = ref.function_of_sums(silu, sums, unit, reach, y_is, g.family)
        exact = np.clip(silu(sums * unit) / y_is.scale + y_is.zero, 0, 255)
        assert np.abs(expected - exact).max() < 0.7
        real = g.op("Conv", [g.input(x, x_is), g.weight(w, scale)])
        g.result(g.op("Mul", [real, g.op("Sigmoid", [real])]), y_is, expected)


def silu(x: Array) -> Array:
    """x * sigmoid(x), in float64."""
    return np.asarray(x / (1 + np.exp(-x)))


FUNCTIONS_OF_SUMS = st.builds(
    FunctionOfSums, SEEDS, BYTES, st.integers(1, 16), st.sampled_from([1, 5, 12, 17]), st.floats(0.02, 0.2)
)
