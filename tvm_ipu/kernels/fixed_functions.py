"""Softmax and normalisations in integers, as tensor expressions (docs/numerics.md, functions of rows)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.tirx import Expr

EXP2 = (45425, -15743, 3664, -628)
"""(1 - 2^-f) / f as a polynomial of f in [-1/2, 1/2], 16 fractional bits, from the constant term on: the
least maximum of the error of 2^-f (Lawson's weighted least squares)."""
FRACTION_BITS = 16
"""Fractional bits of exponents and coefficients."""
LOG2 = (1549081952, -774532405, 516125028, -384720696, 295516526, -210709970, 120078775, -45038110, 7940753)
"""log2(1 + f) / f as a polynomial of f in [0, 1], 30 fractional bits, from the constant term on: through the
Chebyshev nodes, within 4e-8."""
LOG_BITS = 30
"""Fractional bits of logarithms."""
EXP_BITS = 28
"""Fractional bits of the exponentials that are added."""


@dataclass(frozen=True)
class Steps:
    """Integers of a result: ``min(max((number >> shift) + zero, low), high)``, halves up.

    Attributes:
        dtype: Their type.
        zero: Zero point.
        low: Lowest.
        high: Highest.
        shift: Fractional bits of the numbers.
    """

    dtype: str
    zero: int
    low: int
    high: int
    shift: int

    def of(self, number: Expr) -> Expr:
        """The integer of an int64, which counts steps of the result times ``2**shift``."""
        whole = (number + _int64(1 << (self.shift - 1))) >> _int64(self.shift)
        low, high = _int64(self.low - self.zero), _int64(self.high - self.zero)
        inside = tirx.max(tirx.min(whole, high), low).astype("int32")
        return (inside + _int32(self.zero)).astype(self.dtype)


@dataclass(frozen=True)
class Powers:
    """Numbers of exponentials of distances from a row's peak.

    Attributes:
        axis: Of the rows.
        limit: Largest difference from the peak that matters.
        factor: Exponent of 2 for each step of a difference, with ``bits`` fractional bits.
        bits: At least 17.
    """

    axis: int
    limit: int
    factor: int
    bits: int

    def row(self, index: Sequence[Any]) -> list[Any]:
        """Position of an element's row."""
        return [i for a, i in enumerate(index) if a != self.axis]


@dataclass(frozen=True)
class Softmax:
    """Numbers of an integer softmax.

    Attributes:
        powers: Of its exponentials.
        numerator: 1 in steps of the result, times ``2**result.shift``.
        result: What the quotients become.
    """

    powers: Powers
    numerator: int
    result: Steps


def softmax(x: te.Tensor, plan: Softmax) -> te.Tensor:
    """exp(x) over its sum along an axis."""
    _, power, total = _exponentials(x, plan.powers)
    row = plan.powers.row
    factor = te.compute(
        total.shape,
        lambda *i: tirx.truncdiv(_int64(plan.numerator), total(*i)).astype("int32"),
        name="factor",
    )
    return te.compute(
        x.shape,
        lambda *i: plan.result.of(power(*i).astype("int64") * factor(*row(i)).astype("int64")),
        name="softmax",
    )


@dataclass(frozen=True)
class LogSoftmax:
    """Numbers of an integer logarithm of softmax.

    Attributes:
        powers: Of its exponentials.
        distance: A step of the distance from the peak in steps of the result, times ``2**result.shift``.
        logarithm: ``ln(2) / 2**LOG_BITS`` in steps of the result, times ``2**result.shift``.
        result: What the differences become.
    """

    powers: Powers
    distance: int
    logarithm: int
    result: Steps


def log_softmax(x: te.Tensor, plan: LogSoftmax) -> te.Tensor:
    """x minus its peak and the logarithm of the sum of exponentials along an axis."""
    peak, _, total = _exponentials(x, plan.powers)
    row = plan.powers.row
    logarithm = te.compute(
        total.shape, lambda *i: _log2(total(*i)) * _int64(plan.logarithm), name="logarithm"
    )

    def element(*i: Any) -> Expr:
        distance = (x(*i).astype("int32") - peak(*row(i))).astype("int64")
        return plan.result.of(distance * _int64(plan.distance) - logarithm(*row(i)))

    return te.compute(x.shape, element, name="log_softmax")


def _log2(total: Expr) -> Expr:
    """Logarithm to base 2 of an int64 with ``EXP_BITS`` fractional bits, 1 or more, in ``2**-LOG_BITS``."""
    top = _int64(63) - tirx.clz(total).astype("int64")
    f = ((total << (_int64(62) - top)) >> _int64(62 - LOG_BITS)) - _int64(1 << LOG_BITS)
    g: Expr = _int64(LOG2[-1])
    for coefficient in LOG2[-2::-1]:
        g = ((f * g) >> _int64(LOG_BITS)) + _int64(coefficient)
    return ((top - _int64(EXP_BITS)) << _int64(LOG_BITS)) + ((f * g) >> _int64(LOG_BITS))


def _exponentials(x: te.Tensor, plan: Powers) -> tuple[te.Tensor, te.Tensor, te.Tensor]:
    """Peaks of rows, int32; exponentials, int32 with ``EXP_BITS`` fractional bits; their sums, int64."""
    shape, axis = _shape(x), plan.axis
    rows = [d for i, d in enumerate(shape) if i != axis]

    def at(index: Sequence[Any], k: Any) -> list[Any]:
        return [*index[:axis], k, *index[axis:]]

    def reduced(fn: Callable[..., Any], value: Callable[..., Expr], name: str) -> te.Tensor:
        k = te.reduce_axis((0, shape[axis]), name="k")
        return te.compute(rows, lambda *i: fn(value(*at(i, k.var)), axis=k), name=name)

    peak = reduced(te.max, lambda *i: x(*i).astype("int32"), "peak")
    power = te.compute(
        shape, lambda *i: _power(peak(*plan.row(i)) - x(*i).astype("int32"), plan), name="power"
    )
    return peak, power, reduced(te.sum, lambda *i: power(*i).astype("int64"), "total")


def _power(difference: Expr, plan: Powers) -> Expr:
    """2 to minus an exponent, with ``EXP_BITS`` fractional bits."""
    exponent = tirx.min(difference, _int32(plan.limit)) * _int32(plan.factor)
    whole = (exponent + _int32(1 << (plan.bits - 1))) >> _int32(plan.bits)
    rest = exponent - (whole << _int32(plan.bits))
    spare = plan.bits - FRACTION_BITS
    f = (rest + _int32(1 << (spare - 1))) >> _int32(spare)
    g: Expr = _int32(EXP2[-1])
    for coefficient in EXP2[-2::-1]:
        g = ((f * g) >> _int32(FRACTION_BITS)) + _int32(coefficient)
    near_one = _int32(1 << 29) - ((f * g) >> _int32(3))
    shift = tirx.min(whole + _int32(29 - EXP_BITS), _int32(31))
    return (near_one + (_int32(1) << (shift - _int32(1)))) >> shift


@dataclass(frozen=True)
class Normalise:
    """Numbers of an integer normalisation.

    Attributes:
        axes: That mean and variance are taken over.
        centred: Whether the mean is subtracted.
        zero: Zero point of the tensor.
        epsilon: What is added to the variance of all ``n`` elements, in ``(step / n)**2``.
        bits: Fractional bits of the normalised numbers.
        result: What their products with the factors become.
    """

    axes: tuple[int, ...]
    centred: bool
    zero: int
    epsilon: int
    bits: int
    result: Steps


def normalise(x: te.Tensor, factor: te.Tensor, added: te.Tensor, plan: Normalise) -> te.Tensor:
    """(x - mean) / sqrt(variance + epsilon) * factor + added.

    Args:
        x: The tensor.
        factor: int32, broadcastable to it.
        added: int64, likewise.
        plan: The numbers.
    """
    shape = _shape(x)
    kept = [a for a in range(len(shape)) if a not in plan.axes]
    count = math.prod(shape[a] for a in plan.axes)

    def centred(*index: Any) -> Expr:
        value = x(*index).astype("int32")
        return value - _int32(plan.zero) if plan.zero else value

    def total(power: int) -> te.Tensor:
        taps = {a: te.reduce_axis((0, shape[a]), name=f"k{a}") for a in plan.axes}

        def element(*index: Any) -> Expr:
            place = [taps[a].var if a in taps else index[kept.index(a)] for a in range(len(shape))]
            value = centred(*place).astype("int64")
            return te.sum(value * value if power == 2 else value, axis=list(taps.values()))

        return te.compute([shape[a] for a in kept], element, name="squares" if power == 2 else "total")

    def row(index: Sequence[Any]) -> list[Any]:
        return [index[a] for a in kept]

    squares, sums = total(2), total(1) if plan.centred else None

    def deviation(*i: Any) -> Expr:
        spread = squares(*i) * _int64(count)
        spread = spread - sums(*i) * sums(*i) if sums is not None else spread
        return tirx.max(spread + _int64(plan.epsilon), _int64(1))

    def over_rows(fn: Callable[..., Expr], name: str) -> te.Tensor:
        return te.compute([shape[a] for a in kept], fn, name=name)

    spread = over_rows(deviation, "spread")
    quarters = over_rows(lambda *i: (tirx.clz(spread(*i)).astype("int32") - 2) >> 1, "quarters")
    scaled = over_rows(lambda *i: spread(*i) << (quarters(*i) * 2).astype("int64"), "scaled")
    root = over_rows(lambda *i: _first_root(scaled(*i)), "root")
    for _ in range(3):
        root = over_rows(_better_root(scaled, root), "root")
    inverse = over_rows(
        lambda *i: tirx.truncdiv(_int64(1 << 61), _floor_root(scaled(*i), root(*i))), "inverse"
    )
    shift = over_rows(lambda *i: (_int32(61 - plan.bits) - quarters(*i)).astype("int64"), "shift")
    half = over_rows(lambda *i: _int64(1) << (shift(*i) - _int64(1)), "half")

    def element(*index: Any) -> Expr:
        at = row(index)
        distance = centred(*index).astype("int64") * _int64(count)
        distance = distance - sums(*at) if sums is not None else distance
        unit = (distance * inverse(*at) + half(*at)) >> shift(*at)
        product = unit * _broadcast(factor, index).astype("int64") + _broadcast(added, index)
        return plan.result.of(product)

    return te.compute(shape, element, name="normalise")


@dataclass(frozen=True)
class Quotient:
    """Numbers of a division of two tensors.

    Attributes:
        zeros: Zero points of both.
        factor: A step of the dividend over one of the divisor, in steps of the result, times
            ``2**result.shift``.
        result: What it becomes.
    """

    zeros: tuple[int, int]
    factor: int
    result: Steps


FAR = 2**62
"""A number beyond all results."""


def quotient(a: te.Tensor, b: te.Tensor, plan: Quotient) -> te.Tensor:
    """a / b with numpy's broadcasting; what is divided by 0 is as large as a result can be, 0 / 0 is 0."""
    shape = np.broadcast_shapes(_shape(a), _shape(b))

    def element(*index: Any) -> Expr:
        dividend, divisor = (
            _broadcast(x, index).astype("int64") - _int64(zero)
            for x, zero in zip((a, b), plan.zeros, strict=True)
        )
        none, nothing = _int64(0), divisor == _int64(0)
        far = tirx.Select(dividend > none, _int64(FAR), tirx.Select(dividend < none, _int64(-FAR), none))
        whole = tirx.truncdiv(dividend * _int64(plan.factor), tirx.Select(nothing, _int64(1), divisor))
        return plan.result.of(tirx.Select(nothing, far, whole))

    return te.compute(shape, element, name="quotient")


def linear_resize(
    x: te.Tensor,
    rows: te.Tensor,
    columns: te.Tensor,
    heights: te.Tensor,
    widths: te.Tensor,
    dtype: str,
    zero: int,
) -> te.Tensor:
    """Sums of the four neighbours of each output times weights, less the zero point's share.

    Args:
        x: [N, height, width, C].
        rows: int32 [new height, 2]: the rows that an output lies between.
        columns: int32 [new width, 2].
        heights: Weights of the rows, of ``dtype``.
        widths: Weights of the columns.
        dtype: Of the sums: ``int32`` or ``int64``.
        zero: What is taken off each sum.
    """

    def element(n: Any, i: Any, j: Any, c: Any) -> Expr:
        lines = [
            x(n, rows(i, a), columns(j, 0), c).astype(dtype) * widths(j, 0)
            + x(n, rows(i, a), columns(j, 1), c).astype(dtype) * widths(j, 1)
            for a in (0, 1)
        ]
        return lines[0] * heights(i, 0) + lines[1] * heights(i, 1) - tirx.const(zero, dtype)

    batch, _, _, channels = _shape(x)
    return te.compute((batch, _shape(rows)[0], _shape(columns)[0], channels), element, name="resize")


def _first_root(m: Expr) -> Expr:
    """The tangent of the root of ``2**60 <= m < 2**62`` at ``2**61``: 6 % too much at most."""
    return ((m >> _int64(31)) * _int64(46341) >> _int64(16)) + _int64(759250125)


def _better_root(scaled: te.Tensor, root: te.Tensor) -> Callable[..., Expr]:
    """A step of Newton's method; whatever it starts from, it is not below the root's whole part."""
    return lambda *i: (root(*i) + tirx.truncdiv(scaled(*i), root(*i))) >> _int64(1)


def _floor_root(m: Expr, root: Expr) -> Expr:
    """The whole part, from that or one more."""
    return root - (root * root > m).astype("int64")


def _broadcast(tensor: te.Tensor, index: Sequence[Any]) -> Expr:
    """The element of a tensor of as many or fewer dimensions that belongs to a position."""
    dims = _shape(tensor)
    places = index[len(index) - len(dims) :]
    return tensor(*(0 if d == 1 else i for i, d in zip(places, dims, strict=True)))


def _shape(tensor: te.Tensor) -> list[int]:
    return [int(d) for d in tensor.shape]


def _int32(value: int) -> Expr:
    return tirx.const(value, "int32")


def _int64(value: int) -> Expr:
    return tirx.const(value, "int64")
