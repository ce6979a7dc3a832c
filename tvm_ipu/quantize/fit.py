"""Ranges of activations from their statistics; docs/calibration.md names the sources."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvm_ipu.base.graph import Array
from tvm_ipu.quantize.grid import activation_grid
from tvm_ipu.quantize.histogram import Histogram
from tvm_ipu.quantize.statistics import Statistics

Range = tuple[float, float]

SHARES = tuple(1 - number / 64 for number in range(60))
"""Shares of an end of the range that searches try."""

_LEVELS = 256
_PERCENTILE = 1e-4


def min_max(found: Statistics, _: int) -> Range:
    """All numbers that were seen."""
    return found.low, found.high


def mean_min_max(found: Statistics, _: int) -> Range:
    """The means of the samples' ranges."""
    return found.mean_range


def percentile(found: Statistics, _: int) -> Range:
    """All but one in 10,000 of the numbers on either side."""
    histogram = _histogram(found)
    share = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1)
    first = int(np.searchsorted(share, _PERCENTILE, "right"))
    last = int(np.searchsorted(share, 1 - _PERCENTILE))
    width = 2.0**histogram.exponent
    low, high = (histogram.first + first) * width, (histogram.first + last + 1) * width
    return max(low, found.low), min(high, found.high)


def least_error(found: Statistics, bits: int) -> Range:
    """The range with the least squared error, found by narrowing its ends in turn."""
    histogram = _histogram(found)
    kept = histogram.counts > 0
    centres, counts = histogram.centres()[kept], histogram.counts[kept]
    return _narrowed(found, lambda ends: squared_error(centres, counts, ends, bits))


def entropy(found: Statistics, _: int) -> Range:
    """The range whose 256 levels tell most of the distribution: least Kullback-Leibler divergence."""
    histogram = _histogram(found)
    return _narrowed(found, lambda ends: _divergence(histogram, ends))


def _narrowed(found: Statistics, cost: Callable[[Range], float]) -> Range:
    """The range of least cost, its ends narrowed in turn, twice; the wider one of equals."""
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    best = (low, high)
    for _ in range(2):
        if high > 0:
            best = min(((best[0], high * share) for share in SHARES), key=cost)
        if low < 0:
            best = min(((low * share, best[1]) for share in SHARES), key=cost)
    return best


METHODS: dict[str, Callable[[Statistics, int], Range]] = {
    "min_max": min_max,
    "mean_min_max": mean_min_max,
    "percentile": percentile,
    "mse": least_error,
    "entropy": entropy,
}
"""By name; each takes statistics and bits."""


def squared_error(centres: Array, counts: Array, ends: Range, bits: int) -> float:
    """Sum of squared errors of numbers on the grid of a range."""
    grid = activation_grid(*ends, bits)
    scale, zero = float(grid.scale), int(grid.zero)
    low, high = ((limit - zero) * scale for limit in grid.limits)
    rounded = np.clip(np.rint(centres / scale) * scale, low, high)
    return float(np.dot(np.square(rounded - centres), counts))


def _divergence(histogram: Histogram, ends: Range) -> float:
    """Of the distribution in 256 levels from the one in all bins, numbers outside counted at the ends."""
    width = 2.0**histogram.exponent
    edges = (np.arange(histogram.counts.size) + histogram.first) * width
    inside = (edges + width > ends[0]) & (edges <= ends[1])
    at = np.flatnonzero(inside)
    if not at.size:
        return np.inf
    true = histogram.counts[at[0] : at[-1] + 1].astype(np.float64)
    clipped = true.copy()
    clipped[0] += histogram.counts[: at[0]].sum()
    clipped[-1] += histogram.counts[at[-1] + 1 :].sum()
    level = np.minimum(np.arange(true.size) * _LEVELS // true.size, _LEVELS - 1)
    filled = true > 0
    sums = np.bincount(level, true, _LEVELS)
    spread = np.bincount(level, filled, _LEVELS)
    model = np.where(filled, (sums / np.maximum(spread, 1))[level], 0.0)
    p, q = clipped / max(clipped.sum(), 1), model / max(model.sum(), 1)
    some = p > 0
    q = np.maximum(q, 1e-12)
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


def _histogram(found: Statistics) -> Histogram:
    assert found.histogram is not None
    return found.histogram
