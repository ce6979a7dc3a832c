"""What the integer pass knows about a float value: the integers it stands for, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from tvm_ipu.passes.rewrite import Rewriter, constant, make_constant, op_name

Array = NDArray[Any]

LIMITS = {name: (int(np.iinfo(name).min), int(np.iinfo(name).max)) for name in ("uint8", "int8", "int16")}
"""Lowest and highest integer of the types that quantised activations have in an image."""

ACCUMULATOR_LIMIT = 2**31 - 1
NARROW_LIMIT = 2**30
"""Sums that may reach this are wide; half of what int32 holds, so that a correction of that size may join."""
MAX_BLOCK = 2**16
"""Most elements that scales are given one by one for."""
WIDE_LIMIT = 2**52
"""Bound of wide sums: float64 holds them exactly, and a correction of that size may join."""


@dataclass(frozen=True)
class Quantized:
    """A tensor of integers q that means ``(q - zero) * scale``.

    Attributes:
        expr: The integers, uint8, int8 or int16.
        dtype: Their type.
        scale: Positive; negative only where it is subtracted.
        zero: Zero point, inside the type's range.
    """

    expr: relax.Expr
    dtype: str
    scale: float
    zero: int

    def like(self, expr: relax.Expr) -> Quantized:
        """Other integers with the same meaning."""
        return replace(self, expr=expr)

    def times(self, factor: float) -> Quantized:
        """The same integers meaning other numbers."""
        return replace(self, scale=self.scale * factor)

    @property
    def reach(self) -> int:
        """Largest absolute value of an integer minus the zero point."""
        low, high = LIMITS[self.dtype]
        return max(self.zero - low, high - self.zero)

    @property
    def bits(self) -> int:
        """Bits of an integer."""
        return int(np.iinfo(self.dtype).bits)

    @property
    def is_short(self) -> bool:
        """Whether the integers have 16 bits."""
        return self.dtype == "int16"


@dataclass(frozen=True)
class Sum:
    """A tensor of sums a that means ``a * scale + offset``.

    Attributes:
        expr: The sums, int32 or int64.
        scale: float64, broadcastable to the tensor; of any sign.
        reach: Bound on the absolute value of every sum.
        offset: float64, of the shape of ``scale`` or a scalar; what no integer bias can express.
        is_wide: Whether the sums are int64.
    """

    expr: relax.Expr
    scale: Array
    reach: int
    offset: Array = field(default_factory=lambda: np.zeros(()))
    is_wide: bool = False

    def times(self, factor: Array | float) -> Sum:
        """The sum multiplied by numbers that broadcast to its scale, or its scale to them."""
        return replace(self, scale=np.asarray(self.scale * factor), offset=np.asarray(self.offset * factor))


@dataclass(frozen=True)
class Weight:
    """A constant that means ``value * scale``.

    Attributes:
        value: Integers with the zero point taken off, int16 or wider.
        scale: float64, broadcastable to ``value`` and of its rank.
    """

    value: Array
    scale: Array

    @property
    def bits(self) -> int:
        """4, 8 or 16: those of the narrowest integers that hold the values."""
        narrow = self.value.size == 0 or (self.value.min() >= -8 and self.value.max() <= 7)
        return 4 if narrow else int(np.iinfo(self.dtype).bits)

    @property
    def dtype(self) -> str:
        """The narrowest type that holds the values.

        Raises:
            NoInteger: They need more than 16 bits.
        """
        for dtype in ("int8", "int16"):
            low, high = LIMITS[dtype]
            if self.value.size == 0 or (self.value.min() >= low and self.value.max() <= high):
                return dtype
        raise NoInteger("its weights less their zero point need more than 16 bits")


class NoInteger(Exception):  # noqa: N818  a finding, kept as the reason why a layer stays float
    """An operator has no integer form here; the text says why."""


def parameters(call: relax.Call) -> tuple[Array, Array]:
    """Scale (float64) and zero point (int64) of a ``quantize`` or ``dequantize``.

    Raises:
        NoInteger: They are not constant, or the scale is not a positive number.
    """
    scale, zero = constant(call.args[1]), constant(call.args[2])
    if scale is None or zero is None:
        raise NoInteger("a scale or zero point is known only at run time")
    scale = np.asarray(scale, np.float64)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise NoInteger("a scale is not a positive number")
    return scale, np.asarray(zero, np.int64)


def scalar_parameters(call: relax.Call) -> tuple[float, int]:
    """Scale and zero point of a whole tensor.

    Raises:
        NoInteger: They differ between channels, or as for ``parameters``.
    """
    scale, zero = parameters(call)
    if np.unique(scale).size != 1 or np.unique(zero).size != 1:
        raise NoInteger("scales of activations differ between channels")
    return float(scale.flat[0]), int(zero.flat[0])


def weight_of(rewriter: Rewriter, expr: relax.Expr) -> Weight | None:
    """The quantised constant behind ``dequantize`` and operators that move it; None for other values."""
    call = rewriter.value(expr)
    name = op_name(call)
    if name == "relax.dequantize":
        value = constant(call.args[0])
        if value is None or value.dtype.kind not in "iu":
            return None
        scale, zero = (along(p, int(call.attrs.axis), value.ndim) for p in parameters(call))
        return Weight(value.astype(np.int32) - zero.astype(np.int32), scale)
    if name == "relax.permute_dims":
        weight = weight_of(rewriter, call.args[0])
        axes: Any = call.attrs.axes
        order = None if axes is None else [int(a) for a in axes]
        return weight and Weight(weight.value.transpose(order), weight.scale.transpose(order))
    if name == "relax.reshape":
        weight = weight_of(rewriter, call.args[0])
        return weight and _reshaped(weight, tuple(int(d) for d in call.args[1].values))
    if name == "relax.flip":
        weight, axis = weight_of(rewriter, call.args[0]), int(call.attrs.axis)
        return weight and Weight(np.flip(weight.value, axis), np.flip(weight.scale, axis))
    if name == "relax.nn.pad":
        weight = weight_of(rewriter, call.args[0])
        return weight and _padded(weight, call)
    return None


def along(parameter: Array, axis: int, rank: int) -> Array:
    """A parameter for each slice of an axis, with the tensor's rank."""
    if parameter.size == 1:
        return parameter.reshape((1,) * rank)
    shape = [1] * rank
    shape[axis] = parameter.size
    return parameter.reshape(shape)


