"""Dot products of Hexagon's vectors (HVX): ``vrmpy``, in 32 lanes four products of bytes each.

Names are those of Qualcomm's HVX Programmer's Reference Manual; LLVM's intrinsics take any vector as 32-bit
words. Some forms take the four bytes that are the same for all lanes from a scalar register, as the last
operand.
"""

from __future__ import annotations

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.dot import Dot, Operand
from tvm_ipu.kernels.emit import Emitter, broadcast

LANES = 32
REGISTERS = 32
_VECTOR = f"int32x{LANES}"


def dots(target: Target) -> list[Dot]:
    """Dot products of a target with HVX."""
    if "hvx" not in target.isa:
        return []
    return [
        _vrmpy("uint8", "int8", "busv"),
        _vrmpy("int8", "int8", "bv"),
        _vrmpy("uint8", "uint8", "ub", scalar=True),
        _vrmpy("int8", "uint8", "bus", scalar=True),
    ]


def _vrmpy(left: str, right: str, form: str, scalar: bool = False) -> Dot:
    name = f"llvm.hexagon.V6.vrmpy{form}.acc.128B"

    def spread(_: Emitter, value: Expr) -> Operand:
        word = tirx.reinterpret("int32", value)
        return (word if scalar else broadcast(word, LANES),)

    def widen(_: Emitter, value: Expr) -> Operand:
        return (tirx.reinterpret(_VECTOR, value),)

    def multiply(_: Emitter, sums: Expr, a: Operand, b: Operand) -> Expr:
        operands = (b[0], a[0]) if scalar else (a[0], b[0])
        return tirx.call_llvm_pure_intrin(_VECTOR, name, sums, *operands)

    return Dot(
        left, right, "int32", 4, LANES, spread, widen, multiply, prepare_cost=not scalar, registers=REGISTERS
    )
