#!/usr/bin/env python3
"""Fit the polynomials of ``tvm_ipu/kernels/mathlib`` and write them to ``coefficients.py`` there.

A fit asks for the polynomial P whose weighted error ``|weight(t) (P(t) - f(t))|`` has the smallest maximum
on an interval: Remez's exchange in 60-digit arithmetic. Coefficients are rounded to the type one by one, from
the constant term up, and the rest is fitted again with the rounded ones held, so that rounding costs little.
It takes about two minutes.

    python scripts/fit_math.py            write the file
    python scripts/fit_math.py --check    fail if the file is not what this script writes
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp
import numpy as np

TARGET = Path(__file__).resolve().parent.parent / "tvm_ipu" / "kernels" / "mathlib" / "coefficients.py"
Function = Callable[[mp.mpf], mp.mpf]

mp.mp.dps = 60
SLACK = mp.mpf("1.001")  # the reduced argument may leave its interval by rounding
GRID = 300
ROUNDS = 30
CENTERS = (42 / 32, 37 / 32, 1.0, 28 / 32, 24 / 32)  # 1 is among them: log(1) is exactly 0


@dataclass(frozen=True)
class Fit:
    """A polynomial to be fitted.

    Attributes:
        name: Name of its coefficients.
        use: Formula that uses P, for the comment in the file.
        f: Function to approximate.
        weight: Relative error of the formula's result for an error of 1 in P.
        low: Lower end of the interval.
        high: Upper end of the interval, for float32 and for float64.
        degrees: Degree for float32 and for float64.
    """

    name: str
    use: str
    f: Function
    weight: Function
    low: mp.mpf
    high: tuple[mp.mpf, mp.mpf]
    degrees: tuple[int, int]


def odd(name: str, use: str, f: Function, end: mp.mpf, degrees: tuple[int, int]) -> Fit:
    """P for ``f(x) = x + x^3 P(x^2)`` on ``[0, end]``."""

    def target(z: mp.mpf) -> mp.mpf:
        x = mp.sqrt(z)
        return (f(x) - x) / x**3

    def weight(z: mp.mpf) -> mp.mpf:
        x = mp.sqrt(z)
        return x**3 / f(x)

    return Fit(name, use, target, weight, mp.mpf(0), (end**2, end**2), degrees)


def fits() -> list[Fit]:
    """All polynomials of the library."""
    ln2, quarter, eighth = mp.log(2) * SLACK, mp.pi / 4 * mp.mpf("1.01"), mp.tan(mp.pi / 8) * SLACK
    one = mp.mpf(1)
    return [
        Fit(
            "EXPM1",
            "exp(r) - 1 = r + r^2 P(r), |r| <= log(2)",
            lambda r: (mp.expm1(r) - r) / r**2,
            lambda r: r**2 / mp.expm1(r),
            -ln2,
            (ln2, ln2),
            (6, 12),
        ),
        Fit(
            "EXP2",
            "2^r = P(r), |r| <= 1/2",
            lambda r: mp.mpf(2) ** r,
            lambda r: mp.mpf(2) ** -r,
            -one / 2 * SLACK,
            (one / 2 * SLACK, one / 2 * SLACK),
            (6, 11),
        ),
        Fit(
            "LOG1P",
            "log(1 + f) = f - f^2 / 2 + f^3 P(f), sqrt(1/2) <= 1 + f <= sqrt(2)",
            lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
            lambda f: f**3 / mp.log1p(f),
            1 / mp.sqrt(2) - 1,
            (mp.sqrt(2) - 1, mp.sqrt(2) - 1),
            (7, 18),
        ),
        Fit(
            "LOG1P_NEAR",
            "log(1 + g) = g - g^2 / 2 + g^3 P(g), |g| <= 0.0835",
            lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
            lambda f: f**3 / mp.log1p(f),
            mp.mpf("-0.0835"),
            (mp.mpf("0.0835"), mp.mpf("0.0835")),
            (4, 11),
        ),
        odd("SIN", "sin(x) = x + x^3 P(x^2), |x| <= pi/4", mp.sin, quarter, (2, 5)),
        Fit(
            "COS",
            "cos(x) = 1 - x^2 / 2 + x^4 P(x^2), |x| <= pi/4",
            lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
            lambda z: z**2,
            mp.mpf(0),
            (quarter**2, quarter**2),
            (2, 5),
        ),
        odd("ASIN", "asin(x) = x + x^3 P(x^2), |x| <= 1/2", mp.asin, one / 2, (4, 11)),
        odd("ATAN", "atan(x) = x + x^3 P(x^2), |x| <= tan(pi/8)", mp.atan, eighth, (4, 10)),
        odd("SINH", "sinh(x) = x + x^3 P(x^2), |x| <= 1", mp.sinh, one, (3, 6)),
        Fit(
            "ERF",
            "erf(x) = x + x P(x^2), |x| <= 1",
            lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
            lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)),
            mp.mpf(0),
            (one, one),
            (6, 11),
        ),
        Fit(
            "ERFC",
            "erf(x) = 1 - exp(P(x - 1)), 1 <= x <= 4 (6 for float64)",
            lambda t: mp.log(mp.erfc(1 + t)),
            lambda t: mp.erfc(1 + t) / mp.erf(1 + t),
            mp.mpf(0),
            (mp.mpf(3), mp.mpf(5)),
            (6, 16),
        ),
    ]


@dataclass(frozen=True)
class Samples:
    """A fit on one interval, sampled at its Chebyshev points; not at the ends, where functions are 0/0."""

    points: list[mp.mpf]
    weights: list[mp.mpf]
    values: list[mp.mpf]


def sample(fit: Fit, high: mp.mpf) -> Samples:
    """Samples of ``fit`` on ``[fit.low, high]``."""
    span = high - fit.low
    points = [fit.low + span * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / GRID)) / 2 for i in range(GRID)]
    return Samples(points, [abs(fit.weight(t)) for t in points], [fit.f(t) for t in points])


def remez(data: Samples, degree: int, held: list[mp.mpf]) -> tuple[list[mp.mpf], mp.mpf]:
    """Coefficients, constant term first with ``held`` ones kept, and the largest weighted error."""
    free = range(len(held), degree + 1)
    count = len(free) + 1
    rest = [
        v - mp.polyval(held[::-1], t) if held else v for v, t in zip(data.values, data.points, strict=True)
    ]
    if count == 1:
        return held, max(abs(w * v) for w, v in zip(data.weights, rest, strict=True))
    picks = [round(i * (GRID - 1) / (count - 1)) for i in range(count)]
    found: list[mp.mpf] = []
    worst = mp.mpf(0)
    for _ in range(ROUNDS):
        system, right = mp.matrix(count, count), mp.matrix(count, 1)
        for row, pick in enumerate(picks):
            for col, power in enumerate(free):
                system[row, col] = data.weights[pick] * data.points[pick] ** power
            system[row, count - 1] = (-1) ** row
            right[row] = data.weights[pick] * rest[pick]
        solution = mp.lu_solve(system, right)
        found = [solution[i] for i in range(count - 1)]
        poly = [*found[::-1], *[mp.mpf(0)] * len(held)]
        errors = [
            w * (v - mp.polyval(poly, t)) for w, v, t in zip(data.weights, rest, data.points, strict=True)
        ]
        worst = max(abs(e) for e in errors)
        if worst < abs(solution[count - 1]) * SLACK:
            break
        picks = alternating_extrema(errors, count)
    return held + found, worst


def alternating_extrema(errors: list[mp.mpf], count: int) -> list[int]:
    """Indices of ``count`` extrema with alternating signs, the smallest ones dropped."""
    extrema: list[int] = []
    for i, error in enumerate(errors):
        if not extrema or (errors[extrema[-1]] > 0) != (error > 0):
            extrema.append(i)
        elif abs(error) > abs(errors[extrema[-1]]):
            extrema[-1] = i
    while len(extrema) > count:
        if len(extrema) == count + 1:
            extrema.pop(0 if abs(errors[extrema[0]]) < abs(errors[extrema[-1]]) else -1)
        else:  # drop two neighbours, which keeps the signs alternating
            sizes = [abs(errors[k]) for k in extrema]
            pair = min(range(len(extrema) - 1), key=lambda k: max(sizes[k], sizes[k + 1]))
            del extrema[pair : pair + 2]
    if len(extrema) < count:
        raise ArithmeticError("the error has too few extrema")
    return extrema


def fit_rounded(data: Samples, degree: int, kind: type[np.floating]) -> tuple[list[float], float]:
    """Coefficients rounded to ``kind``, constant term first, and log2 of the largest weighted error."""
    held: list[mp.mpf] = []
    worst = mp.mpf(0)
    for index in range(degree + 1):
        near = kind(float(remez(data, degree, held)[0][index]))
        choices = [near, np.nextafter(near, kind(-np.inf)), np.nextafter(near, kind(np.inf))]
        trials = [[*held, mp.mpf(float(c))] for c in choices]
        worst, best = min((remez(data, degree, trial)[1], i) for i, trial in enumerate(trials))
        held = trials[best]
    return [float(c) for c in held], float(mp.log(worst, 2))


def pieces(value: mp.mpf, bits: int, count: int) -> list[float]:
    """``value`` as a sum of ``count`` parts: all but the last have ``bits`` significant bits."""
    parts = []
    for _ in range(count - 1):
        step = mp.mpf(2) ** (mp.floor(mp.log(abs(value), 2)) + 1 - bits)
        part = mp.floor(value / step) * step
        parts.append(float(part))
        value -= part
    return [*parts, float(value)]


def generate() -> str:
    """Text of coefficients.py."""
    lines = [
        '"""Coefficients and split constants of the math library; written by scripts/fit_math.py.',
        "",
        "Constant term first, for float32 and for float64. Comments give log2 of the largest relative error",
        'that each polynomial leaves in its formula, before rounding in the evaluation.\n"""',
        "",
        "from __future__ import annotations",
        "",
        "Table = dict[str, tuple[float, ...]]",
    ]
    kinds: list[tuple[str, type[np.floating]]] = [("float32", np.float32), ("float64", np.float64)]
    for fit in fits():
        lines += ["", f"# {fit.use}", f"{fit.name}: Table = {{"]
        for (label, kind), high, degree in zip(kinds, fit.high, fit.degrees, strict=True):
            coefficients, error = fit_rounded(sample(fit, high), degree, kind)
            print(f"{fit.name:6} {label} degree {degree:2}: 2^{error:.1f}", file=sys.stderr)
            lines += [
                f'    "{label}": (  # 2^{error:.1f}',
                *(f"        {c!r}," for c in coefficients),
                "    ),",
            ]
        lines.append("}")
    lines += [
        "",
        "# By intervals of x upwards: where each starts, c near 1 / x with few bits, -log(c) as a sum of two",
        "CENTERS: dict[str, tuple[tuple[float, float, float, float], ...]] = {",
    ]
    for label, kind in kinds:
        rows = []
        for i, c in enumerate(CENTERS):
            start = float(np.float32((1 / CENTERS[i - 1] + 1 / c) / 2)) if i else 0.0
            high = float(kind(float(-mp.log(c))))
            rows.append(f"        ({start!r}, {c!r}, {high!r}, {float(kind(float(-mp.log(c) - high)))!r}),")
        lines += [f'    "{label}": (', *rows, "    ),"]
    lines.append("}")
    # name, meaning, value, (bits of a part, parts) for float32 and for float64
    splits = [
        ("TWO_LN2", "2 log(2)", 2 * mp.log(2), ((16, 2), (42, 2))),
        ("LN2", "log(2)", mp.log(2), ((15, 2), (40, 2))),
        ("TWO_LOG10_2", "2 log10(2)", 2 * mp.log10(2), ((16, 2), (42, 2))),
        ("HALF_PI", "pi / 2", mp.pi / 2, ((7, 6), (31, 4))),
    ]
    for name, meaning, value, parts in splits:
        lines += [
            "",
            f"# {meaning} = sum of the parts, each but the last short enough for exact products",
            f"{name}: Table = {{",
        ]
        for (label, kind), (bits, count) in zip(kinds, parts, strict=True):
            values = [float(kind(v)) for v in pieces(value, bits, count)]
            lines += [f'    "{label}": (', *(f"        {v!r}," for v in values), "    ),"]
        lines.append("}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="fail if the file is stale")
    args = parser.parse_args()
    text = generate()
    if args.check:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
