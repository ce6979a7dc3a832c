"""Polynomials on 16 intervals of the argument, whose coefficients a vector instruction looks up.

``fit`` makes them of a table of integers so that rounding gives exactly the table's entries: a kernel then
needs no look-ups in memory one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.terms import Terms

INTERVALS = 16
DEGREE = 3

ROUNDS = 60
"""Steps of Newton's method; tables of smooth functions take some ten."""
AIM, ENOUGH = 2e-3, 3e-4
"""Distance from a half that polynomials are fitted for, and that suffices: float32 errs by 6e-5 at 255."""

for _attribute, _value in (
    ("TVectorizable", True),
    ("TCallEffectKind", 1),
    ("TScriptPrinterName", "piecewise"),
):
    tvm.ir.register_op_attr("tirx.piecewise", _attribute, _value)


@dataclass(frozen=True)
class Pieces:
    """Polynomials around the multiples of a width, from 0 on.

    Attributes:
        width: Distance of the points.
        terms: Coefficients of ``x - i width`` for each i, by power.
    """

    width: int
    terms: tuple[tuple[float, ...], ...]

    def at(self, x: Expr) -> Expr:
        """A call of the function, as kernels contain it; ``x`` is float32."""
        numbers = [float(self.width), *(value for row in self.terms for value in row)]
        return tirx.call_intrin(str(x.ty), "tirx.piecewise", x, *(tirx.const(n, "float32") for n in numbers))


def piecewise(t: Terms, x: tirx.Var, width: float, terms: tuple[tuple[float, ...], ...]) -> Expr:
    """The polynomial for the interval of x, at x; ``terms`` as in ``Pieces``."""
    shifted = t(x * t.const(1 / width) + t.const(t.format.magic))
    rest = t(x - t(shifted - t.const(t.format.magic)) * t.const(width))
    number = t(t.to_bits(shifted))
    value = t.look_up(terms[-1], number)
    for row in reversed(terms[:-1]):
        value = value * rest + t.look_up(row, number)
    return value


def lower_piecewise(t: Terms, args: list[Expr]) -> Expr:
    """What stands in place of a call made by ``Pieces.at``; arguments may be broadcast to vectors."""
    x, *rest = args
    constants = (a.value if isinstance(a, tirx.Broadcast) else a for a in rest)
    width, *flat = (float(c.value) for c in constants)
    rows = [tuple(flat[i : i + INTERVALS]) for i in range(0, len(flat), INTERVALS)]
    return piecewise(t, t(x), width, tuple(rows))


def fit(table: np.ndarray) -> Pieces | None:
    """Polynomials that round to the entries of a table of 8-bit integers, ends of their type clipped.

    Entries are to lie within half a step of the polynomial's values, less a margin. The squares of what they
    miss that by are minimised by Newton's method, which ends where there is nothing left to minimise.

    Args:
        table: Entries for 0, 1, 2 ..., uint8 or int8.

    Returns:
        None where polynomials of this degree do not do.
    """
    limits = np.iinfo(table.dtype)
    width = math.ceil((table.size - 1) / (INTERVALS - 0.5)) | 1  # odd: no integer lies between two intervals
    offsets = np.arange(width) - width // 2
    places = offsets + width * np.arange(INTERVALS)[:, None]
    inside = (places >= 0) & (places < table.size)
    entries = np.asarray(table, np.float64)[np.clip(places, 0, table.size - 1)]
    basis = np.polynomial.chebyshev.chebvander(offsets / (width / 2), DEGREE)
    low = np.where(inside & (entries > limits.min), entries - 0.5, -np.inf)
    high = np.where(inside & (entries < limits.max), entries + 0.5, np.inf)
    found = _solve(basis, inside, entries)
    for _ in range(ROUNDS):
        values = found @ basis.T
        miss = np.maximum(values - (high - AIM), 0) - np.maximum(low + AIM - values, 0)
        off = (np.abs(miss) > AIM - ENOUGH).any(1)
        if not off.any():
            pieces = _as_pieces(found, width)
            return pieces if _rounds_to(pieces, table) else None
        found = found - _solve(basis, miss != 0, miss) * off[:, None]
    return None


def _solve(basis: np.ndarray, chosen: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients ``[intervals, degree + 1]`` closest to the chosen values, by least squares."""
    weights = chosen.astype(np.float64)
    matrix = np.einsum("sw,wi,wj->sij", weights, basis, basis) + 1e-3 * np.eye(basis.shape[1])
    right = np.einsum("sw,wi,sw->si", weights, basis, values)
    return np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0])


def _as_pieces(found: np.ndarray, width: int) -> Pieces:
    """From Chebyshev's polynomials on the intervals to powers in float32."""
    powers = np.zeros_like(found)
    for row, coefficients in zip(powers, found, strict=True):
        terms = np.polynomial.chebyshev.cheb2poly(coefficients)  # without the highest ones that are zero
        row[: len(terms)] = terms
    scaled = powers / (width / 2) ** np.arange(DEGREE + 1)
    return Pieces(width, tuple(tuple(float(v) for v in row) for row in scaled.T.astype(np.float32)))


def _rounds_to(pieces: Pieces, table: np.ndarray) -> bool:
    """Whether float32 arithmetic gives the table's entries with something to spare."""
    x = np.arange(table.size)
    number = np.rint(x / pieces.width).astype(np.int64)
    rest = (x - number * pieces.width).astype(np.float32)
    value = np.zeros(table.size, np.float32)
    for row in reversed(pieces.terms):
        value = value * rest + np.asarray(row, np.float32)[number]
    limits = np.iinfo(table.dtype)
    error = np.abs(np.clip(value, limits.min, limits.max) - table.astype(np.float32))
    return bool(error.max() < 0.5 - ENOUGH / 2)
