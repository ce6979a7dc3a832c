import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import te

from tests.unit.template_kit import TARGETS, evaluate, random_array
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.isa import find_dot


def conv2d_reference(x, weight, stride, padding, dilation, groups):
    """Convolution of NHWC data with OHWI weights by its definition, in float64 or int64."""
    wide = np.int64 if x.dtype.kind in "iu" else np.float64
    x, weight = x.astype(wide), weight.astype(wide)
    above, left, below, right = padding
    x = np.pad(x, ((0, 0), (above, below), (left, right), (0, 0)))
    channels, kernel_h, kernel_w, depth = weight.shape
    reach_h, reach_w = dilation[0] * (kernel_h - 1) + 1, dilation[1] * (kernel_w - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(x, (reach_h, reach_w), (1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    parts = []
    for group in range(groups):
        part = slice(group * channels // groups, (group + 1) * channels // groups)
        inputs = windows[:, :, :, group * depth : (group + 1) * depth]
        parts.append(np.einsum("nyxchw,ohwc->nyxo", inputs, weight[part]))
    return np.concatenate(parts, -1)


def run_conv2d(lanes, x, weight, stride, padding, dilation, groups):
    target = TARGETS[lanes]
    image = te.placeholder(x.shape, x.dtype.name, name="image")
    if computes.is_depthwise(x.shape[3], weight.shape[0], groups):
        packed = packing.pack_depthwise(weight, packing.weight_lanes(x.dtype.name, target))
        weights = te.placeholder(packed.shape, weight.dtype.name, name="weights")
        result = computes.depthwise_conv2d(image, weights, stride, padding, dilation)
    else:
        packed = packing.pack_conv2d(weight, find_dot(x.dtype.name, weight.dtype.name, target), groups)
        weights = te.placeholder(packed.shape, weight.dtype.name, name="weights")
        result = computes.conv2d(image, weights, weight.shape[0], stride, padding, dilation)
    got, launches = evaluate({image: x, weights: packed}, result, target)
    return got, [launch.template for launch in launches]


@st.composite
def convolutions(draw):
    small = st.integers(1, 3)
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3), (7, 1), (1, 4)]))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    reach = [dilation[i] * (kernel[i] - 1) + 1 - padding[i] - padding[i + 2] for i in range(2)]
    height, width = (draw(st.integers(max(1, r), max(1, r) + 20)) for r in reach)
    depthwise = draw(st.booleans())
    groups = draw(st.integers(2, 40)) if depthwise else draw(st.sampled_from([1, 1, 2, 3]))
    depth = 1 if depthwise else draw(st.integers(1, 20))
    channels = 1 if depthwise else draw(st.integers(1, 70))
    return {
        "x": (draw(small), height, width, groups * depth),
        "weight": (groups * channels, *kernel, depth),
        "stride": draw(st.tuples(small, small)),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }


@pytest.mark.parametrize("lanes", TARGETS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=convolutions())
def test_random_shapes(lanes, case):
    rng = np.random.default_rng(0)
    x = random_array(rng, case["x"], "float32")
    weight = random_array(rng, case["weight"], "float32")
    window = case["stride"], case["padding"], case["dilation"], case["groups"]
    got, templates = run_conv2d(lanes, x, weight, *window)
    expected = conv2d_reference(x, weight, *window)
    assert len(templates) == 1
    assert templates != ["generic"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("groups", [1, 12])
@pytest.mark.parametrize("lanes", TARGETS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int8", "uint8"])
def test_types(dtype, lanes, groups):
    rng = np.random.default_rng(1)
    x = random_array(rng, (1, 9, 11, 12), dtype)
    weight = random_array(rng, (12 if groups > 1 else 21, 3, 3, 12 // groups), dtype)
    window = (1, 2), (1, 1, 0, 1), (1, 1), groups
    got, _ = run_conv2d(lanes, x, weight, *window)
    expected = conv2d_reference(x, weight, *window)
    if dtype in ("int8", "uint8"):
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, expected)
    else:
        error = {"float64": 1e-14, "bfloat16": 2.0**-8}[dtype]
        np.testing.assert_allclose(got.astype(np.float64), expected, rtol=error, atol=error)


@pytest.mark.parametrize("lanes", [16, 8])
def test_float16(lanes):
    rng = np.random.default_rng(2)
    x = random_array(rng, (1, 9, 11, 12), "float16")
    weight = random_array(rng, (21, 3, 3, 12), "float16")
    window = (1, 1), (1, 1, 1, 1), (1, 1), 1
    got, _ = run_conv2d(lanes, x, weight, *window)
    np.testing.assert_allclose(got, conv2d_reference(x, weight, *window), rtol=2.0**-10, atol=2.0**-10)


def test_window_over_padding_alone():
    """Output rows and columns that see nothing but padding are zero."""
    x = np.ones((1, 2, 2, 3), "float32")
    weight = np.ones((5, 1, 1, 3), "float32")
    got, _ = run_conv2d(16, x, weight, (1, 1), (3, 2, 1, 4), (1, 1), 1)
    expected = np.zeros((1, 6, 8, 5), "float32")
    expected[:, 3:5, 2:4] = 3
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(("dilation", "width"), [(1, 250), (1, 40), (3, 500)])
def test_kernel_too_wide_to_unroll(dilation, width, groups):
    rng = np.random.default_rng(5)
    x = random_array(rng, (1, 3, width, 6), "float32")
    weight = random_array(rng, (12 if groups < 6 else 6, 2, 130, 6 // groups), "float32")
    pad = 65 * dilation
    window = (1, 1), (1, pad, 0, pad - 1), (1, dilation), groups
    got, _ = run_conv2d(16, x, weight, *window)
    expected = conv2d_reference(x, weight, *window)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
