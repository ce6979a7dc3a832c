"""What is remembered of a tensor while samples stream through."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tvm_ipu.base.graph import Array
from tvm_ipu.quantize.histogram import Histogram


@dataclass
class Statistics:
    """Numbers of one tensor over all samples.

    Attributes:
        low: Least number.
        high: Largest number.
        low_sample: The first sample that holds it.
        high_sample: The first sample that holds the largest.
        low_sum: Sum of the samples' least numbers.
        high_sum: Sum of the samples' largest numbers.
        count: Samples.
        histogram: None where only ranges are wanted.
        peaks: Largest number of each channel, the second axis; None where that is not wanted.
    """

    low: float = math.inf
    high: float = -math.inf
    low_sample: int = -1
    high_sample: int = -1
    low_sum: float = 0.0
    high_sum: float = 0.0
    count: int = 0
    histogram: Histogram | None = field(default_factory=Histogram)
    peaks: Array | None = None

    def observe(self, values: Array, sample: int) -> bool:
        """Remember a sample's tensor, float32; False, and nothing is, where a number is not finite."""
        if not values.size:
            return True
        channels = None if self.peaks is None else values.max(axis=(0, *range(2, values.ndim)))
        low, high = float(values.min()), float((values if channels is None else channels).max())
        if not math.isfinite(low) or not math.isfinite(high):
            return False
        if low < self.low:
            self.low, self.low_sample = low, sample
        if high > self.high:
            self.high, self.high_sample = high, sample
        self.low_sum += low
        self.high_sum += high
        self.count += 1
        if self.histogram is not None:
            self.histogram.add(values, low, high)
        if self.peaks is not None and channels is not None:
            self.peaks = np.maximum(self.peaks, channels) if self.peaks.size else channels
        return True

    @property
    def mean_range(self) -> tuple[float, float]:
        """Means of the samples' least and largest numbers."""
        return self.low_sum / max(self.count, 1), self.high_sum / max(self.count, 1)

    def to_arrays(self) -> dict[str, Array]:
        """What a file keeps."""
        arrays = {
            "range": np.array([self.low, self.high, self.low_sum, self.high_sum]),
            "samples": np.array([self.low_sample, self.high_sample, self.count]),
        }
        if self.histogram is not None:
            arrays["grid"] = np.array([self.histogram.exponent, self.histogram.first])
            arrays["counts"] = self.histogram.counts
        if self.peaks is not None:
            arrays["peaks"] = self.peaks
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Statistics:
        """What ``to_arrays`` gave."""
        low, high, low_sum, high_sum = map(float, arrays["range"])
        low_sample, high_sample, count = map(int, arrays["samples"])
        histogram = None
        if "counts" in arrays:
            exponent, first = map(int, arrays["grid"])
            histogram = Histogram(exponent, first, arrays["counts"])
        peaks = arrays.get("peaks")
        return cls(low, high, low_sample, high_sample, low_sum, high_sum, count, histogram, peaks)
