"""Products of 16-bit integers whose sums need 64 bits: exact on every instruction set."""

import numpy as np
import pytest
from tvm import te

from tests.unit.template_kit import evaluate
from tests.unit.test_templates_conv2d import conv2d_reference
from tests.unit.test_templates_dot import TARGETS as ALL_TARGETS
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.isa import find_dot

TARGETS = {name: ALL_TARGETS[name] for name in ("x86-64-scalar", "x86-64-v3", "x86-64-v4", "x86-64-vnni")}
RIGHT = ("int16", "int8")


def integers(rng, shape, dtype, fill):
    """Random integers; all lowest or highest ones with ``fill``."""
    info = np.iinfo(dtype)
    if fill:
        return np.full(shape, getattr(info, fill), dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize(
    ("rows", "depth", "columns", "fill"),
    [(33, 255, 40, ""), (3, 1100, 17, "min")],
)
def test_dense(name, right, rows, depth, columns, fill):
    target, rng = TARGETS[name], np.random.default_rng(depth)
    a, b = integers(rng, (rows, depth), "int16", fill), integers(rng, (depth, columns), right, fill)
    packed = packing.pack_dense(b, find_dot("int16", right, target, "int64"))
    left = te.placeholder(a.shape, "int16", name="left")
    weights = te.placeholder(packed.shape, right, name="right")
    found, _ = evaluate({left: a, weights: packed}, computes.dense(left, weights, columns, "int64"), target)
    np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("transposed", [False, True])
def test_matmul(name, transposed):
    target, rng = TARGETS[name], np.random.default_rng(3)
    a, b = integers(rng, (2, 19, 70), "int16", ""), integers(rng, (2, 70, 37), "int16", "")
    left = te.placeholder(a.shape, "int16", name="left")
    stored = np.ascontiguousarray(b.swapaxes(1, 2)) if transposed else b
    right = te.placeholder(stored.shape, "int16", name="right")
    result = computes.matmul(left, right, transposed, "int64")
    found, _ = evaluate({left: a, right: stored}, result, target)
    np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("right", RIGHT)
@pytest.mark.parametrize(
    ("depth", "channels", "groups", "stride", "padding", "pad_value"),
    [
        (70, 20, 1, (1, 1), (0, 1, 0, 2), -300),
        (6, 5, 3, (1, 2), (1, 1, 1, 1), 0),
    ],
)
def test_conv2d(name, right, depth, channels, groups, stride, padding, pad_value):
    target, rng = TARGETS[name], np.random.default_rng(depth)
    x = integers(rng, (1, 6, 9, groups * depth), "int16", "")
    w = integers(rng, (groups * channels, 3, 3, depth), right, "")
    packed = packing.pack_conv2d(w, find_dot("int16", right, target, "int64"), groups)
    image = te.placeholder(x.shape, "int16", name="image")
    weights = te.placeholder(packed.shape, right, name="weights")
    result = computes.conv2d(
        image, weights, groups * channels, stride, padding, out_dtype="int64", pad_value=pad_value
    )
    found, _ = evaluate({image: x, weights: packed}, result, target)
    above, before, below, after = padding
    filled = np.pad(x, ((0, 0), (above, below), (before, after), (0, 0)), constant_values=pad_value)
    expected = conv2d_reference(
        filled.astype(np.float64), w.astype(np.float64), stride, (0,) * 4, (1, 1), groups
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", TARGETS)
def test_depthwise(name):
    target, rng = TARGETS[name], np.random.default_rng(4)
    x, w = integers(rng, (1, 8, 9, 37), "int16", ""), integers(rng, (37, 3, 3, 1), "int16", "")
    packed = packing.pack_depthwise(w, packing.weight_lanes("int16", target, "int64"))
    image = te.placeholder(x.shape, "int16", name="image")
    weights = te.placeholder(packed.shape, "int16", name="weights")
    result = computes.depthwise_conv2d(image, weights, (1, 1), (1, 1, 1, 1), out_dtype="int64")
    found, _ = evaluate({image: x, weights: packed}, result, target)
    expected = conv2d_reference(x.astype(np.float64), w.astype(np.float64), (1, 1), (1, 1, 1, 1), (1, 1), 37)
    np.testing.assert_array_equal(found, expected)
