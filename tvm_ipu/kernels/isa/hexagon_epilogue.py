"""What integer kernels do with their sums on HVX, which has no floating point before v68.

``round_product`` is ``int32(round(float32(a) * m))`` in integers, bit for bit what IEEE float32 gives: ``a``
is rounded to 24 bits, multiplied by the 24 bits of ``m``, the product is rounded to 24 bits, and that to an
integer, each time to nearest, half to even. Rounding ``v`` to a multiple of ``2^s`` is
``(v + (2^(s-1) - 1) + bit s of v) >> s``.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import broadcast, index, lanes_of

LANES = 32
LIMIT = 2.0**22
"""Results beyond this magnitude are only sure to be beyond it, or equal to it."""

Bind = Callable[[Expr], Expr]
"""Gives a value a name, so that it is computed once."""


def round_product(bind: Bind, a: Expr, m: Expr, limited: bool = True) -> Expr:
    """The nearest integer of ``float32(a) * m``.

    Args:
        bind: Names intermediate values.
        a: Vector of int32, of ``LANES`` lanes or fewer, as is the result.
        m: Vector of float32, finite; a subnormal number counts as zero.
        limited: Whether results beyond ``LIMIT`` need not be exact, only beyond it.

    Returns:
        Vector of int32; unless ``limited``, exact for all results that int32 holds.
    """
    lanes = lanes_of(a)
    a, m = bind(_resize(a, LANES)), _resize(m, LANES)
    sign = bind(_sar(a, 31))
    size = bind(tirx.bitwise_xor(a, sign) - sign)

    # float32(|a|) = digits * 2^(8 - zeros), 2^23 <= digits <= 2^24
    zeros = bind(_vector("vcl0w", tirx.bitwise_or(size, _const(1))))
    top = bind(_shl(size, zeros))
    digits = bind(_shr(top, 8))
    carry = _shr(tirx.bitwise_and(top, _const(255)) + _const(127) + tirx.bitwise_and(digits, _const(1)), 8)
    digits = digits + carry

    # |m| = fraction * 2^(exponent - 150)
    bits = bind(tirx.reinterpret(f"int32x{LANES}", m))
    fraction = tirx.bitwise_or(tirx.bitwise_and(bits, _const(0x7FFFFF)), _const(0x800000))
    exponent = tirx.bitwise_and(_shr(bits, 23), _const(255))

    # the product of 2^59 to 2^61; its lower word only tells exact results from others
    low, high = _multiply(bind, bind(_shl(digits, 6)), bind(_shl(fraction, 7)))
    high = bind(tirx.bitwise_or(high, tirx.Min(low, _const(1, "uint32")).astype(high.ty)))
    shift = bind(_const(4) + _shr(high, 28))
    product = bind(_round(high, shift))

    # times 2^-drop, where the result is 0 from 25 on, and above the limit below 1
    drop = bind(zeros - exponent - shift + _const(150 - 8 - 19))
    size = _round(product, bind(tirx.Min(tirx.Max(drop, _const(1)), _const(25))))
    if not limited:  # from 2^23 on there is nothing to round
        is_large = _sar(drop - _const(1), 31)
        large = _shl(product, tirx.Min(tirx.Max(_const(0) - drop, _const(0)), _const(7)))
        size = tirx.Max(size, tirx.bitwise_and(large, is_large))
    sign = bind(tirx.bitwise_xor(sign, _sar(bits, 31)))
    return _resize(bind(tirx.bitwise_xor(size, sign) - sign), lanes)


def narrow(bind: Bind, value: Expr, dtype: str) -> Expr:
    """The low bytes of a vector of int32, of ``LANES`` lanes or fewer: LLVM 22 takes them one by one."""
    lanes = lanes_of(value)
    words = bind(_resize(value, LANES))
    halves = bind(_vector("vpackeh", words, words))
    packed = bind(_vector("vpackeb", halves, halves))
    return _resize(tirx.reinterpret(f"{dtype}x{4 * LANES}", packed), lanes)


def _round(value: Expr, shift: Expr) -> Expr:
    """``value / 2^shift`` for ``value`` of 0 to 2^30 and ``shift`` of 1 to 25."""
    odd = tirx.bitwise_and(_sar(value, shift), _const(1))
    return _sar(value + (_shl(_const(1), shift - _const(1)) - _const(1)) + odd, shift)


def _resize(value: Expr, lanes: int) -> Expr:
    """The first lanes of a vector, or the vector with any values in further lanes."""
    have = lanes_of(value)
    if have == lanes:
        return value
    copies = -(-lanes // have)  # TVM wants as many lanes as it gives
    return tirx.Shuffle([value] * copies, [index(min(lane, have - 1)) for lane in range(lanes)])


def _multiply(bind: Bind, a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Lower (unsigned) and upper word of the product of two vectors of int32."""
    low = _pair("vmpyewuh.64", a, b)
    both = bind(_pair("vmpyowh.64.acc", low, a, b))
    return _vector("lo", both).astype(f"uint32x{LANES}"), _vector("hi", both)


def _vector(name: str, *args: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(f"int32x{LANES}", f"llvm.hexagon.V6.{name}.128B", *args)


def _pair(name: str, *args: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(f"int32x{2 * LANES}", f"llvm.hexagon.V6.{name}.128B", *args)


def _const(value: int, dtype: str = "int32") -> Expr:
    return broadcast(tirx.const(value, dtype), LANES)


def _shl(value: Expr, count: Expr | int) -> Expr:
    return tirx.shift_left(value, _const(count) if isinstance(count, int) else count)


def _sar(value: Expr, count: Expr | int) -> Expr:
    """Arithmetic shift."""
    return tirx.shift_right(value, _const(count) if isinstance(count, int) else count)


def _shr(value: Expr, count: int) -> Expr:
    """Logical shift."""
    word = tirx.shift_right(value.astype(f"uint32x{LANES}"), _const(count, "uint32"))
    return word.astype(f"int32x{LANES}")
