"""How far quantised tensors are from the float ones: sums over samples, bounded in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BINS = 64
"""Bars of a histogram."""


@dataclass
class Comparison:
    """A tensor in float and quantised, sample by sample.

    Attributes:
        name: Of the tensor.
        operator: What makes it.
        bits: Of its integers.
        low: Least number that they express.
        high: Largest number.
        elements: Numbers compared.
        outside: How many of the float ones lie below ``low`` or above ``high``: they saturate.
        least: Least float number.
        most: Largest float number.
        worst: Sample with the lowest SQNR, and that.
        float_counts: Histogram of the float numbers over ``edges``; what lies outside is at the ends.
        fixed_counts: Of the quantised ones.
    """

    name: str
    operator: str
    bits: int
    low: float
    high: float
    elements: int = 0
    outside: int = 0
    least: float = math.inf
    most: float = -math.inf
    worst: tuple[int, float] = (-1, math.inf)
    float_counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    fixed_counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    _products: Array = field(default_factory=lambda: np.zeros(4))

    def add(self, expected: Array, found: Array, sample: int = 0) -> None:
        """Compare one sample's values."""
        a, b = (np.asarray(x, np.float64).ravel() for x in (expected, found))
        noise = float(np.square(a - b).sum())
        signal = float(a @ a)
        self._products += np.array([signal, float(b @ b), float(a @ b), noise])
        self.elements += a.size
        half = (self.high - self.low) / 2 / max(2**self.bits - 1, 1)  # numbers within half a step are rounded
        self.outside += int(((a < self.low - half) | (a > self.high + half)).sum())
        self.least = min(self.least, float(a.min(initial=math.inf)))
        self.most = max(self.most, float(a.max(initial=-math.inf)))
        ratio = decibels(signal, noise)
        if ratio < self.worst[1]:
            self.worst = (sample, ratio)
        for counts, values in ((self.float_counts, a), (self.fixed_counts, b)):
            counts += self._histogram(values)

    def _histogram(self, values: Array) -> Array:
        span = self.high - self.low
        if not 0 < span < math.inf:
            return np.zeros(BINS, np.int64)
        places = np.clip((values - self.low) * (BINS / span), 0, BINS - 1).astype(np.int64)
        return np.bincount(places, minlength=BINS)

    @property
    def edges(self) -> Array:
        """Borders of the histogram's bars."""
        return np.linspace(self.low, self.high, BINS + 1)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two, 1 where they are equal."""
        signal, power, product, noise = self._products
        if signal <= 0 or power <= 0:
            return 1.0 if noise == 0 else 0.0
        return float(min(product / math.sqrt(signal * power), 1.0))

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise, decibels."""
        return decibels(float(self._products[0]), float(self._products[3]))

    @property
    def mse(self) -> float:
        """Mean of the squared differences."""
        return float(self._products[3]) / max(self.elements, 1)

    @property
    def saturated(self) -> float:
        """Share of the float numbers that the integers cannot express."""
        return self.outside / max(self.elements, 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file; infinite ratios are None."""
        return {
            "name": self.name,
            "operator": self.operator,
            "bits": self.bits,
            "cosine": self.cosine,
            "sqnr": self.sqnr if math.isfinite(self.sqnr) else None,
            "mse": self.mse,
            "saturated": self.saturated,
            "range": [self.low, self.high],
            "seen": [self.least, self.most] if self.elements else None,
            "worst_sample": self.worst[0],
            "histogram": {"float": self.float_counts.tolist(), "fixed": self.fixed_counts.tolist()},
        }


def decibels(signal: float, noise: float) -> float:
    """A ratio of powers; infinite without noise."""
    if noise <= 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
