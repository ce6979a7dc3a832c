"""Dot products of Arm.

``sdot``, ``udot`` and ``usdot`` of four bytes, ``bfdot`` of two bfloat16 numbers, and what NEON had from the
start: widening multiplication and the addition of pairs. Names are those of the Arm Architecture Reference
Manual; LLVM makes the patterns below one instruction each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.dot import Dot, Operand, plain_dot
from tvm_ipu.kernels.emit import Emitter, broadcast, lanes_of, zero
from tvm_ipu.kernels.llvm import DOT_BF16_NEON

LANES = 4

_Sum = Callable[[Expr, Expr, Expr], Expr]
"""Accumulators and two vectors of operands to the new accumulators."""

SPARE = 4
"""Registers that a tile leaves to LLVM, which loads operands ahead."""


def dots(target: Target) -> list[Dot]:
    """Dot products of a target with NEON, best first."""
    if "neon" not in target.isa:
        return []
    found = []
    if "i8mm" in target.isa:
        usdot = partial(_instruction, "usdot")
        found.append(_single("uint8", "int8", 4, usdot))
        found.append(_single("int8", "uint8", 4, lambda sums, a, b: usdot(sums, b, a)))
    if "dotprod" in target.isa:
        found.append(_single("int8", "int8", 4, partial(_instruction, "sdot")))
        found.append(_single("uint8", "uint8", 4, partial(_instruction, "udot")))
        found.append(
            Dot("uint8", "int8", "int32", 4, LANES, _flip_left, _with_offset, _right_offset, 2, 2, 1)
        )
        found.append(Dot("int8", "uint8", "int32", 4, LANES, _offset_left, _flip, _left_offset, 2, 2, 1))
    for dtype in ("int8", "uint8"):
        found.append(_single(dtype, dtype, 2, partial(_pairs, target.arch), 2.0))
    if "bf16" in target.isa:
        found.append(_single("bfloat16", "bfloat16", 2, DOT_BF16_NEON.call))
    if target.arch == "arm":  # its products need a register too: there is no fused multiply-add
        found.append(plain_dot("float32", "float32", target))
    return [replace(dot, registers=target.vector_registers - SPARE) for dot in found]


def _single(left: str, right: str, group: int, add: _Sum, cost: float = 1.0) -> Dot:
    """A dot product that takes both operands as they are in memory; bfloat16 as the integers of its bits."""
    floats = left == "bfloat16"
    a_type, b_type = ("uint16" if floats else dtype for dtype in (left, right))
    return Dot(
        left=left,
        right=right,
        acc="float32" if floats else "int32",
        group=group,
        lanes=LANES,
        spread=lambda e, value: (_all_lanes(value, a_type),),
        widen=lambda e, value: (tirx.reinterpret(f"{b_type}x{group * LANES}", value),),
        multiply=lambda e, sums, a, b: add(sums, a[0], b[0]),
        cost=cost,
    )


def _all_lanes(value: Expr, dtype: str) -> Expr:
    """Loaded elements, 16 or 32 bits together, in every lane of a vector of ``dtype`` elements."""
    count = lanes_of(value)
    word = tirx.reinterpret(f"int{value.ty.dtype.bits * count}", value)
    return tirx.reinterpret(f"{dtype}x{count * LANES}", broadcast(word, LANES))


def _instruction(name: str, sums: Expr, a: Expr, b: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(str(sums.ty), f"llvm.aarch64.neon.{name}", sums, a, b)


def _pairs(arch: str, sums: Expr, a: Expr, b: Expr) -> Expr:
    """Products of 16 bits, added in pairs to 32 bits: two of them need not fit 16 (``smull``, ``sadalp``)."""
    dtype, sign = ("uint", "u") if str(a.ty).startswith("u") else ("int", "s")
    wide = f"{dtype}16x{2 * LANES}"
    products = a.astype(wide) * b.astype(wide)
    if arch == "arm":
        return tirx.call_llvm_pure_intrin(str(sums.ty), f"llvm.arm.neon.vpadal{sign}", sums, products)
    added = tirx.call_llvm_pure_intrin(f"{dtype}32x{LANES}", f"llvm.aarch64.neon.{sign}addlp", products)
    return sums + added.astype(str(sums.ty))


# Operands of different sign without usdot: u * s = (u - 128) * s - (-128) * s, where the second product is
# the same for all that s meets.


def _signed(value: Expr) -> Expr:
    """Unsigned bytes less 128, as signed ones."""
    lanes = lanes_of(value)
    flipped = tirx.bitwise_xor(value, broadcast(tirx.const(128, "uint8"), lanes))
    return tirx.reinterpret(f"int8x{lanes}", flipped)


def _with_offset(e: Emitter, value: Expr) -> Operand:
    """Signed bytes and, for each lane, -128 times their sum."""
    value = e.bind("bytes", value)
    minus_128 = broadcast(tirx.const(-128, "int8"), 4 * LANES)
    return value, _instruction("sdot", zero("int32", LANES), value, minus_128)


def _flip_left(e: Emitter, value: Expr) -> Operand:
    return (_all_lanes(_signed(value), "int8"),)


def _offset_left(e: Emitter, value: Expr) -> Operand:
    return _with_offset(e, _all_lanes(value, "int8"))


def _flip(e: Emitter, value: Expr) -> Operand:
    return (_signed(value),)


def _right_offset(e: Emitter, sums: Expr, a: Operand, b: Operand) -> Expr:
    return _instruction("sdot", sums, a[0], b[0]) - b[1]


def _left_offset(e: Emitter, sums: Expr, a: Operand, b: Operand) -> Expr:
    return _instruction("sdot", sums, a[0], b[0]) - a[1]
