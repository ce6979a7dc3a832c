"""Layers with tensors of 16 bits, and sums of 64: images equal the numpy oracle bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.ops.integer_families import TARGETS, examples, families, seeds, values
from tests.ops.integer_kit import Array, Graph, combined
from tests.ops.test_integer_functions import FUNCTIONS
from tvm_ipu.quantize import reference as ref
from tvm_ipu.quantize.reference import Meaning, Operand

WIDTHS = st.sampled_from(["int16", "int16", "uint16", "uint8"])


def meaning(random: np.random.Generator, dtype: str) -> Meaning:
    """A random scale; the zero point is the middle of the type's range for 16 bits."""
    zero = {"int16": 0, "uint16": 2**15}.get(dtype, int(random.integers(0, 128)))
    return Meaning(dtype, np.float32(random.uniform(0.5, 2) / 2 ** (np.iinfo(dtype).bits - 2)), zero)


def result(random: np.random.Generator, dtype: str, numbers: Array) -> Meaning:
    """A step that spreads numbers over the type, and a little beyond."""
    largest = float(np.abs(numbers).max()) or 1.0
    return Meaning(dtype, np.float32(2.2 * largest / 2 ** np.iinfo(dtype).bits), meaning(random, dtype).zero)


def weights(random: np.random.Generator, dtype: str, *shape: int) -> Array:
    """Symmetric integers, sometimes all of them largest."""
    top = np.iinfo(dtype).max
    if random.integers(0, 4) == 0:
        return np.full(shape, -top, dtype)
    return random.integers(-top, top + 1, shape).astype(dtype)


@families
@examples
@given(
    seeds,
    WIDTHS,
    st.sampled_from(["int16", "int8"]),
    st.sampled_from(["dense", "groups", "depthwise", "pointwise"]),
    st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1)]),
    WIDTHS,
)
def test_conv(family, seed, x_type, w_type, kind, padding, y_type):
    random = np.random.default_rng(seed)
    groups = {"dense": 1, "groups": 2, "depthwise": int(random.integers(2, 40)), "pointwise": 1}[kind]
    depth = 1 if kind == "depthwise" else int(random.integers(1, 150))
    channels = groups * (1 if kind == "depthwise" else int(random.integers(1, 20)))
    kernel = (1, 1) if kind == "pointwise" else (3, 2)
    padding = (0, 0, 0, 0) if kind == "pointwise" else padding
    x_is = meaning(random, x_type)
    x, w = values(random, x_type, 1, groups * depth, 6, 7), weights(random, w_type, channels, depth, *kernel)
    scale = random.uniform(0.5, 1, channels).astype(np.float32) / np.iinfo(w_type).max
    unit = (np.float64(x_is.scale) * scale).reshape(-1, 1, 1)
    bias = random.normal(size=channels).astype(np.float32)
    wide = ref.is_wide(x_is, w.reshape(channels, -1))
    sums = ref.conv2d(x, x_is.zero, w, (1, 1), padding, groups=groups)
    sums = sums + ref.quantize_bias(bias.reshape(-1, 1, 1), unit)
    y_is = result(random, y_type, sums * unit)
    relu = bool(random.integers(0, 2))
    g = Graph()
    operands = [g.input(x, x_is), g.weight(w, scale), g.constant(bias)]
    real = g.op("Conv", operands, pads=padding, group=groups)
    g.result(g.op("Relu", [real]) if relu else real, y_is)
    expected = ref.requantize(
        sums, unit / y_is.scale, y_is.clipped(0, np.inf) if relu else y_is, family, wide
    )
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)
    exact = sums * unit / y_is.scale + y_is.zero
    low, high = y_is.clipped(0, np.inf).bounds if relu else y_is.bounds
    assert np.abs(expected - np.clip(exact, low, high)).max() < 0.51


