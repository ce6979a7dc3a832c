"""Building blocks of branch-free floating-point code in TIR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tvm import DataType, tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.coefficients import Table


@dataclass(frozen=True)
class Format:
    """An IEEE binary format.

    Attributes:
        name: TVM dtype of one element.
        int_name: Signed integer of the same width.
        bits: Width.
        mantissa: Stored bits of the significand.
        bias: Exponent bias.
    """

    name: str
    int_name: str
    bits: int
    mantissa: int
    bias: int

    @property
    def sign_bit(self) -> int:
        """The sign bit as a signed integer."""
        return -(1 << (self.bits - 1))

    @property
    def inf_bits(self) -> int:
        """Bits of infinity."""
        return ((1 << (self.bits - 1 - self.mantissa)) - 1) << self.mantissa

    @property
    def min_normal(self) -> float:
        """Smallest normal number."""
        return 2.0 ** (1 - self.bias)

    @property
    def magic(self) -> float:
        """1.5 * 2^mantissa: adding it rounds what is below 2^(mantissa - 2) to an integer in the low bits."""
        return 1.5 * 2.0**self.mantissa


def int_bits(value: float, form: Format) -> int:
    """Bits of a number in a format, as a signed integer."""
    return int(np.array(value, form.name).view(form.int_name))


FORMATS = {
    f.name: f for f in (Format("float32", "int32", 32, 23, 127), Format("float64", "int64", 64, 52, 1023))
}


@dataclass
class Terms:
    """Intermediate values of one expression of floats in one format, scalar or vector.

    TIR expressions are trees: a value used twice must be bound to a variable, and a bound value is also safe
    from simplifications that hold for real numbers only, such as ``(x + c) - c`` to ``x``.

    Attributes:
        format: Format of the floats.
        lanes: Elements of a vector; 1 for scalars.
        native: Functions that the target has as one instruction: ``sqrt``, ``round``, and ``look_up`` in a
            table of as many numbers as a vector has.
    """

    format: Format
    lanes: int = 1
    native: frozenset[str] = frozenset()
    _bound: list[tuple[tirx.Var, Expr]] = field(default_factory=list)

    def __call__(self, value: Expr) -> tirx.Var:
        """Bind ``value``: it is computed once. A condition stays as it is: TVM binds no bool vectors."""
        if value.ty.dtype.is_bool:
            return value
        var = tirx.Var("t", value.ty.dtype)
        self._bound.append((var, value))
        return var

    def result(self, value: Expr) -> Expr:
        """``value`` within the scope of all that was bound."""
        for var, bound in reversed(self._bound):
            value = tirx.Let(var, bound, value)
        return value

    @property
    def float_dtype(self) -> DataType:
        """Type of the values."""
        return DataType(self.format.name).with_lanes(self.lanes)

    @property
    def int_dtype(self) -> DataType:
        """Type of their bits."""
        return DataType(self.format.int_name).with_lanes(self.lanes)

    def const(self, value: float) -> Expr:
        """A float constant."""
        return tirx.const(value, self.float_dtype)

    def int_const(self, value: int) -> Expr:
        """An integer constant of the float's width."""
        return tirx.const(value, self.int_dtype)

    def to_bits(self, value: Expr) -> Expr:
        """Bits of a float as a signed integer."""
        return tirx.reinterpret(self.int_dtype, value)

    def from_bits(self, value: Expr) -> Expr:
        """The float with these bits."""
        return tirx.reinterpret(self.float_dtype, value)

    def to_float(self, value: Expr) -> Expr:
        """A signed integer of the float's width and a magnitude below 2^22, converted."""
        if self.format.bits == 32:
            return tirx.Cast(self.float_dtype, value)
        # few instruction sets convert 64-bit integers: write it into the low bits of a float
        magic = int_bits(self.format.magic, self.format)
        return self(self.from_bits(value + self.int_const(magic))) - self.const(self.format.magic)

    def intrinsic(self, name: str, x: Expr) -> Expr:
        """LLVM's function of one argument."""
        return tirx.call_llvm_pure_intrin(self.float_dtype, name, x)

    def shift_left(self, value: Expr, count: int) -> Expr:
        """Integer shift."""
        return tirx.shift_left(value, self.int_const(count))

    def shift_right(self, value: Expr, count: int) -> Expr:
        """Arithmetic integer shift."""
        return tirx.shift_right(value, self.int_const(count))

    @property
    def has_table(self) -> bool:
        """Whether ``look_up`` takes one instruction for 16 lanes."""
        return "look_up" in self.native and self.format.bits == 32 and self.lanes % 16 == 0

    def look_up(self, table: Sequence[float], numbers: tirx.Var) -> Expr:
        """Entries of a table of 16 numbers; which ones, is in the low bits of integers."""
        if not self.has_table:
            low = self(tirx.bitwise_and(numbers, self.int_const(15)))
            value = self.const(table[0])
            for i, entry in enumerate(table[1:], 1):
                value = self.select(tirx.EQ(low, self.int_const(i)), self.const(entry), value)
            return value

        def order(first: int, count: int) -> list[Expr]:
            return [tirx.IntImm("int32", first + i) for i in range(count)]

        entries = tirx.Shuffle([tirx.const(value, self.format.name) for value in table], order(0, 16))
        found = [
            tirx.call_llvm_pure_intrin(
                self.float_dtype.with_lanes(16),
                "llvm.x86.avx512.permvar.sf.512",
                entries,
                numbers if self.lanes == 16 else tirx.Shuffle([numbers], order(first, 16)),
            )
            for first in range(0, self.lanes, 16)
        ]
        return found[0] if len(found) == 1 else tirx.Shuffle(found, order(0, self.lanes))

    def select(self, condition: Expr, then: Expr, otherwise: Expr) -> Expr:
        """Both are computed, one is taken. Comparisons with a NaN are false, even TVM's ``!=``."""
        return tirx.Select(condition, then, otherwise)

    def clamp(self, value: tirx.Var, low: float, high: float) -> tirx.Var:
        """``value`` limited to ``[low, high]``; a NaN stays a NaN."""
        below = self(self.select(value > self.const(high), self.const(high), value))
        return self(self.select(below < self.const(low), self.const(low), below))

    def sign(self, value: Expr) -> Expr:
        """The sign bit of a float, as an integer."""
        return tirx.bitwise_and(self.to_bits(value), self.int_const(self.format.sign_bit))

    def abs(self, value: Expr) -> Expr:
        """Magnitude of a float."""
        return self.from_bits(tirx.bitwise_and(self.to_bits(value), self.int_const(~self.format.sign_bit)))

    def with_sign(self, magnitude: Expr, sign: Expr) -> Expr:
        """A non-negative float with a sign bit."""
        return self.from_bits(tirx.bitwise_or(self.to_bits(magnitude), sign))

    def flip_sign(self, value: Expr, sign: Expr) -> Expr:
        """A float, negated where the sign bit is set."""
        return self.from_bits(tirx.bitwise_xor(self.to_bits(value), sign))

    def polynomial(self, table: Table, x: tirx.Var) -> Expr:
        """The table's polynomial at ``x``, by Horner's rule."""
        coefficients = table[self.format.name]
        value = self.const(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = value * x + self.const(coefficient)
        return value

    def minus_multiple(self, x: Expr, count: tirx.Var, parts: Sequence[float]) -> tirx.Var:
        """``x - count * sum(parts)`` where the products with all parts but the last are exact."""
        rest = x
        for part in parts:
            rest = self(rest - count * self.const(part))
        return rest

    def round_small(self, x: Expr) -> tuple[tirx.Var, tirx.Var]:
        """Nearest integer of ``|x| < 2^(mantissa - 2)``, half to even: a float, and an integer's low bits."""
        shifted = self(x + self.const(self.format.magic))
        return self(shifted - self.const(self.format.magic)), self(self.to_bits(shifted))
