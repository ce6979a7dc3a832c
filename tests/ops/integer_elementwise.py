"""Additions, pools, tables and moves of quantised tensors, drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.ops.integer_draws import (
    ACTIVATIONS,
    COUNTS,
    INTEGERS,
    SEEDS,
    SIZES,
    Bounds,
    Tensor,
    activated,
    bounded,
)
from tests.ops.integer_kit import Graph, combined
from tvm_ipu.quantize import reference as ref
from tvm_ipu.quantize.reference import Meaning, Operand


@dataclass(frozen=True)
class Pair:
    """An operator of two tensors of any meaning; ``b`` may be one number a channel."""

    seed: int
    op: str
    a: Tensor
    b: Tensor
    channels: int
    size: tuple[int, int]
    broadcast: bool
    bounds: Bounds
    y: Tensor

    def add(self, g: Graph) -> None:
        random = np.random.default_rng(self.seed)
        y_is = self.y.meaning
        shape = (2, self.channels, *self.size)
        other = (1, self.channels, 1, 1) if self.broadcast and self.op != "Concat" else shape
        left = Operand(self.a.values(random, *shape), self.a.meaning)
        right = Operand(self.b.values(random, *other), self.b.meaning)
        operands = [g.input(o.values, o.meaning) for o in (left, right)]
        real = g.op(self.op, operands, **({"axis": 1} if self.op == "Concat" else {}))
        expected = combined(self.op, left, right, bounded(y_is, self.bounds), g.family)
        g.result(activated(g, real, self.bounds), y_is, expected)


def negated(meaning: Meaning) -> Meaning:
    """The meaning of what is subtracted."""
    return replace(meaning, scale=-meaning.scale)


PAIRS = st.builds(
    Pair,
    seed=SEEDS,
    op=st.sampled_from(["Add", "Sub", "Mul", "Concat"]),
    a=INTEGERS,
    b=INTEGERS,
    channels=COUNTS,
    size=SIZES,
    broadcast=st.booleans(),
    bounds=ACTIVATIONS,
    y=INTEGERS,
)


@dataclass(frozen=True)
class ConstantOperand:
    """An operator of a tensor and constant numbers; ``from`` is a number minus the tensor."""

    seed: int
    op: str
    x: Tensor
    channels: int
    size: tuple[int, int]
    per_element: bool
    y: Tensor

    def add(self, g: Graph) -> None:
        random = np.random.default_rng(self.seed)
        x_is, y_is = self.x.meaning, self.y.meaning
        x = self.x.values(random, 1, self.channels, *self.size)
        numbers = random.normal(size=(self.channels, *(self.size if self.per_element else (1, 1))))
        numbers = numbers.astype(np.float32)
        operands = [g.input(x, x_is), g.constant(numbers)]
        real = g.op("Sub", operands[::-1]) if self.op == "from" else g.op(self.op, operands)
        if self.op in ("Mul", "Div"):
            factor = numbers if self.op == "Mul" else 1 / np.float64(numbers)
            ratio = np.float64(x_is.scale) * factor / y_is.scale
            expected = ref.requantize(x.astype(np.int64) - x_is.zero, ratio, y_is, g.family)
        else:
            left = Operand(x, negated(x_is) if self.op == "from" else x_is)
            sign = -1 if self.op == "Sub" else 1
            right = Operand(sign * np.float64(numbers), y_is, is_constant=True)
            expected = ref.add([right, left] if self.op == "from" else [left, right], y_is, g.family)
        g.result(real, y_is, expected)


CONSTANT_OPERANDS = st.builds(
    ConstantOperand,
    seed=SEEDS,
    op=st.sampled_from(["Sub", "Add", "Mul", "Div", "from"]),
    x=INTEGERS,
    channels=st.sampled_from([2, 3, 5, 8, 17, 33]),  # one number makes a table
    size=SIZES,
    per_element=st.booleans(),
    y=INTEGERS,
)


@dataclass(frozen=True)
class Pools:
    """Average, global average and max pooling of one tensor."""

    seed: int
    x: Tensor
    channels: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    counted: bool
    y: Tensor

    def add(self, g: Graph) -> None:
        random = np.random.default_rng(self.seed)
        x_is, y_is = self.x.meaning, self.y.meaning
        size = [max(s, k) for s, k in zip(self.size, self.kernel, strict=True)]
        x = self.x.values(random, 2, self.channels, *size)
        real = g.input(x, x_is)
        source, window = Operand(x, x_is), (self.kernel, self.strides, self.padding)
        attrs = {"kernel_shape": self.kernel, "strides": self.strides, "pads": self.padding}
        average = g.op("AveragePool", [real], count_include_pad=int(self.counted), **attrs)
        g.result(average, y_is, ref.average_pool(source, *window, self.counted, y_is, g.family))
        g.result(g.op("GlobalAveragePool", [real]), y_is, ref.global_average_pool(source, y_is, g.family))
        g.result(g.op("MaxPool", [real], **attrs), x_is, ref.max_pool(x, *window))


POOLS = st.builds(
    Pools,
    seed=SEEDS,
    x=INTEGERS,
    channels=COUNTS,
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    kernel=st.sampled_from([(2, 2), (2, 3), (3, 3)]),
    strides=st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    padding=st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1)]),
    counted=st.booleans(),
    y=INTEGERS,
)


ERF = np.vectorize(math.erf, otypes=[np.float64])
"""The error function in float64."""
FUNCTIONS: dict[str, Any] = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "HardSwish": lambda x: x * np.clip(x * np.float32(1 / 6) + 0.5, 0, 1),
    "LeakyRelu": lambda x: np.where(x >= 0, x, x * np.float32(0.01)),
    "Gelu": lambda x: 0.5 * x * (1 + ERF(x / math.sqrt(2))),
}
"""Unary operators in float64."""


@dataclass(frozen=True)
class Function:
    """A unary operator, which becomes a table; the tensor holds every integer of its type."""

    seed: int
    op: str
    x: Tensor
    y: Tensor

    def add(self, g: Graph) -> None:
        random = np.random.default_rng(self.seed)
        low = np.iinfo(self.x.dtype).min
        count = 2 ** np.iinfo(self.x.dtype).bits
        x = random.permutation(np.arange(min(count, 4096)) * max(1, count // 4096) + low)
        x = x.astype(self.x.dtype).reshape(1, 32, -1, 2)
        x_is, y_is = self.x.meaning, self.y.meaning
        real = g.op(self.op, [g.input(x, x_is)], domain="com.microsoft" if self.op == "Gelu" else "")
        g.result(real, y_is, ref.look_up(x, ref.table(FUNCTIONS[self.op], x_is, y_is)))


def functions(*ops: str) -> st.SearchStrategy[Function]:
    """Unary operators."""
    return st.builds(Function, SEEDS, st.sampled_from(ops or tuple(FUNCTIONS)), INTEGERS, INTEGERS)


@dataclass(frozen=True)
class Edges:
    """Where numbers become integers and integers numbers, and a change of scale."""

    seed: int
    x: Tensor
    y: Tensor
    size: int
    bounds: Bounds

    def add(self, g: Graph) -> None:
        random = np.random.default_rng(self.seed)
        x_is, y_is = self.x.meaning, self.y.meaning
        halves = random.integers(-600, 600, (1, self.size)) / 2 * x_is.scale
        numbers = np.concatenate([halves, random.normal(0, 1, (1, self.size))], 1).astype(np.float32)
        numbers[0, :: self.size // 2 + 1] = random.choice(np.float32([np.inf, -np.inf, 3e38, -3e38, -0.0]))
        g.result(g.whole(numbers), x_is, ref.quantize(numbers, x_is))
        x = self.x.values(random, 2, self.size)
        real = g.input(x, x_is)
        g.output(real, ref.dequantize(x, x_is))
        rescaled = ref.rescale(Operand(x, x_is), bounded(y_is, self.bounds), g.family)
        g.result(activated(g, real, self.bounds), y_is, rescaled)


EDGES = st.builds(Edges, SEEDS, INTEGERS, INTEGERS, st.one_of(COUNTS, st.integers(1, 200)), ACTIVATIONS)


@dataclass(frozen=True)
class Moves:
    """Nearest resize, transpose, padding, and a reshape."""

    seed: int
    x: Tensor
    channels: int
    size: tuple[int, int]

    def add(self, g: Graph) -> None:
        random = np.random.default_rng(self.seed)
        x_is = self.x.meaning
        x = self.x.values(random, 1, self.channels, *self.size)
        real = g.op("Resize", [g.input(x, x_is), "", g.constant(np.float32([1, 1, 2, 2]))], mode="nearest")
        real = g.op("Pad", [real, g.constant([0, 0, 1, 0, 0, 0, 0, 2])])
        real = g.op("Transpose", [real], perm=[0, 2, 3, 1])
        real = g.op("Reshape", [real, g.constant([self.channels, -1])])
        wide = x.repeat(2, 2).repeat(2, 3)
        wide = np.pad(wide, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=x_is.zero)
        g.result(real, x_is, wide.transpose(0, 2, 3, 1).reshape(self.channels, -1))


MOVES = st.builds(Moves, SEEDS, INTEGERS, COUNTS, SIZES)
