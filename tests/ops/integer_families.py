"""Both families of numerics, and random tensors for layers one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings, strategies as st

from tests.ops.integer_kit import Array
from tvm_ipu.quantize.reference import Meaning

TARGETS = {"float-requant": "host", "integer-requant": "ipu-ref"}
"""A target of each family of numerics."""
families = pytest.mark.parametrize("family", TARGETS)
examples = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def meaning(random: np.random.Generator, dtype: str = "") -> Meaning:
    """A random scale and zero point."""
    dtype = dtype or str(random.choice(["uint8", "int8"]))
    info = np.iinfo(dtype)
    zero = int(random.choice([info.min, info.max, 0, int(random.integers(info.min, info.max + 1))]))
    return Meaning(dtype, np.float32(random.uniform(0.001, 0.2)), zero)


def values(random: np.random.Generator, dtype: str, *shape: int) -> Array:
    """Random integers; sometimes all lowest or all highest."""
    info = np.iinfo(dtype)
    fill = random.integers(0, 5)
    if fill < 2:
        return np.full(shape, info.min if fill else info.max, dtype)
    return random.integers(info.min, info.max + 1, shape).astype(dtype)


def wide_step(sums: Array, scale: Any) -> np.float32:
    """A step of the result that spreads the sums over its range."""
    return np.float32(max(float(np.abs(sums * scale).max()) / 100, 1e-6))
