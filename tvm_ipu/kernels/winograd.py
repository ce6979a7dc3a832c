"""Matrices of Winograd's minimal filtering, and the products of such small constant matrices with vectors.

``F(m, 3)`` computes ``m`` neighbouring outputs of a filter with three taps from ``m + 2`` inputs by as many
multiplications: ``y = A^T ((G g) * (B^T d))`` (S. Winograd, Arithmetic Complexity of Computations, 1980;
A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2016). The matrices are Toom and
Cook's: both polynomials are evaluated at ``m + 1`` points and at infinity. Points whose magnitudes lie near
to one keep the rounding errors small: with those below, which binary fractions hold exactly, errors in
float32 are 0.8 times (m = 2) and 2.1 times (m = 4) those of summing the products one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import Emitter, broadcast, lanes_of

Matrix = NDArray[np.float64]

TAPS = 3
"""Taps of the filter along each dimension."""

_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.625, -0.625, 1.5, -1.5)}
"""By the number of outputs: zero, then pairs of a point and its negative."""

OUTPUTS = tuple(_POINTS)
"""Numbers of outputs, along each dimension, that can be computed at once."""


@dataclass(frozen=True)
class Transforms:
    """The three matrices.

    Attributes:
        inputs: ``B^T``, ``[points, points]``; its rows are polynomials with leading coefficient 1.
        weights: ``G``, ``[points, 3]``.
        outputs: ``A^T``, ``[outputs, points]``.
    """

    inputs: Matrix
    weights: Matrix
    outputs: Matrix


@cache
def transforms(outputs: int) -> Transforms:
    """Matrices of ``F(outputs, 3)``."""
    points = _POINTS[outputs]
    size = len(points) + 1
    inputs, scale = np.zeros((size, size)), np.ones(size)
    for row in range(size):
        others = [q for i, q in enumerate(points) if i != row]
        inputs[row, : len(others) + 1] = np.poly(others)[::-1]
        if row < len(points):
            scale[row] = np.prod([points[row] - q for q in others])
    return Transforms(inputs, _powers(points, TAPS) / scale[:, None], _powers(points, outputs).T)


def transform_weights(weight: NDArray[np.floating], outputs: int) -> NDArray[np.float32]:
    """``G w G^T`` of every filter, worked out in float64.

    Args:
        weight: ``[out_channels, 3, 3, in_channels]``.
        outputs: Outputs along each dimension.

    Returns:
        ``[out_channels, points, points, in_channels]``.
    """
    matrix = transforms(outputs).weights
    half = np.einsum("pi,oijc->opjc", matrix, weight.astype(np.float64))
    whole: Matrix = np.einsum("qj,opjc->opqc", matrix, half)
    return whole.astype(np.float32)


def operations(outputs: int) -> int:
    """Multiply-adds that one product with ``B^T`` or ``A^T`` takes; ``transform_*`` below take no more."""
    return 4 * (outputs - 1)


def transform_inputs(e: Emitter, outputs: int, values: Sequence[Expr]) -> list[Expr]:
    """``B^T`` times a column of vectors: even and odd powers are summed once for a point and its negative."""
    matrix = transforms(outputs).inputs
    results = [_sum(e, matrix[0], values)]
    for row in range(1, len(values) - 1, 2):
        point = _POINTS[outputs][row]
        even = _sum(e, (matrix[row] + matrix[row + 1]) / 2, values)
        odd = _sum(e, (matrix[row] - matrix[row + 1]) / (2 * point), values)
        results += [e.bind("t", even + _times(odd, point)), e.bind("t", even - _times(odd, point))]
    return [*results, _sum(e, matrix[-1], values)]


def transform_outputs(e: Emitter, outputs: int, values: Sequence[Expr]) -> list[Expr]:
    """``A^T`` times a column of vectors, with the sum and the difference of each pair of points."""
    matrix = transforms(outputs).outputs.copy()
    terms = list(values)
    for column in range(1, len(values) - 1, 2):
        terms[column] = e.bind("t", values[column] + values[column + 1])
        terms[column + 1] = e.bind("t", values[column] - values[column + 1])
        own, other = matrix[:, column].copy(), matrix[:, column + 1].copy()
        matrix[:, column], matrix[:, column + 1] = (own + other) / 2, (own - other) / 2
    return [_sum(e, row, terms) for row in matrix]


def _sum(e: Emitter, row: Matrix, values: Sequence[Expr]) -> Expr:
    """Scalar product; terms with coefficient 1 come first, so that all others are multiply-adds."""
    terms = sorted(
        ((float(c), v) for c, v in zip(row, values, strict=True) if c), key=lambda term: term[0] != 1
    )
    total = _times(terms[0][1], terms[0][0])
    for coefficient, value in terms[1:]:
        term = _times(value, abs(coefficient))
        total = total - term if coefficient < 0 else total + term
    return e.bind("t", total)


def _times(value: Expr, factor: float) -> Expr:
    if factor == 1:
        return value
    return value * broadcast(tirx.const(factor, "float32"), lanes_of(value))


def _powers(points: Sequence[float], degree: int) -> Matrix:
    """Powers of each point below ``degree``; those of infinity are zero but for the last."""
    return np.vstack([np.vander(np.array(points), degree, increasing=True), np.eye(degree)[-1]])
