"""Dot products of x86-64.

Bytes: ``vpdpbusd`` where the chip has it, for an unsigned left and a signed right operand. Otherwise the even
and the odd bytes become vectors of 16-bit numbers, which ``vpmaddwd`` (``vpdpwssd``) multiplies and adds in
pairs without overflow; ``vpmaddubsw`` would saturate. 16-bit integers use the same instructions, bfloat16
``vdpbf16ps``, which rounds to nearest even and takes subnormal numbers for zero.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.dot import Dot, Operand
from tvm_ipu.kernels.emit import Emitter, broadcast, lanes_of
from tvm_ipu.kernels.llvm import DOT_BF16

_Sum = Callable[[Expr, Expr, Expr], Expr]
"""Accumulators and two vectors of operands to the new accumulators."""

_BYTES = ("uint8", "int8")

_PAIRS = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}
"""By vector width: products of 16-bit numbers, added in pairs."""


def dots(target: Target) -> list[Dot]:
    """Dot products of a target with vectors, best first."""
    bits = target.vector_bits
    if not bits:
        return []
    lanes = bits // 32
    fused = bits in (256, 512) and ("avxvnni" if bits == 256 else "vnni") in target.isa
    pairs = partial(_fused, "vpdpwssd", bits) if fused else partial(_pairs, bits)
    cost = 1.0 if fused else 2.0
    found = []
    if fused:
        add = partial(_fused, "vpdpbusd", bits)
        found.append(_single("uint8", "int8", "int32", 4, lanes, add))
    found += [_split_bytes(left, right, lanes, pairs, cost) for left in _BYTES for right in _BYTES]
    found.append(_single("int16", "int16", "int32", 2, lanes, pairs, cost))
    found.append(_with_bytes(lanes, pairs, cost))
    if bits == 512 and "avx512bf16" in target.isa:
        found.append(_single("bfloat16", "bfloat16", "float32", 2, lanes, DOT_BF16.call))
    return found


def _single(left: str, right: str, acc: str, group: int, lanes: int, add: _Sum, cost: float = 1.0) -> Dot:
    """A dot product that takes both operands as they are in memory; bfloat16 as the integers of its bits."""
    a_type, b_type = (f"{'uint16' if kind == 'bfloat16' else kind}x{lanes * group}" for kind in (left, right))

    def spread(_: Emitter, value: Expr) -> Operand:
        return (_all_lanes(value, lanes, a_type),)

    def widen(_: Emitter, value: Expr) -> Operand:
        return (tirx.reinterpret(b_type, value),)

    def multiply(_: Emitter, sums: Expr, a: Operand, b: Operand) -> Expr:
        return add(sums, a[0], b[0])

    return Dot(left, right, acc, group, lanes, spread, widen, multiply, cost=cost)


def _with_bytes(lanes: int, add: _Sum, cost: float) -> Dot:
    """A dot product of 16-bit numbers and signed bytes, which are extended as they are loaded."""

    def spread(_: Emitter, value: Expr) -> Operand:
        return (_all_lanes(value, lanes, f"int16x{2 * lanes}"),)

    def widen(_: Emitter, value: Expr) -> Operand:
        return (value.astype(f"int16x{2 * lanes}"),)

    def multiply(_: Emitter, sums: Expr, a: Operand, b: Operand) -> Expr:
        return add(sums, a[0], b[0])

    return Dot("int16", "int8", "int32", 2, lanes, spread, widen, multiply, cost=cost)


def _split_bytes(left: str, right: str, lanes: int, add: _Sum, cost: float) -> Dot:
    """A dot product of bytes as two of 16-bit numbers."""

    def spread(_: Emitter, value: Expr) -> Operand:
        return _even_odd(_all_lanes(value, lanes, f"int16x{2 * lanes}"), left)

    def widen(_: Emitter, value: Expr) -> Operand:
        return _even_odd(tirx.reinterpret(f"int16x{2 * lanes}", value), right)

    def multiply(_: Emitter, sums: Expr, a: Operand, b: Operand) -> Expr:
        return add(add(sums, a[0], b[0]), a[1], b[1])

    return Dot(left, right, "int32", 4, lanes, spread, widen, multiply, 2, 2 * cost, prepare_cost=2)


def _all_lanes(value: Expr, lanes: int, dtype: str) -> Expr:
    """Loaded elements, 32 bits together, in every lane of a vector of type ``dtype``."""
    return tirx.reinterpret(dtype, broadcast(tirx.reinterpret("int32", value), lanes))


def _even_odd(value: Expr, kind: str) -> Operand:
    """Even and odd bytes of 16-bit words, extended as ``kind``, the type of a byte, says."""
    lanes = lanes_of(value)

    def count(bits: int) -> Expr:
        return broadcast(tirx.const(bits, "int16"), lanes)

    odd = tirx.shift_right(value, count(8))
    if kind == "uint8":
        return tirx.bitwise_and(value, count(0xFF)), tirx.bitwise_and(odd, count(0xFF))
    return tirx.shift_right(tirx.shift_left(value, count(8)), count(8)), odd


def _pairs(bits: int, sums: Expr, a: Expr, b: Expr) -> Expr:
    return sums + tirx.call_llvm_pure_intrin(str(sums.ty), _PAIRS[bits], a, b)


def _fused(name: str, bits: int, sums: Expr, a: Expr, b: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(str(sums.ty), f"llvm.x86.avx512.{name}.{bits}", sums, a, b)
