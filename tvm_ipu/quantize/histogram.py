"""How often a tensor holds which numbers, in memory that does not grow with the samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tvm_ipu.base.graph import Array

BINS = 4096
"""Bins at most: 16 for each step of 8 bits."""

SAMPLED = 2**16
"""Elements of one array that are counted at most; of larger arrays, every k-th one."""

_LOWEST = -126


@dataclass
class Histogram:
    """Bins of a width that is a power of two, at its multiples.

    Numbers that fall outside make the bins wider, by powers of two. The result is the same for every order
    of the samples and every division among workers: the width depends on the least and largest number only.

    Attributes:
        exponent: Of the width.
        first: Number of the first bin: it starts at ``first * 2**exponent``.
        counts: int64, at most ``BINS``.
    """

    exponent: int = _LOWEST
    first: int = 0
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values: Array, low: float, high: float) -> None:
        """Count finite numbers.

        Args:
            values: float32.
            low: Least of them.
            high: Largest of them.
        """
        flat = values.ravel("K")  # as it lies in memory: the order does not matter
        stride = -(-flat.size // SAMPLED) | 1  # odd: not one and the same channel of many
        some = flat[::stride] if stride > 1 else flat
        exponent = max(self.exponent, _exponent(low, high))
        first, last = _bin(low, exponent), _bin(high, exponent)
        positions = np.floor(np.ldexp(some.astype(np.float64), -exponent)).astype(np.int64) - first
        counts = np.bincount(positions, minlength=last - first + 1)
        self.merge(Histogram(exponent, first, counts))

    def merge(self, other: Histogram) -> None:
        """Add the counts of another one."""
        if not other.counts.size:
            return
        if not self.counts.size:
            self.exponent, self.first, self.counts = other.exponent, other.first, other.counts
            return
        a, b = self, other
        exponent = max(a.exponent, b.exponent)
        while True:
            a, b = a._wider(exponent), b._wider(exponent)
            first = min(a.first, b.first)
            last = max(a.first + a.counts.size, b.first + b.counts.size)
            if last - first <= BINS:
                break
            exponent += 1
        counts = np.zeros(last - first, np.int64)
        for one in (a, b):
            counts[one.first - first : one.first - first + one.counts.size] += one.counts
        self.exponent, self.first, self.counts = exponent, first, counts

    def centres(self) -> Array:
        """The middle of each bin, float64; of the bin that starts at 0, 0 itself: ReLUs make many zeros."""
        middles = (np.arange(self.counts.size) + self.first + 0.5) * 2.0**self.exponent
        if self.first <= 0 < self.first + self.counts.size:
            middles[-self.first] = 0.0
        return middles

    def _wider(self, exponent: int) -> Histogram:
        shift = exponent - self.exponent
        if not shift:
            return self
        first = self.first >> shift
        at = (np.arange(self.counts.size) + self.first >> shift) - first
        return Histogram(exponent, first, np.bincount(at, self.counts).astype(np.int64))


def _exponent(low: float, high: float) -> int:
    """Of the narrowest bins that reach from ``low`` to ``high``."""
    span = max(high - low, abs(low) * 2.0**-40, abs(high) * 2.0**-40, 2.0**_LOWEST)
    exponent = max(math.frexp(span)[1] - BINS.bit_length(), _LOWEST)
    while _bin(high, exponent) - _bin(low, exponent) >= BINS:
        exponent += 1
    return exponent


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))
