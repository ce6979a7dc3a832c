"""Dot products: how a target multiplies and sums vectors of accumulators, for any pair of element types.

One multiplication takes ``group`` consecutive steps of the reduction::

    acc[i] += sum over g < group of left[g] * right[i * group + g]        i < lanes

Right operands are packed for it, at compile time or in the kernel, as ``[steps / group, lanes, group]``. The
instructions of a chip are in ``kernels/isa``; what works everywhere, with groups of one, is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import Emitter, Index, broadcast, item_bytes, lanes_of, vector_type
from tvm_ipu.kernels.half import widen as widen_half

Operand = tuple[Expr, ...]
"""A prepared operand, in as many vectors as the instructions want."""

ACCUMULATOR = {
    "float16": "float32",
    "bfloat16": "float32",
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
}


@dataclass(frozen=True)
class Dot:
    """Instructions for one pair of element types. Integer sums are exact while they fit the accumulator.

    Attributes:
        left: Element type of the left operand.
        right: Element type of the right operand.
        acc: Element type of the accumulators.
        group: Steps of the reduction in one multiplication.
        lanes: Accumulators of a vector.
        spread: Prepares ``group`` loaded elements of the left operand for all lanes.
        widen: Prepares ``lanes * group`` loaded elements of the right operand.
        multiply: Accumulators, prepared left and right operand to the new accumulators.
        parts: Vectors of a prepared operand.
        cost: Multiplying instructions of ``multiply``.
        prepare_cost: Further instructions that preparing one operand takes, beside its load.
        plain: Whether it is ``plain_dot``'s, which takes operands converted to ``acc`` before, and right ones
            with fewer lanes.
        registers: Vector registers for it; 0 for the target's ``vector_registers``.
        digits: Sums for each accumulator, one for each prepared part of the right operand (``digits``).
        limit: Products that these sums hold; 0 where they are the accumulators.
        halves: Multiplications that one load of the right operand is enough for (``nibbles``).
        shift: Bits by which the sums are shifted right in the end.
        stored: Type of the right operand in memory; empty for ``right``.
    """

    left: str
    right: str
    acc: str
    group: int
    lanes: int
    spread: Callable[[Emitter, Expr], Operand]
    widen: Callable[[Emitter, Expr], Operand]
    multiply: Callable[[Emitter, Expr, Operand, Operand], Expr]
    parts: int = 1
    cost: float = 1.0
    prepare_cost: float = 0.0
    plain: bool = False
    registers: int = 0
    digits: int = 1
    limit: int = 0
    halves: int = 1
    shift: int = 0
    stored: str = ""

    def steps(self, depth: int) -> int:
        """Loads of the right operand along a reduction of length ``depth``."""
        return -(-depth // self.unit)

    @property
    def unit(self) -> int:
        """Steps of the reduction that one load of the right operand is for."""
        return self.group * self.halves

    @property
    def right_bytes(self) -> float:
        """Bytes of memory that an element of the right operand takes."""
        return item_bytes(self.stored or self.right) / self.halves

    @property
    def panel(self) -> int:
        """Elements in memory of one load of the right operand."""
        return self.lanes * self.group


def accumulator(dtype: str, wanted: str | None = None) -> str:
    """Type in which products of ``dtype`` elements are summed, where ``wanted`` is that of the result."""
    return "int64" if wanted == "int64" else ACCUMULATOR.get(dtype, dtype)


def plain_dot(left: str, right: str, target: Target, acc: str = "") -> Dot:
    """Groups of one: operands are converted to the accumulator's type, then multiplied and added."""
    acc = acc or accumulator(left)
    lanes = target.lanes(8 * item_bytes(acc))
    return Dot(
        left=left,
        right=right,
        acc=acc,
        group=1,
        lanes=lanes,
        spread=lambda e, value: (convert(e, value, acc),),
        widen=lambda e, value: (convert(e, value, acc),),
        multiply=lambda e, sums, a, b: sums + broadcast(a[0], lanes_of(b[0])) * b[0],
        plain=True,
    )


def convert(e: Emitter, value: Expr, dtype: str) -> Expr:
    """A loaded scalar or vector in another element type."""
    lanes = lanes_of(value)
    have, want = str(value.ty), vector_type(dtype, lanes)
    if have == want:
        return value
    if have == vector_type("bfloat16", lanes) and dtype == "float32":
        return e.bind("wide", widen_half(value))
    return value.astype(want)


def load_group(e: Emitter, buffer: tirx.Buffer, at: Index, count: int, group: int) -> Expr:
    """``group`` elements from ``at`` on, of which only the first ``count`` are read; the others are zero."""
    if count == group:
        return e.load(buffer, at, group)
    dtype = str(buffer.ty.dtype.dtype)
    bits = 8 * item_bytes(dtype)
    word = f"uint{bits * group}"
    packed = tirx.const(0, word)
    for i in range(count):
        item = tirx.reinterpret(f"uint{bits}", e.load(buffer, at + i)).astype(word)
        packed = tirx.bitwise_or(packed, tirx.shift_left(item, tirx.const(bits * i, word)))
    return tirx.reinterpret(vector_type(dtype, group), packed)
