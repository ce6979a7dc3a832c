"""Products with weights of 4 bits: exact on every instruction set, and half as large."""

import numpy as np
import pytest
from tvm import te

from tests.unit.template_kit import evaluate
from tests.unit.test_templates_conv2d import conv2d_reference
from tests.unit.test_templates_wide import TARGETS
from tvm_ipu.kernels import computes, nibbles, packing
from tvm_ipu.kernels.isa import find_dot


def test_packing():
    panels = np.random.default_rng(0).integers(-8, 8, (3, 5, 16, 4)).astype(np.int8)
    packed = nibbles.pack(panels)
    assert packed.shape == (3, 3, 16, 4)
    low = (packed << 4).astype(np.uint8).view(np.int8) >> 4
    np.testing.assert_array_equal(low, panels[:, 0::2])
    np.testing.assert_array_equal(packed.view(np.int8)[:, :2] >> 4, panels[:, 1::2])
    assert not (packed[:, 2] & 0xF0).any()


def test_fits():
    weights = np.full((100, 3), -8, np.int8)
    assert nibbles.fits(weights, 255)
    assert not nibbles.fits(weights - 1, 255)
    assert not nibbles.fits(weights.astype(np.int16), 255)
    assert not nibbles.fits(np.full((70_000, 1), 7, np.int8), 2**15)


@pytest.mark.parametrize("name", TARGETS)
def test_dense(name):
    target, rng = TARGETS[name], np.random.default_rng(1)
    left = {"x86-64-v3": "int16", "x86-64-v4": "int8"}.get(name, "uint8")
    info = np.iinfo(left)
    for rows, depth, columns in ((33, 70, 40), (4, 3, 5)):
        a = rng.integers(info.min, info.max + 1, (rows, depth)).astype(left)
        b = rng.integers(-8, 8, (depth, columns)).astype(np.int8)
        packed = packing.pack_dense(b, find_dot(left, "int4", target))
        x = te.placeholder(a.shape, left, name="x")
        weights = te.placeholder(packed.shape, "uint8", name="weights")
        found, _ = evaluate(
            {x: a, weights: packed}, computes.dense(x, weights, columns, "int32", "int4"), target
        )
        np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("out", ["int32", "int64"])
@pytest.mark.parametrize(("depth", "groups", "stride", "pad_value"), [(70, 1, (1, 1), 9), (6, 3, (1, 2), 0)])
def test_conv2d(name, out, depth, groups, stride, pad_value):
    target, rng = TARGETS[name], np.random.default_rng(depth)
    left = "int16" if out == "int64" else target.activation_dtype
    info = np.iinfo(left)
    x = rng.integers(info.min, info.max + 1, (1, 6, 9, groups * depth)).astype(left)
    w = rng.integers(-8, 8, (groups * 20, 3, 3, depth)).astype(np.int8)
    packed = packing.pack_conv2d(w, find_dot(left, "int4", target, out), groups)
    image = te.placeholder(x.shape, left, name="image")
    weights = te.placeholder(packed.shape, "uint8", name="weights")
    result = computes.conv2d(
        image, weights, groups * 20, stride, (1, 1, 1, 1), (1, 1), out, pad_value, right="int4"
    )
    found, _ = evaluate({image: x, weights: packed}, result, target)
    filled = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad_value)
    np.testing.assert_array_equal(found, conv2d_reference(filled, w, stride, (0,) * 4, (1, 1), groups))
