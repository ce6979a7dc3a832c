"""Softmax, normalisations and quotients on integers: images equal the oracle and are near real numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.integer_families import TARGETS, families
from tests.ops.integer_kit import Array, Graph
from tvm_ipu.quantize import reference_functions as ref
from tvm_ipu.quantize.reference import Meaning

widths = pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])


def whole(dtype: str, scale: float) -> Meaning:
    """Integers of a type; those of 8 bits with a zero point."""
    info = np.iinfo(dtype)
    return Meaning(dtype, np.float32(scale), 0 if info.bits == 16 else (info.min + info.max) // 2 + 9)


def integers(seed: int, dtype: str, *shape: int) -> Array:
    """All sizes of differences: some rows are constant, some spread over the type."""
    random = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    width = 2.0 ** random.uniform(0, info.bits, (shape[0], *[1] * (len(shape) - 1)))
    values = np.rint(random.normal(size=shape) * width / 4)
    values[0] = 3
    return np.clip(values + (info.min + info.max) // 2, info.min, info.max).astype(dtype)


@families
@widths
def test_softmax(family: str, dtype: str):
    bits = np.iinfo(dtype).bits
    y_is = Meaning("uint8", np.float32(2.0**-8)) if bits == 8 else Meaning("int16", np.float32(2.0**-15))
    g, expected, exact = Graph(), [], []
    for shape, axis in [((7, 2, 77), -1), ((5, 16, 6), 1), ((3, 1), 1), ((2, 1000), -1)]:
        for span in (0.5, 16.0, 4000.0):
            x_is, x = whole(dtype, span / 2**bits), integers(len(shape), dtype, *shape)
            g.result(g.op("Softmax", [g.input(x, x_is)], axis=axis), y_is)
            expected.append(ref.softmax(x, x_is, y_is, axis))
            real = np.exp((x - x.max(axis, keepdims=True).astype(np.int64)) * np.float64(x_is.scale))
            steps = real / real.sum(axis, keepdims=True) / np.float64(y_is.scale)
            exact.append(np.minimum(steps, y_is.bounds[1]))
    for y, wanted, real in zip(g.run(TARGETS[family]), expected, exact, strict=True):
        np.testing.assert_array_equal(y, wanted)
        assert np.abs(y - real).max() < (0.51 if bits == 8 else 1.5)


@families
@widths
def test_log_softmax(family: str, dtype: str):
    bits = np.iinfo(dtype).bits
    g, expected, exact = Graph(), [], []
    for shape, axis in [((5, 16, 6), 1), ((3, 1), 1), ((2, 500), -1)]:
        for span in (0.5, 300.0):
            x_is, x = whole(dtype, span / 2**bits), integers(len(shape), dtype, *shape)
            low = max(span, 8.0) * 2.0**-bits
            y_is = Meaning("uint8", np.float32(low), 255) if bits == 8 else Meaning("int16", np.float32(low))
            g.result(g.op("LogSoftmax", [g.input(x, x_is)], axis=axis), y_is)
            expected.append(ref.log_softmax(x, x_is, y_is, axis))
            distance = (x - x.max(axis, keepdims=True).astype(np.int64)) * np.float64(x_is.scale)
            real = distance - np.log(np.exp(distance).sum(axis, keepdims=True))
            exact.append(np.clip(real / np.float64(y_is.scale) + y_is.zero, *y_is.bounds))
    for y, wanted, real in zip(g.run(TARGETS[family]), expected, exact, strict=True):
        np.testing.assert_array_equal(y, wanted)
        assert np.abs(y - real).max() < 0.51


@families
@widths
def test_quotients(family: str, dtype: str):
    """Of tensors of one shape and of broadcast ones; divisors around 0, and 0 itself."""
    random, bits = np.random.default_rng(4), np.iinfo(dtype).bits
    g, expected, exact = Graph(), [], []
    for shapes in [((4, 60), (4, 60)), ((3, 5, 40), (5, 1)), ((1, 7), (64, 7))]:
        for span in (1e-3, 500.0):
            a_is, b_is = whole(dtype, span / 2**bits), whole(dtype, 2.0 / 2**bits)
            y_is = Meaning(dtype, np.float32(span * 8 / 2**bits), 0 if bits == 16 else 3)
            a, b = (integers(int(random.integers(99)), dtype, *shape) for shape in shapes)
            b.flat[:3], a.flat[:3] = b_is.zero, [a_is.zero, a_is.zero + 1, a_is.zero - 1]
            g.result(g.op("Div", [g.input(a, a_is), g.input(b, b_is)]), y_is)
            expected.append(ref.quotient(a, a_is, b, b_is, y_is))
            above, below = (
                (q.astype(np.float64) - meaning.zero) * np.float64(meaning.scale)
                for q, meaning in ((a, a_is), (b, b_is))
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                real = np.nan_to_num(above / below, posinf=1e9, neginf=-1e9)
            exact.append(np.clip(real / np.float64(y_is.scale) + y_is.zero, *y_is.bounds))
    for y, wanted, real in zip(g.run(TARGETS[family]), expected, exact, strict=True):
        np.testing.assert_array_equal(y, wanted)
        assert np.abs(y - real).max() < 0.50001


CASES = [((6, 3, 48), [2], True), ((4, 10), [1], False), ((3, 5, 8, 9), [2, 3], True), ((2, 768), [1], True)]


@families
@widths
def test_normalisations(family: str, dtype: str):
    """Layer, RMS and instance normalisation."""
    random = np.random.default_rng(3)
    bits = np.iinfo(dtype).bits
    y_is = Meaning(dtype, np.float32(10 / 2**bits), 0 if bits == 16 else 3)
    g, expected, exact = Graph(), [], []
    for shape, axes, centred in CASES:
        for scale, epsilon in ((2.0**-bits, 1e-5), (7.0, 1e-12), (1e-4, 0.1)):
            x_is, x = whole(dtype, scale), integers(len(shape), dtype, *shape)
            channels = shape[1] if len(shape) == 4 else shape[-1]
            gamma, beta = random.normal(size=(2, channels)).astype(np.float32)
            affine = [g.constant(gamma), *([g.constant(beta)] if centred else [])]
            op = {4: "InstanceNormalization"}.get(
                len(shape), "LayerNormalization" if centred else "RMSNormalization"
            )
            g.result(g.op(op, [g.input(x, x_is), *affine], epsilon=epsilon), y_is)
            column = (channels, 1, 1) if len(shape) == 4 else (channels,)
            gamma, beta = gamma.reshape(column), beta.reshape(column) if centred else np.zeros(1)
            expected.append(ref.normalise(x, x_is, axes, np.float32(epsilon), gamma, beta, y_is, centred))
            real = (x.astype(np.float64) - x_is.zero) * np.float64(x_is.scale)
            real = real - real.mean(tuple(axes), keepdims=True) if centred else real
            unit = real / np.sqrt((real**2).mean(tuple(axes), keepdims=True) + np.float32(epsilon))
            steps = (unit * gamma + beta) / np.float64(y_is.scale) + y_is.zero
            exact.append(np.clip(steps, *y_is.bounds))
    for y, wanted, real in zip(g.run(TARGETS[family]), expected, exact, strict=True):
        np.testing.assert_array_equal(y, wanted)
        assert np.abs(y - real).max() < 0.51


@families
@widths
def test_linear_resize(family: str, dtype: str):
    bits = np.iinfo(dtype).bits
    x_is, y_is = whole(dtype, 4 / 2**bits), Meaning(dtype, np.float32(3 / 2**bits), 0 if bits == 16 else 7)
    x = integers(1, dtype, 2, 19, 7, 6)
    g, expected = Graph(), []
    for mode, size in [("half_pixel", (14, 12)), ("align_corners", (5, 20)), ("asymmetric", (21, 4))]:
        sizes = g.constant(np.array([*x.shape[:2], *size]))
        real = g.op(
            "Resize",
            [g.input(x, x_is), "", "", sizes],
            mode="linear",
            coordinate_transformation_mode=mode,
        )
        g.result(real, y_is)
        expected.append(ref.linear_resize(x, x_is, size, mode, y_is, family))
        same = ref.linear_resize(np.full_like(x, 100), x_is, size, mode, x_is, family)
        assert (same == 100).all(), "a picture of one colour keeps it"
    for y, wanted in zip(g.run(TARGETS[family]), expected, strict=True):
        np.testing.assert_array_equal(y, wanted)
