"""Frames of a camera as pixels of the format that a model was trained on (docs/numerics.md, raw inputs)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from tvm import relax

from tvm_ipu.base.contract import CHANNELS, InputContract
from tvm_ipu.passes.rewrite import make_constant

R = relax.op

Emit = Callable[[relax.Expr], relax.Expr]

YUV_BITS = 20
"""Fractional bits of the coefficients from YUV to RGB: sums stay below 2**30."""


def yuv_coefficients() -> tuple[np.ndarray, np.ndarray]:
    """ITU-R BT.601, 8 bits, Y from 16 to 235: factors of Y, U and V for R, G and B, and what is added.

    Returns:
        int32 [3, 3], rows R, G, B, in units of 2**-20; int32 [3], one half included, so that a shift to the
        right by 20 rounds half up.
    """
    red, blue = Fraction(299, 1000), Fraction(114, 1000)
    green = 1 - red - blue
    luma = Fraction(255, 219)
    chroma = Fraction(255, 112)
    rows = [
        (luma, Fraction(0), chroma * (1 - red)),
        (luma, -chroma * (1 - blue) * blue / green, -chroma * (1 - red) * red / green),
        (luma, chroma * (1 - blue), Fraction(0)),
    ]
    factors = np.array([[round(value * 2**YUV_BITS) for value in row] for row in rows], np.int32)
    added = 2 ** (YUV_BITS - 1) - factors @ np.array([16, 128, 128], np.int32)
    return factors, added.astype(np.int32)


@dataclass(frozen=True)
class Frame:
    """How a picture lies in the bytes that a board feeds.

    Attributes:
        contract: Formats, alignment and layout.
        shape: Of the model's input: [N, H, W, C], or [N, C, H, W] where the layout is NCHW.
    """

    contract: InputContract
    shape: tuple[int, ...]

    def pixels(self, raw: relax.Expr, emit: Emit) -> relax.Expr:
        """The picture in the model's shape and trained format: uint8, or int32 where it was computed.

        Args:
            raw: The bytes that are fed.
            emit: Binds what becomes a kernel of its own.
        """
        if self.contract.input_format == "YUV_NV12":
            return self._from_nv12(raw, emit)
        channel, row = (1, 2) if self.contract.is_planar else (3, 1)
        extents = self.contract.extents(self.shape)
        if self.contract.padded(self.shape) != extents:
            raw = _slice(raw, [row, row + 1], [0, 0], list(extents))
        order = _order(self.contract.input_format, self.contract.training_format)
        if order == list(range(len(order))):
            fewer = len(order) < CHANNELS[self.contract.input_format]
            return _slice(raw, [channel], [0], [len(order)]) if fewer else raw
        return R.take(raw, make_constant(np.array(order, np.int64)), axis=channel)

    def _from_nv12(self, raw: relax.Expr, emit: Emit) -> relax.Expr:
        n, (height, width) = self.shape[0], self.contract.extents(self.shape)
        rows, columns = self.contract.padded(self.shape)
        luma = R.reshape(emit(_slice(raw, [1, 2], [0, 0], [height, width])), (n, height, width, 1))
        halves = ((height + 1) // 2, (width + 1) // 2)
        chroma_rows = emit(_slice(raw, [1], [rows], [rows * 3 // 2]))
        pairs = R.reshape(chroma_rows, (n, rows // 2, columns // 2, 2))
        pairs = R.repeat(R.repeat(_slice(pairs, [1, 2], [0, 0], list(halves)), 2, 1), 2, 2)
        pairs = _slice(pairs, [1, 2], [0, 0], [height, width])
        chroma = [_slice(pairs, [3], [i], [i + 1]) for i in (0, 1)]
        factors, added = yuv_coefficients()
        trained = self.contract.training_format
        order = [0] if trained == "GRAY" else _order("RGB", trained)
        total = make_constant(added[order])
        for plane, factor in zip([luma, *chroma], factors.T, strict=True):
            if trained == "GRAY" and plane is not luma:
                total = R.add(total, make_constant((factor[order] * 128).astype(np.int32)))
                continue
            total = R.add(R.multiply(R.astype(plane, "int32"), make_constant(factor[order])), total)
        shifted = R.right_shift(total, relax.const(YUV_BITS, "int32"))
        found = R.clip(shifted, 0, 255)
        return R.permute_dims(found, [0, 3, 1, 2]) if self.contract.is_planar else found


def _order(fed: str, trained: str) -> list[int]:
    """For each trained channel, which one of those that are fed it is."""
    if trained == "GRAY":
        return [0]
    return [fed.index(channel) for channel in trained]


def _slice(x: relax.Expr, axes: list[int], begin: list[int], end: list[int]) -> relax.Expr:
    return R.strided_slice(x, axes, begin, end)
