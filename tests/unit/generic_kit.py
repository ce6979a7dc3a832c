"""Runs tensor expressions under the generic rule and compares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm_ffi
from tvm import te, tirx

from tests.unit.template_kit import SCALAR, evaluate, random_array
from tvm_ipu.base.target import Target
from tvm_ipu.kernels.launch import Launch

Tensor = te.Tensor
LANES = pytest.mark.parametrize("lanes", [16, 4, 1])

NEEDS_VECTORS = 20_000
NEEDS_UNITS = 1_400_000
"""Arithmetic operations of a kernel from which on it needs vectors, or more than one unit of work."""


def run(
    build: Callable[..., Tensor], arrays: list[np.ndarray], target: Target
) -> tuple[np.ndarray, list[Launch]]:
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


def is_scheduled(launch: Launch) -> bool:
    """Whether a kernel has vectors and units for threads, as far as it has enough work for them.

    Kernels for chips without vectors, and of statements that are kept as they are, may have neither.
    """
    vectors = 0

    def visit(loop: tirx.For) -> None:
        nonlocal vectors
        vectors += loop.kind == tirx.ForKind.VECTORIZED

    tvm_ffi.structural_walk(launch.func.body, (tirx.For, visit))
    return (vectors > 0 or launch.flops < NEEDS_VECTORS) and (launch.extent > 1 or launch.flops < NEEDS_UNITS)


def scheduled(launches: list[Launch], target: Target) -> bool:
    return target is SCALAR or all(is_scheduled(launch) for launch in launches)
