"""Statistics that stream, and ranges chosen from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tvm_ipu.quantize import weights
from tvm_ipu.quantize.fit import METHODS, squared_error
from tvm_ipu.quantize.grid import activation_grid, weight_grid
from tvm_ipu.quantize.histogram import BINS
from tvm_ipu.quantize.statistics import Statistics

floats = st.floats(-(2.0**100), 2.0**100, width=32)
arrays = st.lists(st.lists(floats, min_size=1, max_size=20), min_size=1, max_size=6)


def observed(parts: list[np.ndarray]) -> Statistics:
    statistics = Statistics()
    for number, part in enumerate(parts):
        assert statistics.observe(part, number)
    return statistics


@given(arrays)
@settings(deadline=None, max_examples=50)
def test_histogram_counts_everything_where_it_is(parts: list[list[float]]):
    values = [np.array(part, np.float32) for part in parts]
    histogram = observed(values).histogram
    assert histogram is not None
    whole = np.concatenate(values).astype(np.float64)
    bins = np.floor(np.ldexp(whole, -histogram.exponent)).astype(np.int64) - histogram.first
    assert np.array_equal(np.bincount(bins, minlength=histogram.counts.size), histogram.counts)
    assert histogram.counts.size <= BINS


@given(arrays, st.randoms())
@settings(deadline=None, max_examples=50)
def test_histogram_does_not_depend_on_order_or_workers(parts: list[list[float]], random):
    values = [np.array(part, np.float32) for part in parts]
    one = observed(values).histogram
    random.shuffle(values)
    half = len(values) // 2
    other, rest = observed(values[:half]).histogram, observed(values[half:]).histogram
    assert one is not None
    assert other is not None
    assert rest is not None
    other.merge(rest)
    assert (one.exponent, one.first) == (other.exponent, other.first)
    assert np.array_equal(one.counts, other.counts)


def test_statistics_survive_a_file():
    statistics = observed([np.float32([1, 2, -3]), np.float32([7, -1])])
    again = Statistics.from_arrays(statistics.to_arrays())
    assert (again.low, again.high, again.low_sample, again.high_sample) == (-3, 7, 0, 1)
    assert again.mean_range == (-2, 4.5)
    assert again.histogram is not None
    assert np.array_equal(again.histogram.counts, statistics.histogram.counts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float):
    statistics = Statistics()
    assert not statistics.observe(np.float32([1, value]), 0)
    assert statistics.count == 0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["normal", "heavy", "rectified", "narrow"])
def test_least_error_is_the_best_of_all_methods(kind: str, bits: int):
    random = np.random.default_rng(3)
    values = {
        "normal": random.normal(size=50000),
        "heavy": random.standard_t(2, size=50000),
        "rectified": np.maximum(random.standard_t(2, size=50000), 0),
        "narrow": 5 + 0.1 * random.normal(size=50000),
    }[kind].astype(np.float32)
    statistics = observed(list(values.reshape(10, -1)))
    histogram = statistics.histogram
    assert histogram is not None
    errors = {
        name: squared_error(histogram.centres(), histogram.counts, method(statistics, bits), bits)
        for name, method in METHODS.items()
    }
    assert errors["mse"] <= 1.02 * min(errors.values())
    low, high = METHODS["mse"](statistics, bits)
    true = np.square(activation_grid(low, high, bits).rounded(values) - values).sum()
    plain = np.square(activation_grid(statistics.low, statistics.high, bits).rounded(values) - values).sum()
    assert true <= 1.02 * plain


def test_percentile_leaves_one_in_ten_thousand_out():
    values = np.random.default_rng(0).uniform(-1, 1, (20, 5000)).astype(np.float32)
    values[3, 7], values[4, 9] = 1000, -500
    low, high = METHODS["percentile"](observed(list(values)), 8)
    assert -1.6 < low < -0.9
    assert 0.9 < high < 1.6


def test_entropy_clips_a_lonely_peak_and_keeps_a_uniform_range():
    random = np.random.default_rng(0)
    lonely = random.normal(size=100000).astype(np.float32)
    lonely[0] = 50
    assert METHODS["entropy"](observed([lonely]), 8)[1] < 15
    uniform = random.uniform(-1, 1, 100000).astype(np.float32)
    assert METHODS["entropy"](observed([uniform]), 8)[1] > 0.9


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_clipped_weights_are_never_worse(bits: int, axis: int | None):
    value = np.random.default_rng(1).standard_t(4, size=(8, 6, 3, 3)).astype(np.float32)
    errors = {}
    for name, high in {
        "largest": weights.largest(value, axis),
        "least": weights.least_error(value, axis, bits),
    }.items():
        error = np.square(weight_grid(high, bits).rounded(value, axis) - value)
        errors[name] = error.sum(tuple(a for a in range(4) if a != axis))
    assert (errors["least"] <= errors["largest"] * 1.0001).all()
    if bits == 4:
        assert errors["least"].sum() < 0.9 * errors["largest"].sum()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["normal", "one large", "all equal", "zero"])
def test_search_of_weights_finds_the_best_of_all_shares(kind: str, bits: int):
    """Shares that cannot win are left out: the same ranges as those of a search that tries all."""
    rng = np.random.default_rng(3)
    value = rng.standard_normal((24, 10, 3, 3)).astype(np.float32) * rng.uniform(0.01, 9, (24, 1, 1, 1))
    value = value.astype(np.float32)
    if kind == "one large":
        value[:, 4, 1, 2] *= 40
    elif kind == "all equal":
        value[:] = 0.5
    elif kind == "zero":
        value[::2] = 0
    rows, steps = value.reshape(24, -1), {4: 7, 8: 127}[bits]
    errors = []
    for share in weights.SHARES[bits]:
        scale = np.maximum(np.abs(rows).max(1).astype(np.float64) * share, 1e-30).astype(np.float32)
        step = scale[:, None] / np.float32(steps)
        rounded = np.clip(np.rint(rows / step), -steps, steps) * step
        errors.append(np.square(rounded - rows).sum(1))
    largest = np.argmin(np.array(errors)[::-1], 0)
    wanted = np.abs(rows).max(1).astype(np.float64) * weights.SHARES[bits][::-1][largest]
    np.testing.assert_array_equal(weights.least_error(value, 0, bits), wanted)
