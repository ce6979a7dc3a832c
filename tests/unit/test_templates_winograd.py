"""Winograd's minimal filtering: its matrices, its template against float64, and when it is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import te

from tests.unit.template_kit import TARGETS, evaluate, random_array
from tests.unit.test_templates_conv2d import conv2d_reference
from tvm_ipu.kernels import algorithms, computes, packing
from tvm_ipu.kernels.decisions import preferred
from tvm_ipu.kernels.templates import conv2d
from tvm_ipu.kernels.window import Window
from tvm_ipu.kernels.winograd import OUTPUTS, TAPS, transforms


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_matrices_filter(outputs):
    rng = np.random.default_rng(0)
    data, taps = rng.standard_normal(outputs + TAPS - 1), rng.standard_normal(TAPS)
    m = transforms(outputs)
    got = m.outputs @ ((m.weights @ taps) * (m.inputs @ data))
    np.testing.assert_allclose(got, np.convolve(data, taps[::-1], "valid"), rtol=1e-13)


def run_winograd(lanes, outputs, x, weight, padding, choose=preferred, epilogue=None):
    target = TARGETS[lanes]
    image = te.placeholder(x.shape, x.dtype.name, name="image")
    packed = packing.pack_winograd(weight, target.lanes(32), outputs)
    weights = te.placeholder(packed.shape, "float32", name="weights")
    result = computes.winograd_conv2d(image, weights, weight.shape[0], padding)
    inputs = {image: x, weights: packed}
    if epilogue is not None:
        bias, residual = epilogue
        b = te.placeholder(bias.shape, "float32", name="b")
        r = te.placeholder(residual.shape, "float32", name="r")
        inputs |= {b: bias, r: residual}
        sums = te.compute(result.shape, lambda n, y, z, o: result(n, y, z, o) + b(o), name="sums")
        result = te.compute(result.shape, lambda *at: te.max(sums(*at), te.const(0, "float32")) + r(*at))
    got, launches = evaluate(inputs, result, target, choose)
    assert [launch.template for launch in launches] == ["winograd"]
    return got


def reference(x, weight, padding):
    return conv2d_reference(x, weight, (1, 1), padding, (1, 1), 1)


@st.composite
def convolutions(draw):
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    height, width = (draw(st.integers(max(1, 3 - padding[i] - padding[i + 2]), 20)) for i in range(2))
    shape = (draw(st.integers(1, 3)), height, width, draw(st.integers(1, 40)))
    return shape, draw(st.integers(1, 70)), padding


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("lanes", TARGETS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(case=convolutions(), seed=st.integers(0, 10**9))
def test_random_shapes_and_decisions(lanes, outputs, case, seed):
    shape, channels, padding = case
    rng = np.random.default_rng(seed)
    x = random_array(rng, shape, "float32")
    weight = random_array(rng, (channels, 3, 3, shape[3]), "float32")

    def choose(_template, _problem, decisions):
        return decisions[seed % len(decisions)]

    got = run_winograd(lanes, outputs, x, weight, padding, choose)
    expected = reference(x, weight, padding)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("lanes", [16, 4])
def test_epilogue(lanes, outputs):
    rng = np.random.default_rng(1)
    x = random_array(rng, (1, 9, 10, 17), "float32")
    weight = random_array(rng, (37, 3, 3, 17), "float32")
    bias, residual = (random_array(rng, shape, "float32") for shape in ((37,), (1, 9, 10, 37)))
    got = run_winograd(lanes, outputs, x, weight, (1, 1, 1, 1), epilogue=(bias, residual))
    expected = np.maximum(reference(x, weight, (1, 1, 1, 1)) + bias, 0) + residual
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2.0**-10), ("bfloat16", 2.0**-8)])
def test_sixteen_bits(dtype, error):
    rng = np.random.default_rng(2)
    x = random_array(rng, (1, 9, 11, 20), dtype)
    weight = random_array(rng, (21, 3, 3, 20), dtype)
    got = run_winograd(16, 4, x, weight, (1, 1, 1, 1)).astype(np.float64)
    np.testing.assert_allclose(got, reference(x, weight, (1, 1, 1, 1)), rtol=error, atol=1e-4)


def test_values_outside_do_not_spread():
    """An infinity spoils only its own tile's outputs; padding is zero whatever lies beside the image."""
    x = np.ones((1, 8, 8, 3), "float32")
    x[0, 7, 7] = np.inf
    got = run_winograd(16, 4, x, np.ones((5, 3, 3, 3), "float32"), (1, 1, 1, 1))
    np.testing.assert_allclose(got[0, 0, 0], 12, rtol=1e-5)
    assert np.isfinite(got[0, :4, :4]).all()


def problem(size, depth, channels, **changes):
    window = Window(1, (size, size), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    dtypes = ("float32",) * 3
    return replace(conv2d.Problem(window, 1, depth, channels, 16, *dtypes), **changes)


def test_choice_weighs_work_against_weights():
    target = TARGETS[16]
    assert algorithms.space(problem(56, 64, 64), target)[0].outputs == 4
    assert algorithms.space(problem(4, 512, 512), target)[0] == algorithms.DIRECT


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": 2},
        {"dtype": "int32", "left": "uint8", "right": "int8"},
        {"window": Window(1, (56, 56), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1))},
        {"window": Window(1, (56, 56), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2))},
        {"window": Window(1, (56, 56), (1, 3), (1, 1), (0, 1, 0, 1), (1, 1))},
    ],
)
def test_other_convolutions_are_summed(changes):
    assert algorithms.space(problem(56, 64, 64, **changes), TARGETS[16]) == [algorithms.DIRECT]
