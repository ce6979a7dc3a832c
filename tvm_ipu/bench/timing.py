"""Wall-clock times of repeated runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Times of repeated runs of one thing.

    Attributes:
        samples: Milliseconds of each run, in the order of the runs; at least one.
    """

    samples: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean in milliseconds."""
        return float(np.mean(self.samples))

    @property
    def median(self) -> float:
        """Median in milliseconds."""
        return float(np.median(self.samples))

    @property
    def max(self) -> float:
        """Slowest run in milliseconds."""
        return max(self.samples)

    @property
    def min(self) -> float:
        """Fastest run in milliseconds."""
        return min(self.samples)

    @property
    def std(self) -> float:
        """Standard deviation of the samples in milliseconds."""
        return float(np.std(self.samples))


def measure(runs: Sequence[Run], repeat: int, warmup: int) -> list[Timing]:
    """Time several things in turn (A B A B ...), so that a change of the machine's speed meets all of them.

    Args:
        runs: What to time.
        repeat: Timed runs of each, at least one.
        warmup: Runs of each before the timed ones.
    """
    for _ in range(warmup):
        for run in runs:
            run()
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(repeat):
        for run, times in zip(runs, samples, strict=True):
            start = perf_counter()
            run()
            times.append((perf_counter() - start) * 1e3)
    return [Timing(tuple(times)) for times in samples]
