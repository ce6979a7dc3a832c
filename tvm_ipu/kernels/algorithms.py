"""Which algorithm computes a convolution: the direct sum of products, or Winograd's minimal filtering."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from tvm_ipu.base.target import Target
from tvm_ipu.kernels import core_model
from tvm_ipu.kernels.emit import item_bytes
from tvm_ipu.kernels.templates import conv2d, tile_conv2d, winograd
from tvm_ipu.kernels.winograd import OUTPUTS

MARGIN = 0.9
"""Winograd's filtering, which rounds more and has larger weights, is taken where the model sees this share of
the direct sum's time or less."""


@dataclass(frozen=True)
class Algorithm:
    """A way to compute a convolution.

    Attributes:
        outputs: Output rows and columns that Winograd's filtering computes at once; 0 for the direct sum.
    """

    outputs: int


DIRECT = Algorithm(0)


def direct(problem: conv2d.Problem, target: Target) -> tuple[Any, Any]:
    """Template for the direct sum, on tile registers where the target has them, and its problem."""
    p = problem
    pad_value = int(p.pad_value)
    sizes = p.window, p.groups, p.depth, p.channels
    tiled = tile_conv2d.Problem(*sizes, p.left, p.right, p.dtype, p.pitch, pad_value)
    fits = not p.whole_rows and pad_value == p.pad_value
    return (tile_conv2d, tiled) if fits and tile_conv2d.takes(tiled, target) else (conv2d, p)


def space(problem: conv2d.Problem, target: Target) -> list[Algorithm]:
    """Algorithms that compute the convolution, the one that the model prefers first."""
    if not winograd.applies(problem.window, problem.groups) or problem.dtype != winograd.DTYPE:
        return [DIRECT]
    return list(_ranked(problem, target))


@cache
def _ranked(problem: conv2d.Problem, target: Target) -> tuple[Algorithm, ...]:
    found = [Algorithm(outputs) for outputs in (0, *OUTPUTS)]
    return tuple(sorted(found, key=lambda algorithm: cycles(problem, algorithm, target)))


def cycles(problem: conv2d.Problem, algorithm: Algorithm, target: Target) -> float:
    """Modelled cycles on all cores of the target together, with weights that come from memory."""
    p = problem
    if algorithm == DIRECT:
        template, own = direct(p, target)
        best: float = template.cycles(own, template.space(own, target)[0], target)
        weights = p.reduction * p.channels * p.dot(target).right_bytes
        return MARGIN * core_model.overlapped(best, weights / core_model.MEMORY_BYTES_PER_CYCLE)
    fast = winograd.Problem(p.window, p.depth, p.channels, algorithm.outputs, p.lanes, p.left)
    weights = fast.points**2 * p.depth * p.channels * item_bytes(winograd.DTYPE)
    best = winograd.cycles(fast, winograd.space(fast, target)[0], target)
    return core_model.overlapped(best, weights / core_model.MEMORY_BYTES_PER_CYCLE)