def _padded(weight: Weight, call: relax.Call) -> Weight | None:
    """The weight with zeros around it; None where its scales differ along the padding."""
    ends = [int(p) for p in call.attrs.pad_width]
    widths = list(zip(ends[::2], ends[1::2], strict=True))
    plain = str(call.attrs.pad_mode) == "constant" and float(call.attrs.pad_value) == 0
    if not plain or any(any(w) and n > 1 for w, n in zip(widths, weight.scale.shape, strict=True)):
        return None
    return Weight(np.pad(weight.value, widths), weight.scale)


def _reshaped(weight: Weight, shape: tuple[int, ...]) -> Weight | None:
    """The weight in another shape; None where its scales do not follow one axis."""
    scale = reshaped_scale(weight.scale, weight.value.shape, shape)
    return None if scale is None else Weight(weight.value.reshape(shape), scale)


def reshaped_scale(scale: Array, old: Sequence[int], new: Sequence[int]) -> Array | None:
    """Scales of a tensor of shape ``old``, for the tensor reshaped to ``new``.

    Returns:
        Scales of rank ``len(new)``; None where they would differ between very many elements.
    """
    full = scale.reshape((1,) * (len(old) - scale.ndim) + scale.shape)
    result: list[int] = []
    for before, after in _blocks(old, new):
        own = math.prod(full.shape[a] for a in before)
        if own > 1 and math.prod(old[a] for a in before) > MAX_BLOCK:
            return None
        result += [new[a] if own > 1 else 1 for a in after]
        full = np.broadcast_to(
            full, [old[a] if a in before and own > 1 else n for a, n in enumerate(full.shape)]
        )
    return collapsed(full.reshape(result))


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """Axes of both shapes in runs of the same number of elements, as short as can be."""
    found, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start, left, right = (i, j), 1, 1
        while True:
            if left <= right and i < len(old):
                left, i = left * old[i], i + 1
            elif j < len(new):
                right, j = right * new[j], j + 1
            if left == right or (i, j) == (len(old), len(new)):
                break
        found.append((range(start[0], i), range(start[1], j)))
    return found


def collapsed(parameter: Array) -> Array:
    """The parameter with an extent of 1 along the axes where it does not change."""
    for axis in range(parameter.ndim):
        first = parameter.take([0], axis)
        if parameter.shape[axis] > 1 and (parameter == first).all():
            parameter = first
    return parameter


def real_constant(rewriter: Rewriter, expr: relax.Expr) -> Array | None:
    """A constant, or the value of a dequantised one, in float64; None for anything else."""
    value = constant(expr)
    if value is not None:
        return np.asarray(value, np.float64) if value.dtype.kind in "fiu" else None
    try:
        weight = weight_of(rewriter, expr)
    except NoInteger:
        return None
    return None if weight is None else weight.value * weight.scale


def int32_constant(values: Array | int) -> relax.Expr:
    """Whole numbers as an int32 constant."""
    return make_constant(np.asarray(values, np.int32))


def float64_constant(values: Array | float) -> relax.Expr:
    """Numbers as a float64 constant."""
    return make_constant(np.asarray(values, np.float64))


def float32_constant(values: Array | float) -> relax.Expr:
    """Numbers as a float32 constant."""
    return make_constant(np.asarray(values, np.float32))
