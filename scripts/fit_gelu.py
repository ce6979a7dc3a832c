"""Prints the coefficients of ``kernels/mathlib/gelu.py``.

The rational function is fitted by least squares on Chebyshev points, linearised by the last denominator, with
weights that grow where the error is large (Lawson's iteration), until it is close to the smallest maximum.
The polynomials of the table interpolate on the Chebyshev points of their intervals.
"""

from __future__ import annotations

import math

import numpy as np

END = 5.55
DEGREE = 5
POINTS = 1200
ITERATIONS = 200


WIDTH = 23 / 64
ENTRIES = 16
TABLE_DEGREE = 4


def main() -> None:
    """Print both."""
    print_quotient()
    print_table()


def print_table() -> None:
    """Fit ``erfc(x / sqrt(2)) / 2`` within half a ``WIDTH`` of its multiples; the last polynomial is zero."""

    def tail(x: np.ndarray) -> np.ndarray:
        return np.array([math.erfc(value / math.sqrt(2)) / 2 for value in x])

    rows, worst = [], tail(np.array([(ENTRIES - 1.5) * WIDTH]))[0]
    for number in range(ENTRIES - 1):
        low, high = (0.0 if number == 0 else -WIDTH / 2), WIDTH / 2

        def shifted(r: np.ndarray, start: float = number * WIDTH) -> np.ndarray:
            return tail(r + start)

        fit = np.polynomial.Chebyshev.interpolate(shifted, TABLE_DEGREE, [low, high])
        terms = fit.convert(kind=np.polynomial.Polynomial).coef.astype(np.float32)
        r = np.linspace(low, high, 500)
        worst = max(worst, np.abs(np.polynomial.polynomial.polyval(r, terms) - shifted(r)).max())
        rows.append(terms)
    print(f"largest error 2^{math.log2(worst):.1f}", "TAIL = (", sep="\n")
    for terms in np.stack([*rows, np.zeros_like(rows[0])], axis=1):
        print("    (", *(f"        {float(value)!r}," for value in terms), "    ),", sep="\n")
    print(")")


def print_quotient() -> None:
    """Fit ``erf(x / sqrt(2)) / (2 x)`` on ``[0, END]`` as a quotient of polynomials in ``x^2``."""
    square = (1 - np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)) / 2
    x = END * np.sqrt(square)
    wanted = np.array([math.erf(value / math.sqrt(2)) / (2 * value) for value in x])
    powers = square[:, None] ** np.arange(DEGREE + 1)
    weights, below, best = np.ones(POINTS), np.ones(POINTS), (math.inf, np.zeros(0), np.zeros(0))
    for _ in range(ITERATIONS):
        row = np.sqrt(weights) / (wanted * below)
        matrix = np.concatenate([powers, -wanted[:, None] * powers[:, 1:]], axis=1) * row[:, None]
        size = np.linalg.norm(matrix, axis=0)
        solution = np.linalg.lstsq(matrix / size, wanted * row, rcond=None)[0] / size
        above, below_terms = solution[: DEGREE + 1], np.concatenate([[1], solution[DEGREE + 1 :]])
        below = powers @ below_terms
        error = np.abs(powers @ above / below / wanted - 1)
        if error.max() < best[0]:
            best = (error.max(), above, below_terms)
        weights *= (error / error.max() + 1e-3) ** 0.7
        weights /= weights.mean()
    print(f"largest relative error 2^{math.log2(best[0]):.1f}")
    for name, terms in (("ABOVE", best[1]), ("BELOW", best[2])):
        scaled = terms / END ** (2 * np.arange(DEGREE + 1))
        print(f"{name} = (", *(f"    {float(np.float32(value))!r}," for value in scaled), ")", sep="\n")


if __name__ == "__main__":
    main()
