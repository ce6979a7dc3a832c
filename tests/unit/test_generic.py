"""The generic rule against numpy: every kind of operation, awkward sizes, all vector lengths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import te, tirx, topi

from tests.unit.generic_kit import LANES, Tensor, close, normal, run, scheduled, softmax
from tests.unit.template_kit import TARGETS, evaluate, guarded, run_launch
from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.kernels.select import schedule


@LANES
@pytest.mark.parametrize("shape", [(1,), (7,), (16,), (100003,), (3, 5, 7), (2, 1, 33, 64), ()])
def test_elementwise_chain(shape: tuple[int, ...], lanes: int) -> None:
    x, y = normal(*shape), normal(*shape, seed=1)
    found, launches = run(lambda a, b: topi.nn.relu(topi.add(topi.multiply(a, b), a)), [x, y], TARGETS[lanes])
    close(found, np.maximum(x * y + x, 0), 1e-6)
    assert len(launches) == 1
    assert scheduled(launches, TARGETS[lanes])


@LANES
@pytest.mark.parametrize("other", [(64,), (57, 1), (1, 1, 1, 1), (3, 57, 1, 64)])
def test_broadcast(other: tuple[int, ...], lanes: int) -> None:
    x, y = normal(3, 57, 5, 64), normal(*other, seed=1)
    if other == (57, 1):
        x = normal(3, 5, 57, 64)
    found, _ = run(topi.add, [x, y], TARGETS[lanes])
    close(found, x + y, 1e-7)


@LANES
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 77, 130), (2, 1000, 33)])
def test_softmax_is_one_kernel(shape: tuple[int, ...], axis: int, lanes: int) -> None:
    x = normal(*shape)
    found, launches = run(lambda a: topi.nn.softmax(a, axis), [x], TARGETS[lanes])
    close(found, softmax(x.astype(np.float64), axis))
    assert scheduled(launches, TARGETS[lanes])
    if np.prod(shape) // shape[axis] >= 32:
        assert len(launches) == 1


REDUCTIONS = {
    "sum": (topi.sum, np.sum),
    "max": (topi.max, np.max),
    "min": (topi.min, np.min),
    "argmax": (topi.argmax, np.argmax),
    "argmin": (topi.argmin, np.argmin),
}


@LANES
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", REDUCTIONS)
def test_reduction(kind: str, axis: int, lanes: int) -> None:
    ours, numpys = REDUCTIONS[kind]
    for shape in [(5, 77, 130), (33, 8, 3), (64, 100, 17)]:
        x = normal(*shape)
        found, launches = run(lambda a, axis=axis: ours(a, axis), [x], TARGETS[lanes])
        close(found, numpys(x, axis))
        assert scheduled(launches, TARGETS[lanes])


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_reduction_of_several_axes(axes: tuple[int, ...]) -> None:
    x = normal(9, 31, 40)
    found, _ = run(lambda a: topi.sum(a, axes), [x], TARGETS[16])
    close(found, x.astype(np.float64).sum(axes))


def test_maximum_of_infinities() -> None:
    x = np.full((3, 50), -np.inf, "float32")
    x[1, 7] = 2
    found, _ = run(lambda a: topi.max(a, 1), [x], TARGETS[16])
    np.testing.assert_array_equal(found, [-np.inf, 2, -np.inf])


def test_first_of_equal_maxima_is_taken() -> None:
    x = np.zeros((4, 100), "float32")
    x[2, [40, 70]] = 1
    found, _ = run(lambda a: topi.argmax(a, 1), [x], TARGETS[16])
    np.testing.assert_array_equal(found, [0, 0, 40, 0])


@pytest.mark.parametrize(
    ("shape", "axis"), [((7, 33), 1), ((3, 5, 16), 0), ((1, 8192), 1), ((2, 3, 300, 4), 2)]
)
def test_both_results_of_an_arg_max_are_wanted(shape: tuple[int, ...], axis: int) -> None:
    def larger(a: list[tirx.Expr], b: list[tirx.Expr]) -> tuple[tirx.Expr, tirx.Expr]:
        is_a = tirx.any(a[1] > b[1], tirx.all(a[1].equal(b[1]), a[0] < b[0]))
        return tirx.Select(is_a, a[0], b[0]), tirx.Select(is_a, a[1], b[1])

    reducer = te.comm_reducer(larger, lambda *dtypes: (tirx.const(-1, dtypes[0]), tirx.min_value(dtypes[1])))
    x, k = te.placeholder(shape, "float32", name="x"), te.reduce_axis((0, shape[axis]), "k")

    def element(*at: tirx.Expr) -> tirx.Expr:
        return reducer((k.var.astype("int64"), x(*at[:axis], k, *at[axis:])), axis=k)

    index, value = te.compute((*shape[:axis], *shape[axis + 1 :]), element, name="arg")
    func = te.create_prim_func([x, index, value], index_dtype_override="int64")
    launches, temps = schedule(func, TARGETS[16])
    data = np.random.default_rng(0).integers(-5, 5, shape).astype("float32")
    expected = data.argmax(axis), data.max(axis)
    arrays = [guarded(a.shape, a.dtype) for a in (data, *expected)]
    arrays[0][...] = data
    temporaries = [guarded(size, numpy_dtype(dtype)) for size, dtype in temps]
    for launch in launches:
        of = {"param": arrays, "temp": temporaries}
        run_launch(launch, [of[kind][number] for kind, number in launch.args], TARGETS[16])
    for found, wanted in zip(arrays[1:], expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_long_sum_is_shared_and_accurate() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (64, 128 * 128)).astype("float32")
    found, launches = run(lambda a: topi.sum(a, (0, 1)), [x], TARGETS[16])
    close(found, x.astype(np.float64).sum(), 2e-6)
    assert launches[0].extent >= 8
    assert len(launches) == 2


@LANES
def test_layer_norm(lanes: int) -> None:
    x, scale, shift = normal(5, 50, 768), normal(768, seed=1), normal(768, seed=2)

    def build(a: Tensor, s: Tensor, b: Tensor) -> Tensor:
        return topi.nn.layer_norm(a, s, b, [2], 1e-5)

    found, launches = run(build, [x, scale, shift], TARGETS[lanes])
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    close(found, centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + shift)
    assert len(launches) == 1


@LANES
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_pooling(layout: str, kind: str, lanes: int) -> None:
    x = normal(1, 15, 17, 24)

    def build(a: Tensor) -> Tensor:
        return topi.nn.pool2d(
            a, [3, 3], [2, 2], [1, 1], [1, 1, 1, 1], kind, layout=layout, count_include_pad=False
        )

    image = x if layout == "NHWC" else x.transpose(0, 3, 1, 2).copy()
    found, launches = run(build, [image], TARGETS[lanes])
    fill = -np.inf if kind == "max" else np.nan
    wide = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(1, 2))[:, ::2, ::2]
    expected = windows.max((-2, -1)) if kind == "max" else np.nanmean(windows, (-2, -1))
    close(found, expected if layout == "NHWC" else expected.transpose(0, 3, 1, 2))
    assert scheduled(launches, TARGETS[lanes])


@LANES
def test_matrix_products_without_a_template(lanes: int) -> None:
    x, y, bias = normal(3, 37, 50), normal(3, 50, 70, seed=1), normal(70, seed=2)
    k = te.reduce_axis((0, 50), "k")

    def build(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        product = te.compute((3, 37, 70), lambda n, i, j: te.sum(a[n, i, k] * b[n, k, j], axis=k), name="mm")
        return topi.nn.relu(topi.add(product, c))

    found, launches = run(build, [x, y, bias], TARGETS[lanes])
    close(found, np.maximum(x.astype(np.float64) @ y + bias, 0))
    assert len(launches) == 1


@LANES
@pytest.mark.parametrize("groups", [1, 4])
def test_convolution_without_a_template(groups: int, lanes: int) -> None:
    x, w = normal(1, 8, 9, 11), normal(12, 8 // groups, 3, 3, seed=1)

    def build(a: Tensor, b: Tensor) -> Tensor:
        return topi.nn.group_conv2d_nchw(a, b, 2, 1, 1, groups)

    found, _ = run(build, [x, w], TARGETS[lanes])
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    windows = windows.reshape(1, groups, 8 // groups, *windows.shape[2:])
    kernels = w.reshape(groups, 12 // groups, 8 // groups, 3, 3)
    expected = np.einsum("bgchwij,gocij->bgohw", windows, kernels).reshape(found.shape)
    close(found, expected)


@LANES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_floats_are_computed_in_float32(dtype: str, lanes: int) -> None:
    x = normal(33, 70, dtype=dtype)
    found, _ = run(lambda a: topi.nn.softmax(topi.multiply(a, a), 1), [x], TARGETS[lanes])
    assert found.dtype == numpy_dtype(dtype)
    wide = x.astype(np.float64) ** 2
    close(found, softmax(wide, 1), 2e-3 if dtype == "float16" else 1e-2)


@LANES
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float64"])
def test_other_types(dtype: str, lanes: int) -> None:
    x, y = normal(9, 77, dtype="int32").astype(dtype), normal(9, 77, seed=1, dtype="int32").astype(dtype)
    found, _ = run(lambda a, b: topi.where(topi.equal(a, b), a, topi.maximum(a, b)), [x, y], TARGETS[lanes])
    np.testing.assert_array_equal(found, np.maximum(x, y))


@LANES
def test_logic(lanes: int) -> None:
    x, y = normal(9, 77), normal(9, 77, seed=1)

    def build(a: Tensor, b: Tensor) -> Tensor:
        return topi.logical_and(
            topi.greater(a, b), topi.logical_not(topi.less(b, tirx.const(0.0, "float32")))
        )

    found, _ = run(build, [x, y], TARGETS[lanes])
    np.testing.assert_array_equal(found, (x > y) & ~(y < 0))


def test_cumulative_sum_and_scatter_stay_as_they_are() -> None:
    x = normal(6, 50)
    found, launches = run(lambda a: topi.cumsum(topi.nn.relu(a), 1), [x], TARGETS[16])
    close(found, np.cumsum(np.maximum(x, 0).astype(np.float64), 1))
    assert launches[-1].extent == 6

    at = np.array([3, 1, 4])
    values = normal(3, 50, seed=1)
    found, _ = run(
        lambda a, i, u: topi.scatter_nd(a, topi.reshape(i, (1, 3)), u, "update"), [x, at, values], TARGETS[16]
    )
    expected = x.copy()
    expected[at] = values
    np.testing.assert_array_equal(found, expected)


def test_units_are_few_and_grains_large() -> None:
    x = normal(20000, 3)
    _, (launch,) = run(lambda a: topi.nn.softmax(a, 1), [x], TARGETS[16])
    assert launch.extent <= 4096
    _, (small,) = run(lambda a: topi.nn.relu(a), [normal(64, 64)], TARGETS[16])
    assert small.grain == small.extent


OPERATIONS: list[Callable[[Tensor, np.ndarray, np.random.Generator], tuple[Tensor, np.ndarray]]] = [
    lambda t, a, r: (topi.nn.relu(t), np.maximum(a, 0)),
    lambda t, a, r: (topi.exp(topi.tanh(t)), np.exp(np.tanh(a))),
    lambda t, a, r: (topi.nn.softmax(t, -1), softmax(a, -1)),
    lambda t, a, r: (topi.nn.softmax(t, 0), softmax(a, 0)),
    lambda t, a, r: (topi.max(t, 0, True), a.max(0, keepdims=True)),
    lambda t, a, r: (topi.max(t, -1, True), a.max(-1, keepdims=True)),
    lambda t, a, r: (topi.subtract(t, topi.max(t, 1, True)), a - a.max(1, keepdims=True)),
    lambda t, a, r: _transposed(t, a, r),
    lambda t, a, r: _padded(t, a, r),
    lambda t, a, r: _sliced(t, a, r),
    lambda t, a, r: _joined(t, a, r),
    lambda t, a, r: (topi.reshape(t, (a.shape[0] * a.shape[1], a.shape[2], 1)), a.reshape(-1, a.shape[2], 1)),
]


def _transposed(t: Tensor, a: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    order = rng.permutation(3).tolist()
    return topi.transpose(t, order), a.transpose(order)


def _padded(t: Tensor, a: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    before, after = rng.integers(0, 3, (2, 3)).tolist()
    padded = np.pad(a, list(zip(before, after, strict=True)), constant_values=0.5)
    return topi.nn.pad(t, before, after, tirx.const(0.5, "float32")), padded


def _sliced(t: Tensor, a: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    start = [int(rng.integers(0, (n + 1) // 2)) for n in a.shape]
    step = rng.integers(1, 3, 3).tolist()
    cut = tuple(slice(s, n, d) for s, n, d in zip(start, a.shape, step, strict=True))
    return topi.strided_slice(t, start, list(a.shape), step), a[cut]


def _joined(t: Tensor, a: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    axis = int(rng.integers(0, 3))
    return topi.concatenate([topi.sigmoid(t), t], axis), np.concatenate([1 / (1 + np.exp(-a)), a], axis)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 33, 64])] * 3),
    steps=st.lists(st.integers(0, len(OPERATIONS) - 1), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    lanes=st.sampled_from(list(TARGETS)),
)
def test_random_chains(shape: tuple[int, int, int], steps: list[int], seed: int, lanes: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, shape).astype("float32")
    source = te.placeholder(shape, "float32", name="x")
    tensor, expected = source, x.astype(np.float64)
    for step in steps:
        if expected.size < 200_000:
            tensor, expected = OPERATIONS[step](tensor, expected, rng)
    found, launches = evaluate({source: x}, tensor, TARGETS[lanes])
    close(found, expected, 1e-4)
    assert scheduled(launches, TARGETS[lanes])
