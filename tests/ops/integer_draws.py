"""Draws of quantised tensors for tests.

The extremes are frequent: integers that are all lowest or all highest, zero points at the ends of the type's
range, steps that are powers of two, which make ties, odd numbers of channels, tensors smaller than a vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.ops.integer_kit import Array, Graph
from tvm_ipu.quantize.reference import Meaning

Bounds = tuple[float, float] | None
POWERS = (2.0**-4, 2.0**-7)
"""Scales that are powers of two."""


@dataclass(frozen=True)
class Tensor:
    """A quantised tensor.

    Attributes:
        dtype: Type of its integers.
        zero: Zero point: ``low``, ``high``, ``none``, or where it lies in the type's range, from 0 to 1.
        scale: What a step means.
        fill: ``random``, ``lowest``, ``highest``, or ``ends``, the lowest and the highest at random.
    """

    dtype: str
    zero: str | float
    scale: float
    fill: str

    @property
    def meaning(self) -> Meaning:
        """Type, scale and zero point."""
        low, high = int(np.iinfo(self.dtype).min), int(np.iinfo(self.dtype).max)
        named = {"low": low, "high": high, "none": 0}
        zero = named[self.zero] if isinstance(self.zero, str) else round(low + self.zero * (high - low))
        return Meaning(self.dtype, np.float32(self.scale), zero)

    def values(self, random: np.random.Generator, *shape: int) -> Array:
        """Its integers."""
        return filled(random, self.dtype, self.fill, shape)


def filled(random: np.random.Generator, dtype: str, fill: str, shape: tuple[int, ...]) -> Array:
    """Integers of a type, as ``Tensor.fill`` says."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if fill == "random":
        return random.integers(low, high, shape, dtype, endpoint=True)
    ends = {"lowest": [low], "highest": [high], "ends": [low, high]}[fill]
    return random.choice(np.asarray(ends, dtype), shape)


def spread(result: Tensor, sums: Array, unit: Any, share: float) -> Meaning:
    """The result's meaning with a step of which the largest sum has ``share`` times half of the type's range.

    With a share of 1 it is a power of two, and the sum may have half of that. No step is less than 8 units:
    wide sums that are multiplied by more have no integer form without a float unit.
    """
    half = 2.0 ** (np.iinfo(result.dtype).bits - 1)
    step = max(float(np.abs(sums * unit).max()) / (half * share), 8 * float(np.abs(unit).max()))
    scale = np.float32(2.0 ** math.ceil(math.log2(step)) if share == 1 else step)
    return replace(result.meaning, scale=scale)


def activated(g: Graph, real: str, bounds: Bounds) -> str:
    """A value after ReLU or a clip."""
    if bounds is None:
        return real
    if bounds == (0.0, np.inf):
        return g.op("Relu", [real])
    return g.op("Clip", [real, *(g.constant(np.float32(b)) for b in bounds)])


def bounded(meaning: Meaning, bounds: Bounds) -> Meaning:
    """The meaning with the integers of the bounds."""
    return meaning if bounds is None else meaning.clipped(*bounds)


def tensors(*dtypes: str) -> st.SearchStrategy[Tensor]:
    """Quantised tensors of one of the types."""
    zeros = st.one_of(st.sampled_from(["low", "high", "none"]), st.floats(0, 1))
    scales = st.one_of(st.floats(0.001, 0.2), st.sampled_from(POWERS))
    return st.builds(Tensor, st.sampled_from(dtypes), zeros, scales, FILLS)


SEEDS = st.integers(0, 2**32 - 1)
FILLS = st.sampled_from(["random", "random", "ends", "lowest", "highest"])
BYTES = tensors("uint8", "int8")
INTEGERS = st.one_of(BYTES, BYTES, tensors("int16", "uint16"))
"""Of 8 bits or 16."""
COUNTS = st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 33, 40])
"""Numbers of channels, rows, columns."""
SIZES = st.tuples(st.integers(1, 8), st.integers(1, 8))
"""Height and width."""
SHARES = st.sampled_from([0.7, 1.0, 3.0])
"""Of ``spread``; with 3 many results are clipped."""
ACTIVATIONS = st.sampled_from([None, None, (0.0, np.inf), (0.0, 6.0), (-1.5, 2.5)])
"""Bounds of what comes after an operator: nothing, ReLU, clips."""
