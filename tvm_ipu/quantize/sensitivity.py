"""Find the layers that do not bear 16-bit operands.

Each product's weights alone are rounded in a float32 program, and the change of the outputs is measured.
Errors of different layers are taken as independent, so they add up as squares. Where 16 bits in all products
cost too much, those stay in float32 that save most error for the time they cost, more of them until the error
measured with all others in 16 bits meets the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.model import first_node
from tvm_ipu.base.program import Call, Program, Space

Array = NDArray[Any]
MARGIN = 0.4
"""Share of the bound that the error on the samples may use."""

ROUNDS = 3
"""Mixtures of precisions that are tried, where none is found before, until the bound itself decides."""

OPERATIONS_PER_BYTE = 8
"""Operations in float32 that take as long as a byte of weights takes from memory."""


@dataclass(frozen=True)
class Sensitivity:
    """What rounding one layer's weights costs, and what not rounding them would.

    Attributes:
        error: Change of the outputs when the layer's weights are rounded (``output_error``).
        cost: Time that the layer takes in float32, in operations.
    """

    error: float
    cost: float


def layer_sensitivities(
    program: Program, weights: Array, run: Callable[[], Sequence[Array]], dtype: np.dtype[Any]
) -> dict[str, Sensitivity]:
    """Sensitivity of each product with constant weights, by its layer.

    Args:
        program: The model in float32; its first plan is measured.
        weights: The weights that ``run`` uses (uint8, as ``program.weights``); the same again in the end.
        run: Outputs of the program, always on the same inputs.
        dtype: Type to round to.
    """
    expected = run()
    found: dict[str, Sensitivity] = {}
    for call, part in _products(program):
        saved = weights[part].copy()
        values = weights[part].view(np.float32)
        values[:] = values.astype(dtype).astype(np.float32)
        error = output_error(run(), expected)
        weights[part] = saved
        name = first_node(call.layer)
        before = found.get(name, Sensitivity(0.0, 0.0))
        cost = max(call.flops, OPERATIONS_PER_BYTE * saved.size)
        found[name] = Sensitivity(math.hypot(before.error, error), before.cost + cost)
    return found


def sensitive_layers(
    sensitivities: Callable[[], Mapping[str, Sensitivity]],
    measure: Callable[[tuple[str, ...]], float],
    max_error: float,
) -> tuple[tuple[str, ...], float]:
    """Products to be kept in float32, and the error that is left.

    Args:
        sensitivities: ``layer_sensitivities``; asked only where 16 bits in all products cost too much.
        measure: Error of the outputs when these products stay in float32 and all others do not.
        max_error: Bound on that error.
    """
    aim = MARGIN * max_error
    kept: tuple[str, ...] = ()
    error = measure(kept)
    if error <= aim:
        return kept, error
    layers = sensitivities()
    for _ in range(ROUNDS):
        # what was measured, activations included, is taken to shrink as the estimate does
        estimate = _estimate(layers, kept)
        wanted = estimate * aim / error
        if not kept:  # it shrinks faster than that at first, when the worst layers go
            wanted = max(wanted, min(aim, estimate * math.sqrt(aim / error)))
        kept = _keep(layers, wanted)
        error = measure(kept)
        if error <= aim or len(kept) == len(layers):
            return kept, error
    if error > max_error:
        kept = tuple(layers)
        error = measure(kept)
    return kept, error


def output_error(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """Largest error of an output, as a share of its largest absolute value; float outputs only."""
    worst = 0.0
    for new, old in zip(found, expected, strict=True):
        if old.dtype.kind == "f" and old.size:
            scale = float(np.abs(old, dtype=np.float64).max()) or 1.0
            worst = max(worst, float(np.abs(new.astype(np.float64) - old).max()) / scale)
    return worst


def _products(program: Program) -> list[tuple[Call, slice]]:
    """Each product with weights, and where in the program's weights its own lie."""
    found = []
    for call in program.plans[0].calls:
        weights = [arg for arg in call.args if arg.space is Space.WEIGHTS]
        if call.template in ("conv2d", "gemm", "dense") and weights:
            largest = max(weights, key=lambda arg: arg.size)
            found.append((call, slice(largest.offset, largest.offset + largest.size)))
    return found


def _estimate(layers: Mapping[str, Sensitivity], kept: Sequence[str]) -> float:
    """Error of the outputs with the weights of all layers rounded but of those that are kept."""
    return math.sqrt(sum(layer.error**2 for name, layer in layers.items() if name not in kept))


def _keep(layers: Mapping[str, Sensitivity], error: float) -> tuple[str, ...]:
    """Layers without which the estimate is at most ``error``, chosen by squared error for cost."""

    def worth(name: str) -> float:
        return layers[name].error ** 2 / layers[name].cost

    kept: list[str] = []
    for name in sorted(layers, key=worth, reverse=True):
        if _estimate(layers, kept) <= error:
            break
        kept.append(name)
    for name in sorted(kept, key=lambda name: layers[name].cost, reverse=True):
        others = [other for other in kept if other != name]
        if _estimate(layers, others) <= error:
            kept = others
    return tuple(kept)
