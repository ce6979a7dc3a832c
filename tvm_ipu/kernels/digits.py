"""Products of 16-bit integers in 64 bits, by instructions that sum in 32.

The right operand is taken apart into digits, ``w = 256 * high + low`` with ``0 <= low < 256``, and each digit
has sums of its own. No sum of ``limit`` products can overflow::

    |x| <= 2^15, |digit| <= 255     ->     256 products stay below 2^31

After as many products, or at the end, the sums of the digits are joined in 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.dot import Dot, Operand
from tvm_ipu.kernels.emit import Emitter, Index, broadcast, lanes_of
from tvm_ipu.kernels.registers import RegisterTile

LARGEST_LEFT = 2**15
LARGEST_DIGIT = {"int8": 128, "int16": 255}
"""By the type of the right operand; one of 8 bits is its own only digit."""

DIGIT_BITS = 8


def with_digits(dot: Dot) -> Dot:
    """A dot product in 64 bits, made of one of int16 and ``dot.right`` in 32."""
    limit = (2**31 - 1) // (LARGEST_LEFT * LARGEST_DIGIT[dot.right])
    wide = replace(dot, acc="int64", limit=limit - limit % dot.unit, plain=False)
    if dot.right != "int16":
        return wide

    def widen(e: Emitter, value: Expr) -> Operand:
        value = e.bind("w", value)

        def count(bits: int) -> Expr:
            return broadcast(tirx.const(bits, "int16"), lanes_of(value))

        low = tirx.bitwise_and(value, count(2**DIGIT_BITS - 1))
        high = tirx.shift_right(value, count(DIGIT_BITS))
        return (*dot.widen(e, low), *dot.widen(e, high))

    return replace(wide, widen=widen, digits=2)


def register_tile(
    e: Emitter, rows: int, widths: Sequence[int], lanes: int, dot: Dot, reduction: int
) -> RegisterTile:
    """Accumulators for ``reduction`` products of each element."""
    if dot.limit:
        return DigitTile(e, rows, widths, lanes, dot, reduction)
    return RegisterTile(e, rows, widths, lanes, dot.acc, shift=dot.shift)


class DigitTile(RegisterTile):
    """Accumulators of 64 bits, in memory, in front of which sums of digits stay in registers."""

    def __init__(
        self, e: Emitter, rows: int, widths: Sequence[int], lanes: int, dot: Dot, reduction: int
    ) -> None:
        self._digits = dot.digits
        self._is_short = reduction <= dot.limit
        scope = "local" if self._is_short else "global"  # registers are for the sums of digits
        super().__init__(e, rows, widths, lanes, dot.acc, scope=scope, shift=dot.shift)
        self._sums = self._zeros() if self._is_short else None

    def _zeros(self) -> RegisterTile:
        widths = [self.lanes] * (len(self.widths) * self._digits)
        return RegisterTile(self._e, self.rows, widths, self.lanes, "int32")

    def add_dots(
        self,
        dot: Dot,
        depth: int,
        left: Callable[[int, Index, int], Expr],
        right: Callable[[int, Index], Expr],
        rows: range | None = None,
        meanwhile: Callable[[Index], None] | None = None,
    ) -> None:
        """As for ``RegisterTile``."""
        if self._sums is not None:
            self._sums.add_dots(dot, depth, left, right, rows, meanwhile)
            return
        e, chunk = self._e, dot.limit
        whole = depth // chunk

        def add(first: Index, length: int) -> None:
            sums = self._zeros()
            sums.add_dots(
                dot,
                length,
                lambda m, k, count: left(m, first + k, count),
                lambda v, step: right(v, _step(first, dot) + step),
                rows,
            )
            self._join(sums)

        with e.loop("chunk", 0, whole) as number:
            if meanwhile is not None:
                meanwhile(number)
            add(e.bind("first", number * chunk), chunk)
        if depth % chunk:
            add(whole * chunk, depth % chunk)

    def settle(self) -> None:
        """Make the accumulators' buffer hold the sums."""
        if self._sums is not None:
            self._join(self._sums)
        super().settle()

    def _join(self, sums: RegisterTile) -> None:
        """Add the sums of the digits."""
        e, lanes = self._e, self.lanes
        for m in range(self.rows):
            for v in range(len(self.widths)):
                total = e.load(self.buffer, self.at(m, v), lanes)
                for digit in range(self._digits):
                    part = e.load(sums.buffer, sums.at(m, v * self._digits + digit), lanes)
                    wide = part.astype(f"int64x{lanes}" if lanes > 1 else "int64")
                    if digit:
                        wide = tirx.shift_left(
                            wide, broadcast(tirx.const(DIGIT_BITS * digit, "int64"), lanes)
                        )
                    total = total + wide
                e.store(self.buffer, self.at(m, v), total, lanes)


def _step(first: Index, dot: Dot) -> Index:
    """Number of the load of the right operand that the element ``first`` begins."""
    return first // dot.unit if isinstance(first, int) else tirx.floordiv(first, dot.unit)
