"""Layers of quantised networks: images equal the numpy oracle bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from onnx import TensorProto, helper, numpy_helper

from scripts.node_suite import compile_image
from tests.ops.integer_families import TARGETS, examples, families, meaning, seeds, values, wide_step
from tests.ops.integer_kit import Graph, combined
from tvm_ipu.quantize import reference as ref
from tvm_ipu.quantize.reference import Meaning, Operand
from tvm_ipu.runtime.session import Session


@families
@examples
@given(
    seeds,
    st.sampled_from(["dense", "groups", "depthwise", "pointwise"]),
    st.sampled_from([(1, 1), (2, 2), (2, 1)]),
    st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 0)]),
    st.sampled_from([(1, 1), (2, 1)]),
    st.booleans(),
)
def test_conv(family, seed, kind, strides, padding, dilation, per_channel):
    random = np.random.default_rng(seed)
    groups = {"dense": 1, "groups": 2, "depthwise": int(random.integers(2, 40)), "pointwise": 1}[kind]
    depth = 1 if kind == "depthwise" else int(random.integers(1, 40))
    channels = groups * (1 if kind == "depthwise" else int(random.integers(1, 20)))
    kernel = (1, 1) if kind == "pointwise" else (int(random.integers(1, 4)), int(random.integers(1, 4)))
    x_is = meaning(random)
    x = values(random, x_is.dtype, int(random.integers(1, 3)), groups * depth, 7, 8)
    w = values(random, "int8", channels, depth, *kernel)
    w_scale = random.uniform(0.001, 0.01, channels if per_channel else ()).astype(np.float32)
    unit = (np.float64(x_is.scale) * w_scale).reshape(-1, 1, 1)
    bias = random.normal(size=channels).astype(np.float32)
    sums = ref.conv2d(x, x_is.zero, w, strides, padding, dilation, groups)
    sums = sums + ref.quantize_bias(bias.reshape(-1, 1, 1), unit)
    y_is = Meaning(str(random.choice(["uint8", "int8"])), wide_step(sums, unit), int(random.integers(0, 100)))
    relu = bool(random.integers(0, 2))
    g = Graph()
    real = g.op(
        "Conv",
        [g.input(x, x_is), g.weight(w, w_scale), g.constant(bias)],
        strides=strides,
        dilations=dilation,
        pads=padding,
        group=groups,
    )
    g.result(g.op("Relu", [real]) if relu else real, y_is)
    expected = ref.requantize(sums, unit / y_is.scale, y_is.clipped(0, np.inf) if relu else y_is, family)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
@examples
@given(seeds, st.booleans(), st.sampled_from([None, 128, 3]))
def test_dense(family, seed, gemm, weight_zero):
    random = np.random.default_rng(seed)
    depth, units = int(random.integers(1, 200)), int(random.integers(1, 70))
    x_is = meaning(random)
    x = values(random, x_is.dtype, int(random.integers(1, 9)), depth)
    w = values(random, "int8" if weight_zero is None else "uint8", depth, units)
    scale = random.uniform(0.001, 0.01, units).astype(np.float32)
    sums = ref.matmul(x, x_is.zero, w, weight_zero or 0)
    unit = np.float64(x_is.scale) * scale
    y_is = Meaning("uint8", wide_step(sums, unit), 128)
    g = Graph()
    if gemm:
        real = g.op("Gemm", [g.input(x, x_is), g.weight(w.T.copy(), scale, weight_zero, 0)], transB=1)
    else:
        real = g.op("MatMul", [g.input(x, x_is), g.weight(w, scale, weight_zero, 1)])
    g.result(real, y_is)
    np.testing.assert_array_equal(
        g.run(TARGETS[family])[0], ref.requantize(sums, unit / y_is.scale, y_is, family)
    )


@families
@examples
@given(seeds, st.booleans())
def test_product_of_two_inputs(family, seed, transposed):
    random = np.random.default_rng(seed)
    a_is, b_is = meaning(random), meaning(random)
    rows, depth, columns = (int(v) for v in random.integers(1, 40, 3))
    a = values(random, a_is.dtype, 2, 3, rows, depth)
    b = values(random, b_is.dtype, 2, 3, *((columns, depth) if transposed else (depth, columns)))
    sums = ref.matmul(a, a_is.zero, b.swapaxes(-1, -2) if transposed else b, b_is.zero)
    unit = np.float64(a_is.scale) * b_is.scale
    y_is = Meaning("int8", wide_step(sums, unit), 0)
    g = Graph()
    left, right = g.input(a, a_is), g.input(b, b_is)
    right = g.op("Transpose", [right], perm=[0, 1, 3, 2]) if transposed else right
    g.result(g.op("MatMul", [left, right]), y_is)
    np.testing.assert_array_equal(
        g.run(TARGETS[family])[0], ref.requantize(sums, unit / y_is.scale, y_is, family)
    )


@families
@examples
@given(seeds, st.sampled_from(["Add", "Sub", "Mul", "Concat"]), st.booleans())
def test_two_tensors(family, seed, op, relu):
    random = np.random.default_rng(seed)
    a_is, b_is, y_is = meaning(random), meaning(random), meaning(random)
    shape = (2, int(random.integers(1, 40)), 5, 3)
    a, b = values(random, a_is.dtype, *shape), values(random, b_is.dtype, *shape)
    g = Graph()
    real = g.op(op, [g.input(a, a_is), g.input(b, b_is)], **({"axis": 1} if op == "Concat" else {}))
    g.result(g.op("Relu", [real]) if relu else real, y_is)
    result = y_is.clipped(0, np.inf) if relu else y_is
    expected = combined(op, Operand(a, a_is), Operand(b, b_is), result, family)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
@examples
@given(seeds, st.sampled_from(["Sub", "Add", "Mul", "Div", "from"]), st.sampled_from(["element", "channel"]))
def test_constant_operand(family, seed, op, kind):
    random = np.random.default_rng(seed)
    x_is, y_is = meaning(random), meaning(random)
    shape = (1, int(random.integers(2, 40)), 5, 3)
    x = values(random, x_is.dtype, *shape)
    numbers = random.normal(size=shape if kind == "element" else (shape[1], 1, 1)).astype(np.float32)
    g = Graph()
    operands = [g.input(x, x_is), g.constant(numbers)]
    g.result(g.op("Sub" if op == "from" else op, operands[::-1] if op == "from" else operands), y_is)
    if op in ("Mul", "Div"):
        factor = numbers if op == "Mul" else 1 / np.float64(numbers)
        centred = x.astype(np.int64) - x_is.zero
        expected = ref.requantize(centred, np.float64(x_is.scale) * factor / y_is.scale, y_is, family)
    else:
        signs = {"Add": (1, 1), "Sub": (1, -1), "from": (-1, 1)}[op]
        left = Operand(x, replace(x_is, scale=signs[0] * x_is.scale))
        right = Operand(signs[1] * np.float64(numbers), y_is, is_constant=True)
        expected = ref.add([left, right] if op != "from" else [right, left], y_is, family)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
@examples
@given(seeds)
def test_residual_of_a_convolution(family, seed):
    """A sum that was not quantised is an operand of an addition."""
    random = np.random.default_rng(seed)
    x_is, r_is = meaning(random), meaning(random)
    channels = int(random.integers(1, 40))
    x, r = values(random, x_is.dtype, 1, 16, 5, 6), values(random, r_is.dtype, 1, channels, 5, 6)
    w = values(random, "int8", channels, 16, 1, 1)
    unit = np.full((channels, 1, 1), np.float64(x_is.scale) * np.float32(0.003))
    sums = ref.conv2d(x, x_is.zero, w)
    y_is = Meaning("uint8", wide_step(sums, unit), 100)
    g = Graph()
    real = g.op("Conv", [g.input(x, x_is), g.weight(w, np.float32(0.003))])
    g.result(g.op("Add", [real, g.input(r, r_is)]), y_is)
    operands = [Operand(sums, Meaning("int32", unit), is_sum=True), Operand(r, r_is)]
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], ref.add(operands, y_is, family))


@families
@examples
@given(seeds, st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1)]), st.booleans())
def test_pools(family, seed, padding, counted):
    random = np.random.default_rng(seed)
    x_is, y_is = meaning(random), meaning(random)
    x = values(random, x_is.dtype, 2, int(random.integers(1, 40)), 7, 6)
    kernel, strides = (2, 3), (int(random.integers(1, 3)), 1)
    g = Graph()
    real = g.input(x, x_is)
    window = {"kernel_shape": kernel, "strides": strides, "pads": padding}
    g.result(g.op("AveragePool", [real], count_include_pad=int(counted), **window), y_is)
    g.result(g.op("GlobalAveragePool", [real]), y_is)
    g.result(g.op("MaxPool", [real], **window), x_is)
    average, whole, largest = g.run(TARGETS[family])
    source = Operand(x, x_is)
    expected = ref.average_pool(source, kernel, strides, padding, counted, y_is, family)
    np.testing.assert_array_equal(average, expected)
    np.testing.assert_array_equal(whole, ref.global_average_pool(source, y_is, family))
    np.testing.assert_array_equal(largest, ref.max_pool(x, kernel, strides, padding))


@families
@pytest.mark.parametrize(("depth", "overflows"), [(16_000, False), (40_000, True)])
def test_sums_at_their_bound(family, depth, overflows):
    """Of 32 bits; beyond, there are 64."""
    x_is = Meaning("uint8", np.float32(0.01), 0)
    x, w = np.full((1, depth), 255, np.uint8), np.full((depth, 3), -128, np.int8)
    y_is = Meaning("int8", np.float32(depth / 1000), 100)
    g = Graph()
    g.result(g.op("MatMul", [g.input(x, x_is), g.weight(w, np.full(3, 0.003, np.float32), axis=1)]), y_is)
    (y,) = g.run(TARGETS[family])
    unit = np.float64(x_is.scale) * np.float32(0.003)
    assert ref.is_wide(x_is, w.T) == overflows
    expected = ref.requantize(ref.matmul(x, 0, w), unit / y_is.scale, y_is, family, overflows)
    assert np.abs(y.astype(int) - expected).max() <= (overflows and family == "integer-requant")


@families
def test_nearest_resize_and_moves(family):
    random = np.random.default_rng(5)
    x_is = Meaning("int8", np.float32(0.1), -7)
    x = values(random, "int8", 1, 6, 4, 5)
    g = Graph()
    real = g.op("Resize", [g.input(x, x_is), "", g.constant(np.float32([1, 1, 2, 2]))], mode="nearest")
    real = g.op("Reshape", [g.op("Transpose", [real], perm=[0, 2, 3, 1]), g.constant([8, -1])])
    g.result(real, x_is)
    expected = x.repeat(2, 2).repeat(2, 3).transpose(0, 2, 3, 1).reshape(8, -1)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)


@families
def test_embedding_and_mask(family):
    """Rows of a quantised matrix at run-time positions, and whole numbers that become quantised ones."""
    random = np.random.default_rng(8)
    x_is, y_is = meaning(random, "int8"), meaning(random, "uint8")
    words = values(random, "int8", 30, 16)
    g = Graph()
    zeros = [g.constant(np.asarray(v)) for v in (words, np.float32(x_is.scale), np.int8(x_is.zero))]
    rows = g.op("Gather", [g.op("DequantizeLinear", zeros), g.whole(np.int64([[3, -1, 29], [0, -30, 7]]))])
    g.result(rows, x_is)
    mask = np.int64([[1, 0, 5], [-3, 250, 2**40]])
    real = g.op("Cast", [g.whole(mask)], to=TensorProto.FLOAT)
    g.result(real, y_is)
    found, masked = g.run(TARGETS[family])
    np.testing.assert_array_equal(found, words[[[3, 29, 29], [0, 0, 7]]])
    whole = np.clip(mask, -(2**31) + 1, 2**31 - 1)
    np.testing.assert_array_equal(masked, ref.requantize(whole, 1 / np.float64(y_is.scale), y_is, family))


@pytest.mark.parametrize("weight_zero", [0, 128])
def test_dynamic_quantisation(weight_zero):
    """MatMulInteger and ConvInteger with zero points that are known at run time only."""
    random = np.random.default_rng(weight_zero)
    x = random.normal(size=(1, 8, 6, 16)).astype(np.float32)
    w = random.integers(0, 256, (16, 20)).astype(np.uint8)
    kernel = random.integers(-128, 128, (5, 8, 3, 3)).astype(np.int8)
    for pads in ([0, 0, 0, 0], [1, 1, 1, 1]):
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["q", "w", "zero", "w_zero"], ["product"]),
            helper.make_node("ConvInteger", ["q", "kernel", "zero"], ["conv"], pads=pads),
        ]
        constants = {"w": w, "w_zero": np.uint8(weight_zero), "kernel": kernel}
        graph = helper.make_graph(
            nodes,
            "dynamic",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [
                helper.make_tensor_value_info(n, t, None)
                for n, t in [("q", TensorProto.UINT8), ("zero", TensorProto.UINT8)]
                + [(n, TensorProto.INT32) for n in ("product", "conv")]
            ],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        with Session(compile_image(model, {}, "host")) as session:
            y = session.run({"x": x})
        zero = int(y["zero"])
        np.testing.assert_array_equal(y["product"], ref.matmul(y["q"], zero, w, weight_zero))
        np.testing.assert_array_equal(y["conv"], ref.conv2d(y["q"], zero, kernel, padding=pads))


@families
def test_weights_of_4_bits(family):
    random = np.random.default_rng(4)
    x_is, y_is = Meaning("uint8", np.float32(0.02), 3), Meaning("uint8", np.float32(0.05), 128)
    x, w = values(random, "uint8", 5, 24), random.integers(-8, 8, (24, 9)).astype(np.int8)
    scale = np.full(9, 0.02, np.float32)
    packed = helper.make_tensor("w", TensorProto.INT4, w.shape, w.ravel())
    g = Graph()
    g.result(g.op("MatMul", [g.input(x, x_is), g.weight(packed, scale, axis=1)]), y_is)
    unit = np.float64(x_is.scale) * scale
    expected = ref.requantize(ref.matmul(x, 3, w), unit / y_is.scale, y_is, family)
    np.testing.assert_array_equal(g.run(TARGETS[family])[0], expected)
