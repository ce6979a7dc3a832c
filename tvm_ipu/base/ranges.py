"""How the tensors of a model are quantised: ranges and bits by name, as calibration finds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

BITS = (4, 8, 16, 32)
"""Bits of a quantised tensor; 32 stands for float32, not quantised. 4 is for weights only."""


@dataclass(frozen=True)
class TensorRange:
    """The numbers that a tensor holds, and how many bits express them.

    Attributes:
        name: Of the tensor or weight in the float model.
        low: Least number, one for the tensor or one for each channel (a weight's output channels).
        high: Largest number, as many.
        bits: One of ``BITS``.
        data: A weight's values after calibration has changed them, in float; None where it has not.
    """

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    bits: int = 8
    data: Array | None = None


@dataclass(frozen=True)
class RangeTable:
    """The ranges of a model's tensors and weights.

    Attributes:
        ranges: By name.
        facts: How they were found: level or mode, samples, versions.
    """

    ranges: dict[str, TensorRange] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
