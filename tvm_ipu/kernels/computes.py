"""What the kernel templates compute, as tensor expressions.

Each computation carries the name of its template and the parameters that its shapes do not tell as block
attributes ``tvm_ipu.*``. Its meaning is the expression itself: a kernel that no template takes is scheduled
from it. ``packing`` makes the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import te, tirx

from tvm_ipu.kernels import nibbles
from tvm_ipu.kernels.dot import accumulator
from tvm_ipu.kernels.winograd import TAPS, transforms

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
"""Rows above, columns left, rows below, columns right."""

TEMPLATE = "tvm_ipu.template"
"""Block attribute that names the template."""

RIGHT = "tvm_ipu.right"
"""Block attribute with the type of the weights; empty for that of their elements in memory."""


def is_depthwise(in_channels: int, out_channels: int, groups: int) -> bool:
    """True where every channel is a group of its own: such weights go to ``depthwise_conv2d``."""
    return groups == in_channels == out_channels and groups > 1


def output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Positions of a window along one padded dimension."""
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def conv2d(
    x: te.Tensor,
    packed: te.Tensor,
    channels: int,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    out_dtype: str | None = None,
    pad_value: float = 0,
    row_columns: int | None = None,
    right: str = "",
) -> te.Tensor:
    """2-D convolution.

    Args:
        x: ``[batch, height, width, in_channels]``.
        packed: ``[groups, panels, kernel_height, kernel_width, steps, lanes, group]``, made by
            ``pack_conv2d``; ``steps * group`` is the number of input channels of a group or slightly more.
            With ``row_columns``, ``kernel_width`` is 1 and a row of the window is one long tap.
        channels: Output channels.
        stride: Rows and columns from one window to the next.
        padding: Elements around ``x``.
        dilation: Rows and columns from one tap of a window to the next.
        out_dtype: Type of the result; None for that of ``x``, or of the accumulator where ``x`` holds
            integers.
        pad_value: What the padding holds.
        row_columns: Columns of the window, where weights are packed in whole rows of it: one group, and
            neither padding nor dilation of columns.
        right: Type of the weights, where that is not ``packed``'s: ``int4`` (``nibbles``).

    Returns:
        ``[batch, out_height, out_width, channels]``.
    """
    batch, height, width, in_channels = shape_of(x)
    groups, _, kernel_h, kernel_w, _, lanes, _ = shape_of(packed)
    whole_rows = row_columns is not None
    kernel_w = row_columns if row_columns is not None else kernel_w
    depth = in_channels // groups
    in_group = channels // groups
    rows = te.reduce_axis((0, kernel_h), "kh")
    cols = te.reduce_axis((0, kernel_w), "kw")
    deep = te.reduce_axis((0, depth), "kc")
    dtype = accumulator(str(x.dtype), out_dtype)

    def window(b: Any, y: Any, z: Any, o: Any) -> Any:
        group, channel = o // in_group, o % in_group
        at = (b, y, z, group * depth + deep)
        value = _padded(x, at, (rows, cols), stride, padding, dilation, pad_value)
        tap, k = (0, cols * depth + deep) if whole_rows else (cols, deep)
        panel = (group, channel // lanes, rows, tap)
        weight = _weight(packed, panel, k, channel % lanes, right)
        return te.sum(value.astype(dtype) * weight.astype(dtype), axis=[rows, cols, deep])

    out_h = output_size(height, kernel_h, stride[0], padding[0], padding[2], dilation[0])
    out_w = output_size(width, kernel_w, stride[1], padding[1], padding[3], dilation[1])
    attrs = _window_attrs("conv2d", (kernel_h, kernel_w), stride, padding, dilation, pad_value)
    attrs[RIGHT] = right
    y = te.compute((batch, out_h, out_w, channels), window, name="conv2d", attrs=attrs)
    return _output(y, str(x.dtype), out_dtype)


def winograd_conv2d(
    x: te.Tensor,
    packed: te.Tensor,
    channels: int,
    padding: Padding = (0, 0, 0, 0),
    out_dtype: str | None = None,
) -> te.Tensor:
    """2-D convolution with 3x3 windows next to each other, by Winograd's minimal filtering.

    Args:
        x: ``[batch, height, width, in_channels]``, of floats.
        packed: ``[panels, points, points, in_channels, lanes]`` in float32 (``pack_winograd``).
        channels: Output channels.
        padding: Zeros around ``x``.
        out_dtype: As for ``conv2d``.

    Returns:
        ``[batch, out_height, out_width, channels]``.
    """
    batch, height, width, _ = shape_of(x)
    _, points, _, depth, lanes = shape_of(packed)
    outputs = points - TAPS + 1
    matrices = transforms(outputs)
    axes = [te.reduce_axis((0, points), name) for name in ("p", "q", "i", "j")]
    deep = te.reduce_axis((0, depth), "kc")

    def window(b: Any, y: Any, z: Any, o: Any) -> Any:
        p, q, i, j = axes
        at = (b, y - y % outputs, z - z % outputs, deep)
        value = _padded(x, at, (i, j), (1, 1), padding, (1, 1), 0).astype("float32")
        value = value * _element(matrices.inputs, p, i) * _element(matrices.inputs, q, j)
        product = value * packed[o // lanes, p, q, deep, o % lanes]
        back = _element(matrices.outputs, y % outputs, p) * _element(matrices.outputs, z % outputs, q)
        return te.sum(product * back, axis=[*axes, deep])

    out_h = output_size(height, TAPS, 1, padding[0], padding[2], 1)
    out_w = output_size(width, TAPS, 1, padding[1], padding[3], 1)
    attrs = _window_attrs("winograd", (TAPS, TAPS), (1, 1), padding, (1, 1), 0)
    y = te.compute((batch, out_h, out_w, channels), window, name="winograd_conv2d", attrs=attrs)
    return _output(y, str(x.dtype), out_dtype)


def depthwise_conv2d(
    x: te.Tensor,
    packed: te.Tensor,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    out_dtype: str | None = None,
    pad_value: float = 0,
) -> te.Tensor:
    """2-D convolution of each channel with a kernel of its own.

    Args:
        x: ``[batch, height, width, channels]``.
        packed: ``[panels, kernel_height, kernel_width, lanes]`` (``pack_depthwise``).
        stride: Rows and columns from one window to the next.
        padding: Elements around ``x``.
        dilation: Rows and columns from one tap of a window to the next.
        out_dtype: As for ``conv2d``.
        pad_value: What the padding holds.

    Returns:
        ``[batch, out_height, out_width, channels]``.
    """
    batch, height, width, channels = shape_of(x)
    _, kernel_h, kernel_w, lanes = shape_of(packed)
    rows = te.reduce_axis((0, kernel_h), "kh")
    cols = te.reduce_axis((0, kernel_w), "kw")
    dtype = accumulator(str(x.dtype), out_dtype)

    def window(b: Any, y: Any, z: Any, c: Any) -> Any:
        value = _padded(x, (b, y, z, c), (rows, cols), stride, padding, dilation, pad_value)
        weight = packed[c // lanes, rows, cols, c % lanes]
        return te.sum(value.astype(dtype) * weight.astype(dtype), axis=[rows, cols])

    out_h = output_size(height, kernel_h, stride[0], padding[0], padding[2], dilation[0])
    out_w = output_size(width, kernel_w, stride[1], padding[1], padding[3], dilation[1])
    attrs = _window_attrs("depthwise", (kernel_h, kernel_w), stride, padding, dilation, pad_value)
    y = te.compute((batch, out_h, out_w, channels), window, name="depthwise_conv2d", attrs=attrs)
    return _output(y, str(x.dtype), out_dtype)


def dense(
    x: te.Tensor, packed: te.Tensor, units: int, out_dtype: str | None = None, right: str = ""
) -> te.Tensor:
    """Product with a constant matrix.

    Args:
        x: ``[..., depth]``.
        packed: ``[panels, steps, lanes, group]`` (``pack_dense``).
        units: Columns of the matrix.
        out_dtype: As for ``conv2d``.
        right: As for ``conv2d``.

    Returns:
        ``[..., units]``.
    """
    *leading, depth = shape_of(x)
    *_, lanes, _ = shape_of(packed)
    dtype = accumulator(str(x.dtype), out_dtype)
    k = te.reduce_axis((0, depth), "k")

    def product(*at: Any) -> Any:
        *row, n = at
        weight = _weight(packed, (n // lanes,), k, n % lanes, right)
        return te.sum(x[(*row, k)].astype(dtype) * weight.astype(dtype), axis=k)

    y = te.compute((*leading, units), product, name="dense", attrs={TEMPLATE: "dense", RIGHT: right})
    return _output(y, str(x.dtype), out_dtype)


def matmul(a: te.Tensor, b: te.Tensor, transpose_b: bool = False, out_dtype: str | None = None) -> te.Tensor:
    """Product of two matrices, or of many where the leading dimensions broadcast as numpy's do.

    Args:
        a: ``[..., m, k]``.
        b: ``[..., k, n]``, or ``[..., n, k]`` with ``transpose_b``.
        transpose_b: Whether ``b`` holds the transposed matrix.
        out_dtype: As for ``conv2d``.

    Returns:
        ``[..., m, n]``.
    """
    *lead_a, m, depth = shape_of(a)
    *lead_b, n, _ = shape_of(b) if transpose_b else (*shape_of(b)[:-2], shape_of(b)[-1], depth)
    leading = np.broadcast_shapes(tuple(lead_a), tuple(lead_b))
    dtype = accumulator(str(a.dtype), out_dtype)
    k = te.reduce_axis((0, depth), "k")

    def product(*at: Any) -> Any:
        *batch, i, j = at
        left = a[(*_broadcast_index(batch, lead_a), i, k)]
        right = b[(*_broadcast_index(batch, lead_b), *((j, k) if transpose_b else (k, j)))]
        return te.sum(left.astype(dtype) * right.astype(dtype), axis=k)

    attrs = {TEMPLATE: "matmul", "tvm_ipu.transpose_b": int(transpose_b)}
    y = te.compute((*leading, m, n), product, name="matmul", attrs=attrs)
    return _output(y, str(a.dtype), out_dtype)


def shape_of(tensor: te.Tensor) -> tuple[int, ...]:
    """Static shape of a tensor."""
    return tuple(int(dim) for dim in tensor.shape)


def _weight(packed: te.Tensor, panel: tuple[Any, ...], k: Any, lane: Any, right: str) -> Any:
    """Weight ``k`` along the reduction, in a panel of packed ones."""
    group = shape_of(packed)[-1]
    if right != nibbles.INT4:
        return packed[(*panel, k // group, lane, k % group)]
    pair = 2 * group
    return nibbles.element(packed[(*panel, k // pair, lane, k % group)], k % pair // group)


def _padded(
    x: te.Tensor,
    at: tuple[Any, Any, Any, Any],
    taps: tuple[Any, Any],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    pad_value: float,
) -> Any:
    """Element of ``x`` under a tap of the window at output position ``at``; ``pad_value`` outside."""
    _, height, width, _ = shape_of(x)
    b, y, z, c = at
    row = y * stride[0] + taps[0] * dilation[0] - padding[0]
    col = z * stride[1] + taps[1] * dilation[1] - padding[1]
    if not any(padding):
        return x[b, row, col, c]
    inside = tirx.all(row >= 0, row < height, col >= 0, col < width)
    return tirx.if_then_else(inside, x[b, row, col, c], pad_constant(pad_value, str(x.dtype)))


def pad_constant(value: float, dtype: str) -> tirx.Expr:
    """The value in the padding, as an element of the image."""
    return tirx.const(value if "float" in dtype else int(value), dtype)


def _element(matrix: np.ndarray, row: Any, column: Any) -> Any:
    """Element of a small constant matrix at indices that are known only at run time."""
    value = tirx.const(0, "float32")
    for place, element in np.ndenumerate(matrix):
        if element:
            here = tirx.all(row == place[0], column == place[1])
            value = tirx.Select(here, tirx.const(float(element), "float32"), value)
    return value


def _output(y: te.Tensor, dtype: str, out_dtype: str | None) -> te.Tensor:
    """``y`` in the type that the caller asked for."""
    wanted = out_dtype or (dtype if "float" in dtype else str(y.dtype))
    return (
        y if str(y.dtype) == wanted else te.compute(y.shape, lambda *at: y(*at).astype(wanted), name="cast")
    )


def _window_attrs(
    template: str, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, pad_value: float
) -> dict[str, Any]:
    return {
        TEMPLATE: template,
        "tvm_ipu.kernel": list(kernel),
        "tvm_ipu.pad_value": float(pad_value),
        "tvm_ipu.stride": list(stride),
        "tvm_ipu.padding": list(padding),
        "tvm_ipu.dilation": list(dilation),
    }


def _broadcast_index(batch: list[Any], leading: list[int]) -> list[Any]:
    """Index into a tensor with dimensions ``leading`` for the broadcast index ``batch``."""
    own = batch[len(batch) - len(leading) :]
    return [0 if size == 1 else at for at, size in zip(own, leading, strict=True)]
