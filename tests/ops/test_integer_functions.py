"""Functions of quantised numbers: images equal the numpy oracle bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.ops.integer_families import TARGETS, examples, families, meaning, seeds, values
from tests.ops.integer_kit import Array, Graph
from tvm_ipu.quantize import reference as ref
from tvm_ipu.quantize.reference import Meaning, Operand


def _silu(x: Array) -> Array:
    with np.errstate(over="ignore"):  # far below zero the quotient is 0
        return x / (1 + np.exp(-x))


_erf = np.vectorize(math.erf, otypes=[np.float64])


FUNCTIONS = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "HardSwish": lambda x: x * np.clip(x * np.float32(1 / 6) + 0.5, 0, 1),
    "LeakyRelu": lambda x: np.where(x >= 0, x, x * np.float32(0.01)),
    "Gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
}


@families
@pytest.mark.parametrize("op", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_functions(family, op, dtype):
    random = np.random.default_rng(len(op))
    low = np.iinfo(dtype).min
    x_is = Meaning(dtype, np.float32(0.05), low + 120)
    y_is = Meaning("int8", np.float32(0.03), -20)
    x = (np.arange(512) % 256 + low).astype(dtype).reshape(1, 8, 8, 8)
    g = Graph()
    domain = "com.microsoft" if op == "Gelu" else ""
    g.result(g.op(op, [g.input(random.permutation(x), x_is)], domain=domain), y_is)
    (x,) = g.feeds.values()
    np.testing.assert_array_equal(
        g.run(TARGETS[family])[0], ref.look_up(x, ref.table(FUNCTIONS[op], x_is, y_is))
    )


@families
def test_function_with_quantised_steps(family):
    """x * sigmoid(x), the sigmoid quantised in between, is one table."""
    x_is, s_is = Meaning("uint8", np.float32(0.06), 128), Meaning("uint8", np.float32(1 / 255), 0)
    y_is = Meaning("uint8", np.float32(0.03), 10)
    x = np.arange(256, dtype=np.uint8).reshape(1, 4, 8, 8)
    g = Graph()
    real = g.input(x, x_is)
    inner = g.op("QuantizeLinear", [g.op("Sigmoid", [real]), *g._parameters(s_is)])
    g.result(g.op("Mul", [real, g.op("DequantizeLinear", [inner, *g._parameters(s_is)])]), y_is)
    gate = ref.table(FUNCTIONS["Sigmoid"], x_is, s_is)

    def function(real: Array) -> Array:
        return real * (gate * np.float64(s_is.scale))

    np.testing.assert_array_equal(g.run(TARGETS[family])[0], ref.look_up(x, ref.table(function, x_is, y_is)))


@families
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_function_in_a_sum(family, dtype):
    """A residual sum whose operands are a function of sums and a product of two tensors, not quantised."""
    random = np.random.default_rng(6)
    x_is, a_is = Meaning("uint8", np.float32(0.02), 90), Meaning("uint8", np.float32(0.03), 128)
    x, w = values(random, "uint8", 1, 16, 6, 6), values(random, "int8", 12, 16, 1, 1)
    a, b = (values(random, "uint8", 1, 12, 6, 6) for _ in range(2))
    scale = np.full(12, 0.001, np.float32)
    unit = (np.float64(x_is.scale) * scale).reshape(-1, 1, 1)
    sums = ref.conv2d(x, x_is.zero, w)
    reach = int(np.abs(w.astype(np.int64)).sum((1, 2, 3)).max()) * 165
    y_is = Meaning(dtype, np.float32(0.1 if dtype == "uint8" else 4e-4), 77 if dtype == "uint8" else 0)
    inner = Meaning("int16", np.float64(y_is.scale) / (64 if dtype == "uint8" else 1), 0)
    g = Graph()
    real = g.op("Conv", [g.input(x, x_is), g.weight(w, scale)])
    silu = g.op("Mul", [real, g.op("Sigmoid", [real])])
    product = g.op("Mul", [g.input(a, a_is), g.input(b, a_is)])
    g.result(g.op("Add", [silu, product]), y_is)
    left = ref.function_of_sums(_silu, sums, unit, reach, inner, family)
    right = ref.multiply(Operand(a, a_is), Operand(b, a_is), inner, family)
    expected = ref.add([Operand(left, inner), Operand(right, inner)], y_is, family)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
@examples
@given(seeds, st.floats(0.02, 0.2))
def test_function_of_sums(family, seed, step):
    """A convolution and SiLU with nothing quantised between them."""
    random = np.random.default_rng(seed)
    x_is = meaning(random)
    x, w = values(random, x_is.dtype, 1, 16, 6, 6), values(random, "int8", 12, 16, 3, 3)
    scale = random.uniform(0.0005, 0.002, 12).astype(np.float32)
    unit = (np.float64(x_is.scale) * scale).reshape(-1, 1, 1)
    sums = ref.conv2d(x, x_is.zero, w)
    info = np.iinfo(x_is.dtype)
    reach = int(np.abs(w.astype(np.int64)).sum((1, 2, 3)).max()) * max(
        x_is.zero - info.min, info.max - x_is.zero
    )
    y_is = Meaning("uint8", np.float32(step), 20)
    g = Graph()
    real = g.op("Conv", [g.input(x, x_is), g.weight(w, scale)])
    g.result(g.op("Mul", [real, g.op("Sigmoid", [real])]), y_is)
    expected = ref.function_of_sums(_silu, sums, unit, reach, y_is, family)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)
    exact = np.clip(_silu(sums * unit) / y_is.scale + y_is.zero, 0, 255)
    assert np.abs(expected - exact).max() < 0.7
