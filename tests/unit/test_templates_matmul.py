import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import te

from tests.unit.template_kit import TARGETS, evaluate, random_array
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.emit import Emitter, flat_buffer
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.templates.transpose import transpose


def run_dense(lanes, x, weight):
    target = TARGETS[lanes]
    packed = packing.pack_dense(weight, find_dot(x.dtype.name, weight.dtype.name, target))
    left = te.placeholder(x.shape, x.dtype.name, name="left")
    right = te.placeholder(packed.shape, weight.dtype.name, name="right")
    got, launches = evaluate({left: x, right: packed}, computes.dense(left, right, weight.shape[1]), target)
    assert [launch.template for launch in launches] == ["gemm"]
    return got


def run_matmul(lanes, a, b, transposed):
    left = te.placeholder(a.shape, a.dtype.name, name="left")
    right = te.placeholder(b.shape, b.dtype.name, name="right")
    got, launches = evaluate({left: a, right: b}, computes.matmul(left, right, transposed), TARGETS[lanes])
    assert [launch.template for launch in launches] == ["matmul"]
    return got


@pytest.mark.parametrize("lanes", TARGETS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    leading=st.sampled_from([(), (2,), (2, 3)]),
    rows=st.integers(1, 70),
    depth=st.integers(1, 70),
    columns=st.integers(1, 150),
)
def test_dense(lanes, leading, rows, depth, columns):
    rng = np.random.default_rng(0)
    x = random_array(rng, (*leading, rows, depth), "float32")
    weight = random_array(rng, (depth, columns), "float32")
    expected = x.astype(np.float64) @ weight.astype(np.float64)
    got = run_dense(lanes, x, weight)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@st.composite
def products(draw):
    rank = draw(st.integers(0, 3))
    batch = [draw(st.integers(1, 3)) for _ in range(rank)]
    lead_a, lead_b = (tuple(draw(st.sampled_from([1, size])) for size in batch) for _ in range(2))
    lead_a, lead_b = (lead[draw(st.integers(0, rank)) :] for lead in (lead_a, lead_b))
    rows, depth, columns = (draw(st.integers(1, 60)) for _ in range(3))
    transposed = draw(st.booleans())
    b = (columns, depth) if transposed else (depth, columns)
    return (*lead_a, rows, depth), (*lead_b, *b), transposed


@pytest.mark.parametrize("lanes", TARGETS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=products())
def test_matmul(lanes, case):
    shape_a, shape_b, transposed = case
    rng = np.random.default_rng(0)
    a, b = random_array(rng, shape_a, "float32"), random_array(rng, shape_b, "float32")
    right = b.swapaxes(-1, -2) if transposed else b
    expected = np.matmul(a.astype(np.float64), right.astype(np.float64))
    got = run_matmul(lanes, a, b, transposed)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("lanes", TARGETS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("kind", ["dense", "matmul", "transposed"])
def test_types(kind, dtype, lanes):
    rng = np.random.default_rng(1)
    a, b = random_array(rng, (2, 19, 37), dtype), random_array(rng, (37, 43), dtype)
    wide = np.int64 if np.issubdtype(a.dtype, np.integer) else np.float64
    expected = a.astype(wide) @ b.astype(wide)
    if kind == "dense":
        got = run_dense(lanes, a, b)
    else:
        got = run_matmul(lanes, a, b.T.copy() if kind == "transposed" else b, kind == "transposed")
    if wide is np.int64:
        np.testing.assert_array_equal(got, expected.astype(got.dtype))
    else:
        error = {"float64": 1e-14, "bfloat16": 2.0**-8}[dtype]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got.astype(np.float64), expected, rtol=error, atol=error * scale)


@pytest.mark.parametrize("transposed", [False, True])
def test_float16(transposed):
    rng = np.random.default_rng(1)
    a, b = random_array(rng, (19, 37), "float16"), random_array(rng, (43, 37), "float16")
    expected = a.astype(np.float64) @ b.T.astype(np.float64)
    got = run_matmul(16, a, b if transposed else b.T.copy(), transposed)
    np.testing.assert_allclose(got, expected, rtol=2.0**-10, atol=2.0**-10)


def test_product_of_a_matrix_with_itself():
    """The same tensor is both operands."""
    a = random_array(np.random.default_rng(1), (23, 23), "float32")
    left = te.placeholder(a.shape, "float32", name="left")
    got, _ = evaluate({left: a}, computes.matmul(left, left, True), TARGETS[16])
    np.testing.assert_allclose(got, a.astype(np.float64) @ a.T.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_transpose_needs_a_square_block():
    e = Emitter()
    buffer = flat_buffer("x", 64, "float32")
    with pytest.raises(ValueError, match="power of two"):
        transpose(e, [e.load(buffer, 8 * i, 8) for i in range(6)])