@families
@examples
@given(seeds, WIDTHS, st.sampled_from(["int16", "int8"]))
def test_dense(family, seed, x_type, w_type):
    random = np.random.default_rng(seed)
    depth, units = int(random.integers(1, 900)), int(random.integers(1, 70))
    x_is = meaning(random, x_type)
    x, w = values(random, x_type, int(random.integers(1, 9)), depth), weights(random, w_type, depth, units)
    scale = random.uniform(0.5, 1, units).astype(np.float32) / np.iinfo(w_type).max
    unit, sums = np.float64(x_is.scale) * scale, ref.matmul(x, x_is.zero, w)
    y_is = result(random, "int16", sums * unit)
    g = Graph()
    g.result(g.op("MatMul", [g.input(x, x_is), g.weight(w, scale, axis=1)]), y_is)
    expected = ref.requantize(sums, unit / y_is.scale, y_is, family, ref.is_wide(x_is, w.T))
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
@examples
@given(seeds, st.sampled_from([("int16", "int16"), ("uint8", "int16"), ("int16", "int8")]), st.booleans())
def test_product_of_two_inputs(family, seed, types, transposed):
    random = np.random.default_rng(seed)
    a_is, b_is = (meaning(random, dtype) for dtype in types)
    rows, depth, columns = (int(v) for v in random.integers(1, 40, 3))
    a = values(random, types[0], 2, 3, rows, depth)
    b = values(random, types[1], 2, 3, *((columns, depth) if transposed else (depth, columns)))
    sums = ref.matmul(a, a_is.zero, b.swapaxes(-1, -2) if transposed else b, b_is.zero)
    unit = np.float64(a_is.scale) * b_is.scale
    y_is = result(random, "int16", sums * unit)
    g = Graph()
    left, right = g.input(a, a_is), g.input(b, b_is)
    right = g.op("Transpose", [right], perm=[0, 1, 3, 2]) if transposed else right
    g.result(g.op("MatMul", [left, right]), y_is)
    np.testing.assert_array_equal(
        g.run(TARGETS[family])[0], ref.requantize(sums, unit / y_is.scale, y_is, family, True)
    )


@families
@examples
@given(seeds, st.sampled_from(["Add", "Mul", "Concat"]), WIDTHS, WIDTHS, WIDTHS, st.booleans())
def test_two_tensors(family, seed, op, a_type, b_type, y_type, relu):
    random = np.random.default_rng(seed)
    a_is, b_is = meaning(random, a_type), meaning(random, b_type)
    shape = (2, int(random.integers(1, 40)), 5, 3)
    a, b = values(random, a_type, *shape), values(random, b_type, *shape)
    y_is = result(random, y_type, np.float32(3))
    g = Graph()
    real = g.op(op, [g.input(a, a_is), g.input(b, b_is)], **({"axis": 1} if op == "Concat" else {}))
    g.result(g.op("Relu", [real]) if relu else real, y_is)
    target = y_is.clipped(0, np.inf) if relu else y_is
    expected = combined(op, Operand(a, a_is), Operand(b, b_is), target, family)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
@examples
@given(seeds, st.sampled_from(["int16", "uint8"]), st.sampled_from(["int16", "uint8"]))
def test_residual_of_a_convolution(family, seed, x_type, r_type):
    """Sums that were not quantised, wide or narrow, are an operand of an addition in float64."""
    random = np.random.default_rng(seed)
    x_is, r_is = meaning(random, x_type), meaning(random, r_type)
    channels = int(random.integers(1, 40))
    x, r = values(random, x_type, 1, 16, 5, 6), values(random, r_type, 1, channels, 5, 6)
    w = weights(random, "int8", channels, 16, 1, 1)
    wide = ref.is_wide(x_is, w.reshape(channels, -1))
    unit = np.full((channels, 1, 1), np.float64(x_is.scale) * np.float32(0.003))
    sums = ref.conv2d(x, x_is.zero, w)
    y_is = result(random, "int16", sums * unit)
    g = Graph()
    real = g.op("Conv", [g.input(x, x_is), g.weight(w, np.float32(0.003))])
    g.result(g.op("Add", [real, g.input(r, r_is)]), y_is)
    operands = [Operand(sums, Meaning("int64" if wide else "int32", unit), is_sum=True), Operand(r, r_is)]
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], ref.add(operands, y_is, family))


