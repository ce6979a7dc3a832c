"""Products of RISC-V's vector extension: ``vwmacc`` of 16-bit elements into 32-bit accumulators.

The extension has no dot product. One instruction multiplies a vector by a scalar from an integer register, so
that the left operand is never broadcast.
"""

from __future__ import annotations

from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.dot import Dot, Operand
from tvm_ipu.kernels.emit import Emitter, broadcast

_NARROW = ("int8", "uint8", "int16")


def dots(target: Target) -> list[Dot]:
    """Products of a target with vectors."""
    if "rvv" not in target.isa:
        return []
    lanes = target.lanes(32)

    def spread(_: Emitter, value: Expr) -> Operand:
        return (value.astype("int16"),)

    def widen(_: Emitter, value: Expr) -> Operand:
        return (value.astype(f"int16x{lanes}"),)

    def multiply(_: Emitter, sums: Expr, a: Operand, b: Operand) -> Expr:
        return sums + broadcast(a[0], lanes).astype(f"int32x{lanes}") * b[0].astype(f"int32x{lanes}")

    pairs = [(left, right) for left in _NARROW for right in _NARROW]
    return [Dot(*pair, "int32", 1, lanes, spread, widen, multiply, 1, 1.0, 0.5) for pair in pairs]
