"""Find the layers that do not bear 16-bit operands.

Each product's weights alone are rounded in a float32 program, and the change of the outputs is measured.
Errors of different layers are taken as independent, so they add up as squares. The layers that cost most stay
in float32, more of them until the error measured with all others in 16 bits meets the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.program import Program, Space

Array = NDArray[Any]
MARGIN = 0.4
"""Share of the bound that the error on the samples may use."""

ROUNDS = 4
"""Mixtures of precisions that are tried at most."""


def layer_errors(
    program: Program, run: Callable[[Array], Sequence[Array]], dtype: np.dtype[Any]
) -> dict[str, float]:
    """Error of the outputs when the weights of one product are rounded, by the product's layer.

    Args:
        program: The model in float32; its first plan is measured.
        run: Outputs of the program for weights (uint8, as ``program.weights``), always on the same inputs.
        dtype: Type to round to.
    """
    weights = np.frombuffer(program.weights, np.uint8).copy()
    expected = run(weights)
    errors: dict[str, float] = {}
    for name, start, stop in _products(program):
        saved = weights[start:stop].copy()
        values = weights[start:stop].view(np.float32)
        values[:] = values.astype(dtype).astype(np.float32)
        errors[name] = math.hypot(errors.get(name, 0.0), output_error(run(weights), expected))
        weights[start:stop] = saved
    return errors


def sensitive_layers(
    errors: dict[str, float], measure: Callable[[tuple[str, ...]], float], max_error: float
) -> tuple[str, ...]:
    """Products to be kept in float32, the most sensitive one first.

    Args:
        errors: As ``layer_errors`` gives them.
        measure: Error of the outputs when these products stay in float32 and all others do not.
        max_error: Bound on that error.
    """
    budget = max_error
    kept: tuple[str, ...] = ()
    for _ in range(ROUNDS):
        kept = _over_budget(errors, budget)
        error = measure(kept)
        if error <= MARGIN * max_error or len(kept) == len(errors):
            break
        budget *= min(0.7, MARGIN * max_error / error)
    return kept


def _products(program: Program) -> list[tuple[str, int, int]]:
    """Name and range of the weights of each product."""
    found = []
    for call in program.plans[0].calls:
        weights = [arg for arg in call.args if arg.space is Space.WEIGHTS]
        if call.template in ("conv2d", "gemm", "dense") and weights:
            largest = max(weights, key=lambda arg: arg.size)
            found.append((call.layer.partition("+")[0], largest.offset, largest.offset + largest.size))
    return found


def output_error(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """Largest error of an output, as a share of its largest absolute value; float outputs only."""
    worst = 0.0
    for new, old in zip(found, expected, strict=True):
        if old.dtype.kind == "f" and old.size:
            scale = float(np.abs(old, dtype=np.float64).max()) or 1.0
            worst = max(worst, float(np.abs(new.astype(np.float64) - old).max()) / scale)
    return worst


def _over_budget(errors: dict[str, float], budget: float) -> tuple[str, ...]:
    kept = []
    total = sum(error**2 for error in errors.values())
    for name in sorted(errors, key=errors.__getitem__, reverse=True):
        if total <= budget**2:
            break
        kept.append(name)
        total -= errors[name] ** 2
    return tuple(kept)
