"""Sampling an image at positions that are computed at run time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_bool,
    attr_text,
    choose,
    ints,
    is_float,
    number,
    required,
)
from tvm_ipu.frontends.onnx.ops.types import saturate

_CUBIC_ALPHA = -0.75


def _f(value: float) -> Any:
    return number(value, "float32")


@converter("AffineGrid")
def affine_grid(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; the size must be constant."""
    theta = required(node, 0, "theta")
    batch, _, *spatial = ints(ctx.require_value(node, 1, "size"))
    aligned, dtype, rank = attr_bool(node, "align_corners"), ctx.dtype(theta), len(spatial)
    work = "float64" if dtype == "float64" else "float32"

    def compute(matrix: te.Tensor) -> te.Tensor:
        def element(n: Any, *index: Any) -> Any:
            *at, row = index
            total = matrix(n, row, rank).astype(work)
            for axis, extent in enumerate(spatial):
                edge = extent - 1 if aligned else extent
                offset = number(0.0 if aligned else 1.0, work)
                place = (number(2.0, work) * at[axis].astype(work) + offset) / number(max(edge, 1), work)
                column = rank - 1 - axis  # coordinates are listed from the innermost axis on
                total = total + matrix(n, row, column).astype(work) * (place - number(1.0, work))
            return total.astype(dtype)

        return te.compute((batch, *spatial, rank), element, name="affine_grid")

    return ctx.te(compute, theta, name="affine_grid")


@converter("GridSample")
def grid_sample(ctx: Context, node: Node) -> relax.Expr:
    """Numeric types, any number of spatial axes; all modes and paddings. Computed in float32."""
    x, grid = required(node, 0, "X"), required(node, 1, "grid")
    dims, out, dtype = ctx.shape(x), ctx.shape(grid)[1:-1], ctx.dtype(x)
    spatial = dims[2:]
    names = {"bilinear": "linear", "bicubic": "cubic"}  # until opset 20
    mode = attr_text(node, "mode", "linear", ("linear", "nearest", "cubic", *names))
    mode = names.get(mode, mode)
    padding = attr_text(node, "padding_mode", "zeros", ("zeros", "border", "reflection"))
    aligned = attr_bool(node, "align_corners")

    def compute(image: te.Tensor, field: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, *at: Any) -> Any:
            places = []
            for axis, extent in enumerate(spatial):
                position = field(n, *at, len(spatial) - 1 - axis).astype("float32")
                places.append(_to_pixels(position, extent, aligned, padding, mode))
            value = _interpolate(
                lambda *p: image(n, c, *p).astype("float32"), places, spatial, mode, padding, aligned
            )
            return value.astype(dtype) if is_float(dtype) else saturate(value, dtype)

        return te.compute((*dims[:2], *out), element, name="grid_sample")

    return ctx.te(compute, x, grid, name="grid_sample")


def _to_pixels(position: Any, extent: int, aligned: bool, padding: str, mode: str) -> Any:
    """A position in ``[-1, 1]`` as float32 pixels, moved into the image where the padding asks for it.

    Cubic interpolation at the border repeats the border's pixels instead, as PyTorch and ONNX Runtime do.
    """
    if aligned:
        pixel = (position + _f(1.0)) * _f(0.5) * _f(extent - 1.0)
    else:
        pixel = ((position + _f(1.0)) * _f(float(extent)) - _f(1.0)) * _f(0.5)
    pixel = tirx.round(pixel) if mode == "nearest" else pixel
    low, high = (0.0, extent - 1.0) if aligned else (-0.5, extent - 0.5)
    if padding == "border" and mode != "cubic":
        inside = tirx.max(tirx.min(pixel, _f(extent - 1.0)), _f(0.0))
        pixel = tirx.Select(tirx.any(pixel < _f(low), pixel > _f(high)), inside, pixel)
    elif padding == "reflection":
        pixel = _reflected(pixel, low, high)
    # far outside the image all positions are alike; the clamp keeps the conversion to an integer defined
    return tirx.max(tirx.min(pixel, _f(extent + 4.0)), _f(-5.0))


def _reflected(pixel: Any, low: float, high: float) -> Any:
    """A position mirrored at the borders until it lies between them."""
    span = high - low
    if span <= 0:
        return _f(low) + pixel * _f(0.0)
    distance = tirx.abs(pixel - _f(low))
    turns = tirx.floor(distance / _f(span))
    rest = distance - turns * _f(span)
    even = turns - _f(2.0) * tirx.floor(turns * _f(0.5)) == _f(0.0)
    return tirx.Select(even, _f(low) + rest, _f(high) - rest)


def _interpolate(
    read: Callable[..., Any],
    places: Sequence[Any],
    extents: Sequence[int],
    mode: str,
    padding: str,
    aligned: bool,
) -> Any:
    """Weighted sum of the pixels around ``places``."""
    taps = []  # for each axis: (int32 position, weight)
    for place in places:
        base = place if mode == "nearest" else tirx.floor(place)
        start, fraction = base.astype("int32"), place - base
        if mode == "nearest":
            taps.append([(start, None)])
        elif mode == "linear":
            taps.append([(start, _f(1.0) - fraction), (start + 1, fraction)])
        else:
            taps.append([(start + i - 1, w) for i, w in enumerate(_cubic_weights(fraction))])
    total: Any = None
    for corner in itertools.product(*taps):
        value = _pixel(read, [p for p, _ in corner], extents, padding, aligned)
        for _, weight in corner:
            value = value if weight is None else value * weight
        total = value if total is None else total + value
    return total


def _cubic_weights(t: Any) -> list[Any]:
    """Weights of the pixels at distances 1 + t, t, 1 - t and 2 - t."""
    a = _CUBIC_ALPHA

    def near(d: Any) -> Any:
        return (_f(a + 2) * d - _f(a + 3)) * d * d + _f(1.0)

    def far(d: Any) -> Any:
        return ((_f(a) * d - _f(5 * a)) * d + _f(8 * a)) * d - _f(4 * a)

    return [far(t + _f(1.0)), near(t), near(_f(1.0) - t), far(_f(2.0) - t)]


def _pixel(
    read: Callable[..., Any], place: Sequence[Any], extents: Sequence[int], padding: str, aligned: bool
) -> Any:
    """The pixel at int32 positions that may lie outside the image."""
    if padding == "reflection":
        place = [_mirror(p, e, aligned) for p, e in zip(place, extents, strict=True)]
    safe = [tirx.max(tirx.min(p, e - 1), 0) for p, e in zip(place, extents, strict=True)]
    value = read(*safe)
    if padding != "zeros":
        return value
    seen = tirx.all(*(tirx.all(p >= 0, p < e) for p, e in zip(place, extents, strict=True)))
    return choose(seen, value, _f(0.0))


def _mirror(place: Any, extent: int, aligned: bool) -> Any:
    if extent == 1:
        return place * 0
    period = 2 * extent - 2 if aligned else 2 * extent
    inside = tirx.floormod(place, period)
    last = period if aligned else period - 1
    return tirx.Select(inside < extent, inside, last - inside)
