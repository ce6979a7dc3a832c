"""Weights of 4 bits: two multiplications' worth in the bytes of one, taken apart as they are loaded.

A byte holds the weights of two consecutive multiplications, the first one's in its lower half::

    byte = (w1 << 4) | (w0 & 15)          16 * w1 = byte & 0xF0          16 * w0 = (byte << 4) & 0xF0

Left as 16-fold numbers they need no sign extension. The sums are 16-fold too, until the end of the tile.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.dot import Dot, Operand
from tvm_ipu.kernels.emit import Emitter, broadcast, lanes_of, vector_type

INT4 = "int4"
BITS = 4
LOW, HIGH = -8, 7
STORED = "uint8"
"""Type of the weights in memory."""


def with_nibbles(dot: Dot) -> Dot:
    """A dot product with weights of 4 bits, made of one with int8."""

    def widen(e: Emitter, value: Expr) -> Operand:
        count = lanes_of(value)
        word, pairs = ("uint16", count // 2) if count % 2 == 0 else ("uint8", count)
        packed = e.bind("packed", tirx.reinterpret(vector_type(word, pairs), value))
        mask = broadcast(tirx.const(0xF0F0 if word == "uint16" else 0xF0, word), pairs)
        shifted = tirx.shift_left(packed, broadcast(tirx.const(BITS, word), pairs))
        halves = (tirx.bitwise_and(part, mask) for part in (shifted, packed))
        wide = [dot.widen(e, tirx.reinterpret(vector_type("int8", count), half)) for half in halves]
        return (*wide[0], *wide[1])

    limit = dot.limit - dot.limit % (2 * dot.group)
    return replace(
        dot, right=INT4, widen=widen, halves=2, shift=BITS, limit=limit, stored=STORED, plain=False
    )


def fits(values: np.ndarray, largest_left: int) -> bool:
    """Whether integers, [products, results], have 4 bits, and 16-fold sums 32.

    Args:
        values: The weights.
        largest_left: Largest absolute value of what they are multiplied by; 0 for sums of 64 bits.
    """
    if values.dtype != np.int8 or not values.size or values.min() < LOW or values.max() > HIGH:
        return False
    absolute = np.abs(values.astype(np.int64)).sum(0).max()
    return bool((absolute << BITS) * largest_left < 2**31)


def pack(panels: np.ndarray) -> np.ndarray:
    """Panels ``[..., steps, lanes, group]`` of int8 as ``[..., steps / 2, lanes, group]`` of bytes."""
    padding = [(0, 0)] * panels.ndim
    padding[-3] = (0, panels.shape[-3] % 2)
    panels = np.pad(panels, padding).astype(np.uint8)
    first, second = panels[..., 0::2, :, :], panels[..., 1::2, :, :]
    return np.ascontiguousarray((first & 15) | (second << BITS))


def element(byte: Expr, half: Expr) -> Expr:
    """The int32 number in a half of a byte."""
    number = tirx.bitwise_and(tirx.shift_right(byte.astype("int32"), (half * BITS).astype("int32")), 15)
    return tirx.bitwise_xor(number, 8) - 8
