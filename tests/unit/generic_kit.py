"""Runs tensor expressions under the generic rule and compares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tvm import te

from tests.unit.template_kit import SCALAR, evaluate, random_array
from tvm_ipu.base.target import Target
from tvm_ipu.kernels.generic import is_scheduled
from tvm_ipu.kernels.stage import Stage

Tensor = te.Tensor
LANES = pytest.mark.parametrize("lanes", [16, 4, 1])


def run(
    build: Callable[..., Tensor], arrays: list[np.ndarray], target: Target
) -> tuple[np.ndarray, list[Stage]]:
    inputs = [te.placeholder(a.shape, str(a.dtype), name=f"x{i}") for i, a in enumerate(arrays)]
    return evaluate(dict(zip(inputs, arrays, strict=True)), build(*inputs), target)


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return random_array(np.random.default_rng(seed), shape, dtype)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    expected = expected.astype(np.float64)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0, atol=tolerance * scale)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def scheduled(stages: list[Stage], target: Target) -> bool:
    return target is SCALAR or all(is_scheduled(stage) for stage in stages)
