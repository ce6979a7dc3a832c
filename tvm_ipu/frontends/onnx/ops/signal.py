"""Fourier transforms, as products with constant matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te

from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import attr_bool, ints, normal_axis, required
from tvm_ipu.frontends.onnx.ops.shape import cut, pad_constant, permute, reshape

R = relax.op
_MAX_ELEMENTS = 1 << 25
"""Largest transform matrix."""


@converter("DFT")
def dft(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, all forms; length and axis must be constant, the length some thousands."""
    x = required(node, 0, "input")
    dims = ctx.shape(x)
    if node.since >= 20:
        given = ints(ctx.require_value(node, 2, "axis"))[0] if node.input(2) is not None else -2
    else:
        given = int(node.attrs.get("axis", 1))
    axis = normal_axis(given, len(dims))
    inverse, onesided = attr_bool(node, "inverse"), attr_bool(node, "onesided")
    to_real = inverse and onesided
    length = 2 * (dims[axis] - 1) if to_real else dims[axis]
    if node.input(1) is not None:
        length = ints(ctx.require_value(node, 1, "dft_length"))[0]
    needed = length // 2 + 1 if to_real else length
    x = cut(ctx, x, axis, 0, min(needed, dims[axis]))
    missing = [needed - ctx.shape(x)[axis] if i == axis else 0 for i in range(len(dims))]
    x = pad_constant(ctx, x, [0] * len(dims), missing, 0.0)
    order = [*(i for i in range(len(dims) - 1) if i != axis), axis, len(dims) - 1]
    y = _multiply(ctx, permute(ctx, x, order), _matrix(length, inverse, onesided, dims[-1]))
    return permute(ctx, y, [order.index(i) for i in range(len(dims))])


def _matrix(length: int, inverse: bool, onesided: bool, parts: int) -> NDArray[np.float64]:
    """The transform of vectors of (real, imaginary) pairs or, with ``parts`` 1, of real numbers.

    Returns:
        [samples, parts, frequencies, 2], or [frequencies, 2, samples, 1] where the result is real.
    """
    bins = length // 2 + 1
    if (length if not onesided else bins) * length * 2 * parts > _MAX_ELEMENTS:
        raise UnsupportedNode(f"a transform of length {length} is too long")
    n = np.arange(length)
    k = np.arange(bins if onesided else length)
    angle = 2 * np.pi * (np.outer(n, k) % length) / length
    if inverse and onesided:
        # the missing half of the spectrum mirrors the given one: all but its ends count twice
        weight = np.where((k == 0) | (2 * k == length), 1.0, 2.0) / length
        real, imaginary = np.cos(angle) * weight, -np.sin(angle) * weight
        return np.stack([real, imaginary], -1).transpose(1, 2, 0)[..., None]
    sign, factor = (1.0, 1.0 / length) if inverse else (-1.0, 1.0)
    c, s = np.cos(angle) * factor, sign * np.sin(angle) * factor
    rows = [np.stack([c, s], -1), np.stack([-s, c], -1)][:parts]
    return np.stack(rows, 1)


def _multiply(ctx: Context, x: relax.Expr, matrix: NDArray[np.float64]) -> relax.Expr:
    """Contract the last two axes of ``x`` with the first two of ``matrix``."""
    *lead, n, parts = ctx.shape(x)
    dtype = ctx.dtype(x)
    flat = reshape(ctx, x, (math.prod(lead), n * parts))
    weight = ctx.const(matrix.reshape(n * parts, -1).astype(numpy_dtype(dtype)))
    return reshape(ctx, ctx.emit(R.matmul(flat, weight)), (*lead, *matrix.shape[2:]))


@converter("STFT")
def stft(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, real and complex signals; the frame's step and length must be constant."""
    x, window = required(node, 0, "signal"), node.input(2)
    batch, samples, *rest = ctx.shape(x)
    parts = rest[0] if rest else 1
    step = ints(ctx.require_value(node, 1, "frame_step"))[0]
    if node.input(3) is not None:
        length = ints(ctx.require_value(node, 3, "frame_length"))[0]
    else:
        length = ctx.shape(window)[0] if window is not None else samples
    frames = (samples - length) // step + 1
    onesided = bool(node.attrs.get("onesided", 1)) and parts == 1
    signal = reshape(ctx, x, (batch, samples, parts))

    def compute(tensor: te.Tensor, *weights: te.Tensor) -> te.Tensor:
        def element(b: Any, f: Any, n: Any, p: Any) -> Any:
            value = tensor(b, f * step + n, p)
            return value * weights[0](n) if weights else value

        return te.compute((batch, frames, length, parts), element, name="frames")

    framed = ctx.te(compute, signal, *([window] if window is not None else []), name="frames")
    return _multiply(ctx, framed, _matrix(length, False, onesided, parts))
