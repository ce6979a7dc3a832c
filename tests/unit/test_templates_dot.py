"""Products of narrow types by each instruction set's dot products: integers exactly, bfloat16 closely."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import te

from tests.unit.template_kit import SCALAR, evaluate, random_array
from tests.unit.test_templates_conv2d import conv2d_reference
from tvm_ipu.base.target import load_target
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.isa import find_dot, storage_for, widens_slowly

_V3 = load_target("x86-64-v3")
AVX_VNNI = replace(
    _V3,
    name="x86-64-avxvnni",
    features=("+avxvnni",),
    requires=(*_V3.requires, "avxvnni"),
    isa=_V3.isa | {"avxvnni"},
)
TARGETS = {
    target.name: target
    for target in (
        SCALAR,
        AVX_VNNI,
        *(load_target(f"x86-64-{level}") for level in ("v2", "v3", "v4", "vnni", "vnni-bf16")),
    )
}
PAIRS = [(a, b) for a in ("uint8", "int8") for b in ("int8", "uint8")] + [
    ("int16", "int16"),
    ("int16", "int8"),
]


def test_storage():
    """Bytes lie in memory as 16-bit numbers where only instructions on those multiply them."""
    wide = {name for name, target in TARGETS.items() if storage_for("uint8", "int8", target) == "int16"}
    assert wide == {"x86-64-v2", "x86-64-v3", "x86-64-v4"}
    assert storage_for("int8", "int8", TARGETS["x86-64-vnni"]) == "int16"
    assert storage_for("float32", "float32", TARGETS["x86-64-v3"]) == "float32"
    slow = {name for name, target in TARGETS.items() if widens_slowly("int16", "int8", target)}
    assert slow == {"x86-64-v2", "x86-64-v3", "x86-64-v4"}


def test_instructions():
    """Byte products take four steps at once wherever there are vectors, and one instruction with VNNI."""
    for name, target in TARGETS.items():
        dots = {pair: find_dot(*pair, target) for pair in PAIRS}
        expected = 1 if target is SCALAR else 4
        assert [dots[pair].group for pair in PAIRS[:4]] == [expected] * 4
        assert (dots["uint8", "int8"].parts == 1) == ("vnni" in name or target is SCALAR)
    assert find_dot("bfloat16", "bfloat16", TARGETS["x86-64-vnni-bf16"]).group == 2
    assert find_dot("bfloat16", "bfloat16", TARGETS["x86-64-vnni"]).plain


@st.composite
def operands(draw, pairs):
    """Operands of a product, sometimes the extremes of their types in every element."""
    left, right = draw(st.sampled_from(pairs))
    extreme = draw(st.sampled_from(["", "", "min", "max"]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))

    def tensor(shape, dtype):
        if extreme and dtype.endswith("8"):
            return np.full(shape, getattr(np.iinfo(dtype), extreme), dtype)
        return random_array(rng, shape, dtype)

    return left, right, tensor


@st.composite
def products(draw, pairs=PAIRS):
    left, right, tensor = draw(operands(pairs))
    rows, depth, columns = (draw(st.integers(1, 40)) for _ in range(3))
    return tensor((rows, depth), left), tensor((depth, columns), right), draw(st.booleans())


@st.composite
def convolutions(draw, pairs=PAIRS):
    left, right, tensor = draw(operands(pairs))
    groups, depth, channels = (
        draw(st.sampled_from(sizes)) for sizes in ((1, 1, 3), (1, 3, 4, 8, 13), (1, 5, 35))
    )
    kernel, stride = (
        draw(st.sampled_from([(1, 1), (3, 3), (2, 5)])),
        draw(st.sampled_from([(1, 1), (2, 1), (2, 2)])),
    )
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    size = draw(st.integers(5, 12)), draw(st.integers(5, 20))
    x = tensor((1, *size, groups * depth), left)
    pad_value = draw(st.sampled_from([0, 0, 7])) if "int" in left else 0
    return x, tensor((groups * channels, *kernel, depth), right), stride, padding, groups, pad_value


def convolve(x, weight, stride, padding, groups, pad_value):
    above, left, below, right = padding
    filled = np.pad(x, ((0, 0), (above, below), (left, right), (0, 0)), constant_values=pad_value)
    return conv2d_reference(filled, weight, stride, (0, 0, 0, 0), (1, 1), groups)


def dense(x, weight, target):
    packed = packing.pack_dense(weight, find_dot(x.dtype.name, weight.dtype.name, target))
    left = te.placeholder(x.shape, x.dtype.name, name="left")
    right = te.placeholder(packed.shape, weight.dtype.name, name="right")
    out = computes.accumulator(x.dtype.name)
    return evaluate({left: x, right: packed}, computes.dense(left, right, weight.shape[1], out), target)[0]


def matmul(a, b, transposed, target):
    b = np.ascontiguousarray(b.T) if transposed else b
    left = te.placeholder(a.shape, a.dtype.name, name="left")
    right = te.placeholder(b.shape, b.dtype.name, name="right")
    result = computes.matmul(left, right, transposed, computes.accumulator(a.dtype.name))
    return evaluate({left: a, right: b}, result, target)[0]


def conv2d(x, weight, stride, padding, groups, pad_value, target, row_columns=None):
    dot = find_dot(x.dtype.name, weight.dtype.name, target)
    packed = packing.pack_conv2d(weight, dot, groups, row_columns is not None)
    left = te.placeholder(x.shape, x.dtype.name, name="left")
    right = te.placeholder(packed.shape, weight.dtype.name, name="right")
    result = computes.conv2d(
        left,
        right,
        weight.shape[0],
        stride,
        padding,
        out_dtype=dot.acc,
        pad_value=pad_value,
        row_columns=row_columns,
    )
    got, (launch,) = evaluate({left: x, right: packed}, result, target)
    assert launch.template in ("conv2d", "gemm")
    return got


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(case=products())
def test_integer_products(name, case):
    a, b, transposed = case
    expected = a.astype(np.int64) @ b.astype(np.int64)
    np.testing.assert_array_equal(dense(a, b, TARGETS[name]), expected)
    np.testing.assert_array_equal(matmul(a, b, transposed, TARGETS[name]), expected)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(case=convolutions())
def test_integer_convolutions(name, case):
    np.testing.assert_array_equal(conv2d(*case, TARGETS[name]), convolve(*case))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(("kernel", "stride"), [((7, 7), (2, 2)), ((3, 3), (1, 1)), ((2, 5), (1, 3))])
def test_integer_convolutions_in_whole_rows(name, kernel, stride):
    rng = np.random.default_rng(0)
    x, weight = random_array(rng, (2, 12, 31, 3), "uint8"), random_array(rng, (20, *kernel, 3), "int8")
    case = x, weight, stride, (0, 0, 0, 0), 1, 0
    np.testing.assert_array_equal(conv2d(*case, TARGETS[name], row_columns=kernel[1]), convolve(*case))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(("width", "kernel"), [(17, 3), (400, 90)])
def test_depthwise_with_a_value_in_the_padding(name, width, kernel):
    """Both where taps are emitted one by one and where they are a loop."""
    target, rng = TARGETS[name], np.random.default_rng(0)
    x, weight = random_array(rng, (1, 5, width, 20), "uint8"), random_array(rng, (20, 3, kernel, 1), "int8")
    packed = packing.pack_depthwise(weight, packing.weight_lanes("uint8", target))
    left = te.placeholder(x.shape, "uint8", name="left")
    right = te.placeholder(packed.shape, "int8", name="right")
    padding = (1, kernel // 2, 2, kernel // 2)
    result = computes.depthwise_conv2d(left, right, (1, 1), padding, pad_value=9)
    got, _ = evaluate({left: x, right: packed}, result, target)
    np.testing.assert_array_equal(got, convolve(x, weight, (1, 1), padding, 20, 9))


def test_wide_window_with_a_value_in_the_padding():
    """Taps of the window are a loop."""
    rng = np.random.default_rng(0)
    x, weight = random_array(rng, (1, 4, 400, 6), "uint8"), random_array(rng, (20, 2, 90, 6), "int8")
    case = x, weight, (1, 1), (1, 45, 0, 44), 1, 9
    np.testing.assert_array_equal(conv2d(*case, TARGETS["x86-64-vnni"]), convolve(*case))


BFLOAT16 = [("bfloat16", "bfloat16")]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(product=products(BFLOAT16), convolution=convolutions(BFLOAT16))
def test_bfloat16(product, convolution):
    """Products are exact in float32, so that only sums are rounded."""
    target = TARGETS["x86-64-vnni-bf16"]
    a, b, transposed = product
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(dense(a, b, target), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(matmul(a, b, transposed, target), expected, rtol=1e-5, atol=1e-5)
    expected = convolve(*convolution)
    np.testing.assert_allclose(conv2d(*convolution, target), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [16, 20])
def test_results_are_rounded_to_nearest_even(columns):
    """By the instruction, where a vector is full, as by operations on bits."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (200, 1), np.uint32)
    bits[:6, 0] = [0x7F800000, 0xFF800000, 0x7F800001, 0xFFC00000, 0x3F808000, 0x7F7FFFFF]
    x = bits.view(np.float32)
    x[np.abs(x) < np.finfo(np.float32).tiny] = 0  # which the instruction takes for zero
    target = TARGETS["x86-64-vnni-bf16"]
    packed = packing.pack_dense(np.ones((1, columns), np.float32), find_dot("float32", "float32", target))
    left = te.placeholder(x.shape, "float32", name="left")
    right = te.placeholder(packed.shape, "float32", name="right")
    result = computes.dense(left, right, columns, "bfloat16")
    got, _ = evaluate({left: x, right: packed}, result, target)
    with np.errstate(invalid="ignore"):
        expected = np.broadcast_to(x.astype(got.dtype), got.shape)
    np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))


def test_a_nan_stays_in_its_row():
    """Padding of the reduction to whole groups reads no neighbouring element."""
    target = TARGETS["x86-64-vnni-bf16"]
    a, b = (random_array(np.random.default_rng(0), shape, "bfloat16") for shape in ((4, 5), (5, 20)))
    a[2] = np.nan
    got = dense(a, b, target)
    assert np.isnan(got[2]).all()
    assert np.isfinite(np.delete(got, 2, axis=0)).all()
