"""Elementwise operators after a convolution or product run in its kernel."""

import numpy as np
import pytest
from tvm import te, tirx, topi

from tests.unit.template_kit import TARGETS, evaluate, random_array
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.isa import find_dot

CHANNELS = 21


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hardswish(x):
    return x * np.clip(x + 3, 0, 6) / 6


EPILOGUES = {
    "bias_relu": (
        [(CHANNELS,)],
        lambda y, b: topi.nn.relu(topi.add(y, b)),
        lambda y, b: relu(y + b),
    ),
    "residual": ([(2, 5, 7, CHANNELS)], topi.add, lambda y, r: y + r),
    "gate": ([(2, 1, 1, CHANNELS)], topi.multiply, lambda y, g: y * g),
    "per_row": ([(5, 1, 1)], topi.multiply, lambda y, g: y * g),
    "scalar": ([()], topi.multiply, lambda y, g: y * g),
    "silu": ([], lambda y: topi.multiply(y, topi.sigmoid(y)), lambda y: y * sigmoid(y)),
    "hardswish": (
        [],
        lambda y: topi.divide(topi.multiply(y, topi.clip(topi.add(y, 3.0), 0.0, 6.0)), 6.0),
        hardswish,
    ),
    "leaky_relu": ([], lambda y: topi.nn.leaky_relu(y, 0.125), lambda y: np.where(y > 0, y, 0.125 * y)),
    "bias_silu_residual": (
        [(CHANNELS,), (2, 5, 7, CHANNELS)],
        lambda y, b, r: topi.add(topi.multiply(topi.add(y, b), topi.sigmoid(topi.add(y, b))), r),
        lambda y, b, r: (y + b) * sigmoid(y + b) + r,
    ),
    "position": (
        [],
        lambda y: te.compute(
            y.shape, lambda n, i, j, c: y[n, i, j, c] + (100 * i + 10 * j + c).astype(str(y.dtype))
        ),
        lambda y: (
            y + np.arange(5).reshape(5, 1, 1) * 100 + np.arange(7).reshape(7, 1) * 10 + np.arange(CHANNELS)
        ),
    ),
}


@pytest.mark.parametrize("lanes", TARGETS)
@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("template", ["conv2d", "depthwise", "gemm", "matmul"])
def test_is_part_of_the_kernel(template, name, lanes):
    got, expected, launches = run(template, name, lanes, "float32")
    assert [launch.template for launch in launches] == [template]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", EPILOGUES)
def test_16_bit_types(name, dtype):
    got, expected, launches = run("conv2d", name, 16, dtype)
    assert [launch.template for launch in launches] == ["conv2d"]
    error = 2.0**-8 if dtype == "bfloat16" else 2.0**-10
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=2 * error, atol=2 * error)


def run(template, name, lanes, dtype):
    shapes, expression, reference = EPILOGUES[name]
    rng = np.random.default_rng(3)
    inputs, result, plain = anchor(template, lanes, dtype, rng)
    operands = [random_array(rng, shape, dtype) for shape in shapes]
    placeholders = [te.placeholder(o.shape, dtype, name=f"operand{i}") for i, o in enumerate(operands)]
    inputs.update(zip(placeholders, operands, strict=True))
    expected = reference(plain, *(o.astype(np.float64) for o in operands))
    got, launches = evaluate(inputs, expression(result, *placeholders), TARGETS[lanes])
    return got, expected, launches


def anchor(template, lanes, dtype, rng):
    """Inputs, expression and float64 value of a result of shape [2, 5, 7, CHANNELS]."""
    target = TARGETS[lanes]
    dot = find_dot(dtype, dtype, target)
    depth = CHANNELS if template == "depthwise" else 6
    x = random_array(rng, (2, 5, 7, depth), dtype)
    left = te.placeholder(x.shape, dtype, name="left")
    exact = x.astype(np.float64)
    if template == "matmul":
        b = random_array(rng, (2, 5, depth, CHANNELS), dtype)
        right = te.placeholder(b.shape, dtype, name="right")
        return {left: x, right: b}, computes.matmul(left, right), exact @ b.astype(np.float64)
    if template == "gemm":
        weight = random_array(rng, (depth, CHANNELS), dtype)
        packed = packing.pack_dense(weight, dot)
        right = te.placeholder(packed.shape, dtype, name="right")
        result = computes.dense(left, right, CHANNELS)
        return {left: x, right: packed}, result, exact @ weight.astype(np.float64)
    if template == "depthwise":
        weight = random_array(rng, (CHANNELS, 1, 2, 1), dtype)
        packed = packing.pack_depthwise(weight, packing.weight_lanes(dtype, target))
        right = te.placeholder(packed.shape, dtype, name="right")
        result = computes.depthwise_conv2d(left, right, padding=(0, 1, 0, 0))
        taps = weight.astype(np.float64)[:, 0, :, 0]
        before = np.pad(exact, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        return {left: x, right: packed}, result, before * taps[:, 0] + exact * taps[:, 1]
    weight = random_array(rng, (CHANNELS, 1, 2, depth), dtype)
    packed = packing.pack_conv2d(weight, dot)
    right = te.placeholder(packed.shape, dtype, name="right")
    result = computes.conv2d(left, right, CHANNELS, padding=(0, 1, 0, 0))
    taps = weight.astype(np.float64)[:, 0]
    before = np.pad(exact, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
    return {left: x, right: packed}, result, before @ taps[:, 0].T + exact @ taps[:, 1].T


def test_transposed_result_is_another_kernel():
    """What does not stay at its own position is left to the generic rule; its input becomes a temporary."""
    rng = np.random.default_rng(3)
    inputs, result, plain = anchor("conv2d", 16, "float32", rng)
    moved = te.compute((CHANNELS, 2, 5, 7), lambda c, n, i, j: tirx.max(result[n, i, j, c], 0.0))
    got, launches = evaluate(inputs, moved, TARGETS[16])
    assert [launch.template for launch in launches] == ["conv2d", "generic"]
    np.testing.assert_allclose(got, relu(plain).transpose(3, 0, 1, 2), rtol=1e-5, atol=1e-5)


def test_computed_input_is_another_kernel():
    """An elementwise operator before the anchor runs in a kernel of its own."""
    rng = np.random.default_rng(4)
    a, b = random_array(rng, (9, 30), "float32"), random_array(rng, (30, 17), "float32")
    left, right = te.placeholder(a.shape, name="left"), te.placeholder(b.shape, name="right")
    result = topi.nn.relu(computes.matmul(topi.nn.relu(left), right))
    got, launches = evaluate({left: a, right: b}, result, TARGETS[16])
    assert [launch.template for launch in launches] == ["generic", "matmul"]
    np.testing.assert_allclose(got, relu(relu(a).astype(np.float64) @ b), rtol=1e-5, atol=1e-5)