@families
@examples
@given(seeds, st.sampled_from(["int16", "uint8"]), st.booleans())
def test_pools(family, seed, y_type, counted):
    random = np.random.default_rng(seed)
    x_is = meaning(random, "int16")
    x = values(random, "int16", 2, int(random.integers(1, 40)), 7, 6)
    y_is = result(random, y_type, np.float32(1.5))
    window = {"kernel_shape": (2, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)}
    g = Graph()
    real = g.input(x, x_is)
    g.result(g.op("AveragePool", [real], count_include_pad=int(counted), **window), y_is)
    g.result(g.op("GlobalAveragePool", [real]), y_is)
    g.result(g.op("MaxPool", [real], **window), x_is)
    average, whole, largest = g.run(TARGETS[family])
    source = Operand(x, x_is)
    expected = ref.average_pool(source, (2, 3), (1, 1), (1, 1, 1, 1), counted, y_is, family)
    np.testing.assert_array_equal(average, expected)
    np.testing.assert_array_equal(whole, ref.global_average_pool(source, y_is, family))
    np.testing.assert_array_equal(largest, ref.max_pool(x, (2, 3), (1, 1), (1, 1, 1, 1)))


@families
@pytest.mark.parametrize("shape", [(1, 2, 200, 200)])
def test_mean_that_needs_64_bits(family, shape):
    x_is, y_is = Meaning("int16", np.float32(1e-4), 0), Meaning("int16", np.float32(1.1e-4), 0)
    x = np.random.default_rng(1).integers(30000, 32768, shape).astype(np.int16)
    g = Graph()
    g.result(g.op("GlobalAveragePool", [g.input(x, x_is)]), y_is)
    np.testing.assert_array_equal(
        g.run(TARGETS[family])[0], ref.global_average_pool(Operand(x, x_is), y_is, family)
    )


@families
@pytest.mark.parametrize("op", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_functions(family, op, dtype):
    """All integers of 16 bits, to 8 and to 16 bits."""
    x_is = Meaning("int16", np.float32(2e-4), 0)
    y_is = Meaning(dtype, np.float32(2e-4 if dtype == "int16" else 0.03), 0 if dtype == "int16" else 20)
    x = np.random.default_rng(len(op)).permutation(np.arange(-(2**15), 2**15)).astype(np.int16)
    g = Graph()
    domain = "com.microsoft" if op == "Gelu" else ""
    g.result(g.op(op, [g.input(x.reshape(1, 16, 64, 64), x_is)], domain=domain), y_is)
    expected = ref.look_up(x.reshape(1, 16, 64, 64), ref.table(FUNCTIONS[op], x_is, y_is))
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
def test_function_of_sums(family):
    """A convolution and SiLU with nothing quantised between them, to 16 bits."""
    random = np.random.default_rng(2)
    x_is = Meaning("int16", np.float32(1e-4), 0)
    x, w = values(random, "int16", 1, 16, 6, 6), weights(random, "int16", 12, 16, 3, 3)
    scale = random.uniform(0.5, 2, 12).astype(np.float32) / 2**15 / 10
    unit = (np.float64(x_is.scale) * scale).reshape(-1, 1, 1)
    sums = ref.conv2d(x, 0, w)
    reach = int(np.abs(w.astype(np.int64)).sum((1, 2, 3)).max()) * 2**15
    y_is = Meaning("int16", np.float32(5 / 2**15), 0)
    g = Graph()
    real = g.op("Conv", [g.input(x, x_is), g.weight(w, scale)])
    g.result(g.op("Mul", [real, g.op("Sigmoid", [real])]), y_is)

    def silu(v: Array) -> Array:
        return v / (1 + np.exp(-v))

    expected = ref.function_of_sums(silu, sums, unit, reach, y_is, family, True)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)
    exact = np.clip(silu(sums * unit) / y_is.scale, -(2**15), 2**15 - 1)
    assert np.abs(expected - exact).max() < 1.01


@families
def test_moves(family):
    random = np.random.default_rng(5)
    x_is = Meaning("int16", np.float32(0.1), 0)
    x = values(random, "int16", 1, 6, 4, 5)
    g = Graph()
    real = g.op("Resize", [g.input(x, x_is), "", g.constant(np.float32([1, 1, 2, 2]))], mode="nearest")
    real = g.op("Reshape", [g.op("Transpose", [real], perm=[0, 2, 3, 1]), g.constant([8, -1])])
    g.result(real, x_is)
    expected = x.repeat(2, 2).repeat(2, 3).transpose(0, 2, 3, 1).reshape(8, -1)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)
