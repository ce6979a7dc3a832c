"""Resize and Upsample. Positions and weights are tables made at compile time, one pair for each axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx

from tvm_ipu.base.model import INTERPOLATION_ATTR
from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_bool,
    attr_text,
    elementwise,
    full,
    ints,
    is_float,
    normal_axis,
    required,
)
from tvm_ipu.frontends.onnx.ops.shape import positions_attribute
from tvm_ipu.frontends.onnx.ops.types import convert

_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    Attributes:
        axis: Which one.
        extent: Elements before.
        outputs: Elements after.
        scale: Elements after for each element before, as the model gives it.
        roi: Part of the axis that is looked at, ``(0, 1)`` for all of it.
    """

    axis: int
    extent: int
    outputs: int
    scale: float
    roi: tuple[float, float]


@dataclass(frozen=True)
class Method:
    """How values between elements are made; the fields are the attributes of Resize."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    antialias: bool
    exclude_outside: bool
    extrapolation: float


@dataclass(frozen=True)
class Table:
    """Elements that make up each output along one axis.

    Attributes:
        positions: [outputs, taps], int32, inside the axis.
        weights: [outputs, taps], float64.
        outside: [outputs], where the extrapolation value stands instead.
    """

    positions: NDArray[np.int32]
    weights: NDArray[np.float64]
    outside: NDArray[np.bool_]


@converter("Resize", "Upsample")
def resize(ctx: Context, node: Node) -> relax.Expr:
    """All modes and attributes; roi, scales and sizes must be constant."""
    x = required(node, 0, "X")
    method = _read_method(node)
    axes = [a for a in _read_axes(ctx, node, x, method) if not _is_identity(a)]
    if any(a.outputs == 0 for a in axes):
        shape = list(ctx.shape(x))
        for a in axes:
            shape[a.axis] = a.outputs
        return full(ctx, shape, 0, ctx.dtype(x))
    tables = {a.axis: make_table(a, method) for a in axes}
    image = _as_image_resize(ctx, x, axes, method, tables)
    if image is not None:
        return image
    if method.mode == "nearest" and not any(t.outside.any() for t in tables.values()):
        return _gather(ctx, x, tables)
    dtype = ctx.dtype(x)
    work = "float64" if dtype == "float64" else "float32"
    y = x
    for axis, table in tables.items():
        y = _interpolate(ctx, y, axis, table, method.extrapolation, work)
    if is_float(dtype):
        return convert(ctx, y, dtype)
    return convert(ctx, elementwise(ctx, "round", lambda v: tirx.round(v), y), dtype)


def _read_method(node: Node) -> Method:
    old = node.op_type == "Upsample" or node.since < 11
    mode = attr_text(node, "mode", "nearest", ("nearest", "linear", "cubic"))
    coordinates = attr_text(node, "coordinate_transformation_mode", "half_pixel", _COORDINATES)
    nearest = attr_text(node, "nearest_mode", "round_prefer_floor", _NEAREST)
    return Method(
        mode,
        "asymmetric" if old else coordinates,
        "floor" if old else nearest,
        float(node.attrs.get("cubic_coeff_a", -0.75)),
        attr_bool(node, "antialias"),
        attr_bool(node, "exclude_outside"),
        float(node.attrs.get("extrapolation_value", 0.0)),
    )


def _read_axes(ctx: Context, node: Node, x: relax.Expr, method: Method) -> list[Axis]:
    dims = ctx.shape(x)
    axes = [normal_axis(int(a), len(dims)) for a in node.attrs.get("axes", range(len(dims)))]
    if node.since < 9:
        scales: NDArray[Any] | None = np.array(node.attrs["scales"])
    else:
        index = 1 if node.op_type == "Upsample" or node.since < 11 else 2
        scales = ctx.require_value(node, index, "scales") if _has(ctx, node, index) else None
    rois = [(0.0, 1.0)] * len(axes)
    crops = method.coordinates == "tf_crop_and_resize"
    if crops:
        roi = ctx.require_value(node, 1, "roi").astype(np.float64).ravel()
        rois = [(float(roi[i]), float(roi[i + len(axes)])) for i in range(len(axes))]
    if scales is not None and scales.size:
        factors = [float(s) for s in scales.ravel()]
        parts = [end - start for start, end in rois]
        sizes = [math.floor(dims[a] * p * s + 1e-9) for a, p, s in zip(axes, parts, factors, strict=True)]
    elif _has(ctx, node, 3):
        sizes = ints(ctx.require_value(node, 3, "sizes"))
        sizes, factors = _fit(node, [dims[a] for a in axes], sizes)
    else:
        raise UnsupportedNode("input 'scales' must be a constant")
    return [Axis(a, dims[a], s, f, r) for a, s, f, r in zip(axes, sizes, factors, rois, strict=True)]


def _has(ctx: Context, node: Node, index: int) -> bool:
    """Whether an optional input is there and not empty, which also means that it is not given."""
    value = node.input(index)
    return value is not None and 0 not in ctx.shape(value)


def _fit(node: Node, extents: list[int], sizes: list[int]) -> tuple[list[int], list[float]]:
    """Sizes and scales under the policy for the aspect ratio."""
    policy = attr_text(node, "keep_aspect_ratio_policy", "stretch", ("stretch", "not_larger", "not_smaller"))
    factors = [s / e for s, e in zip(sizes, extents, strict=True)]
    if policy == "stretch":
        return sizes, factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(factor * e + 0.5) for e in extents], [factor] * len(sizes)


def _is_identity(a: Axis) -> bool:
    return a.outputs == a.extent and math.isclose(a.scale, 1.0) and a.roi == (0.0, 1.0)


def source_positions(a: Axis, coordinates: str) -> NDArray[np.float64]:
    """Where each output lies between the elements of the axis."""
    y = np.arange(a.outputs, dtype=np.float64)
    length = a.scale * a.extent
    start, end = a.roi
    match coordinates:
        case "asymmetric":
            return y / a.scale
        case "align_corners":
            return y * (a.extent - 1) / (length - 1) if length != 1 else np.zeros_like(y)
        case "tf_half_pixel_for_nn":
            return (y + 0.5) / a.scale
        case "tf_crop_and_resize":
            if length == 1:
                return np.full_like(y, (start + end) * (a.extent - 1) / 2)
            return start * (a.extent - 1) + y * (end - start) * (a.extent - 1) / (length - 1)
        case "half_pixel_symmetric":
            offset = a.extent / 2 * (1 - a.outputs / length)
            return offset + (y + 0.5) / a.scale - 0.5
        case "pytorch_half_pixel" if length == 1:
            return np.full_like(y, -0.5)
    return (y + 0.5) / a.scale - 0.5


def make_table(a: Axis, method: Method) -> Table:
    """Positions and weights for one axis."""
    x = source_positions(a, method.coordinates)
    outside = np.zeros(a.outputs, dtype=np.bool_)
    if method.coordinates == "tf_crop_and_resize":
        outside = (x < 0) | (x > a.extent - 1)
    if method.mode == "nearest":
        positions = nearest_positions(x, method.nearest)[:, None]
        weights = np.ones_like(positions, dtype=np.float64)
    else:
        positions, weights = _taps(x, a.scale if method.antialias else 1.0, method)
    if method.exclude_outside:
        weights = np.where((positions < 0) | (positions >= a.extent), 0.0, weights)
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    return Table(positions.clip(0, a.extent - 1).astype(np.int32), weights, outside)


def nearest_positions(x: NDArray[np.float64], rule: str) -> NDArray[np.int64]:
    """The element nearest to each position."""
    rounded = {
        "floor": np.floor(x),
        "ceil": np.ceil(x),
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
    }[rule]
    return rounded.astype(np.int64)


def _taps(
    x: NDArray[np.float64], scale: float, method: Method
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Elements around each position and the kernel's value there; downscaling stretches the kernel."""
    stretch = min(scale, 1.0)
    radius = 1 if method.mode == "linear" else 2
    reach = math.ceil(radius / stretch)
    # a position on an element belongs to the interval on its left
    base = np.ceil(x).astype(np.int64) - 1
    positions = base[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(positions - x[:, None]) * stretch
    weights = np.clip(1 - distance, 0, 1) if method.mode == "linear" else _cubic(distance, method.cubic)
    return positions, weights / weights.sum(1, keepdims=True) if method.antialias else weights


def _cubic(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """The cubic convolution kernel of Keys."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _as_image_resize(
    ctx: Context, x: relax.Expr, axes: list[Axis], method: Method, tables: dict[int, Table]
) -> relax.Expr | None:
    """The common cases as Relax's own operator, which passes can move to another layout; else None."""
    if len(ctx.shape(x)) != 4 or not axes or any(a.axis < 2 for a in axes) or not is_float(ctx.dtype(x)):
        return None
    size = list(ctx.shape(x)[2:])
    for a in axes:
        size[a.axis - 2] = a.outputs
    if method.mode == "nearest":
        if not all(_is_repeat(tables[a.axis].positions[:, 0], a) for a in axes):
            return None
        return ctx.emit(
            relax.op.image.resize2d(
                x,
                size,
                method="nearest_neighbor",
                coordinate_transformation_mode="asymmetric",
                rounding_method="floor",
            )
        )
    plain = method.mode == "linear" and not method.antialias and not method.exclude_outside
    coordinates = method.coordinates.removeprefix("pytorch_")  # differs where there is one output only
    known = coordinates in ("half_pixel", "align_corners", "asymmetric")
    exact = all(math.isclose(a.scale * a.extent, a.outputs) and a.outputs > 1 for a in axes)
    if not (plain and known and exact and len(axes) == 2):
        return None
    return ctx.emit(
        relax.op.image.resize2d(x, size, method="linear", coordinate_transformation_mode=coordinates)
    )


def _is_repeat(positions: NDArray[np.int32], a: Axis) -> bool:
    """Every element repeated equally often, by a factor whose float32 reciprocal does not round down."""
    factor, rest = divmod(a.outputs, a.extent)
    if rest or np.float32(1) / np.float32(factor) < 1.0 / factor:
        return False
    return bool((positions == np.arange(a.outputs) // factor).all())


def _gather(ctx: Context, x: relax.Expr, tables: dict[int, Table]) -> relax.Expr:
    """Nearest elements along all axes in one kernel."""
    shape = list(ctx.shape(x))
    for axis, table in tables.items():
        shape[axis] = len(table.positions)
    lists = [ctx.const(t.positions[:, 0]) for t in tables.values()]

    def compute(tensor: te.Tensor, *positions: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            place = list(index)
            for axis, position in zip(tables, positions, strict=True):
                place[axis] = position(index[axis])
            return tensor(*place)

        return te.compute(shape, element, name="resize_nearest")

    picked = {axis: table.positions[:, 0] for axis, table in tables.items()}
    return ctx.te(compute, x, *lists, name="resize_nearest", attrs=positions_attribute(picked))


_UNROLLED_TAPS = 4


def _interpolate(
    ctx: Context, x: relax.Expr, axis: int, table: Table, extrapolation: float, work: str
) -> relax.Expr:
    """Weighted sums along one axis; the result has the type ``work``."""
    outputs, taps = table.positions.shape
    shape: Sequence[int] = [outputs if i == axis else d for i, d in enumerate(ctx.shape(x))]
    weights = np.where(table.outside[:, None], 0.0, table.weights).astype(work)
    operands = [ctx.const(table.positions), ctx.const(weights)]
    beyond = bool(table.outside.any()) and extrapolation != 0.0
    if beyond:
        operands.append(ctx.const(np.where(table.outside, extrapolation, 0.0).astype(work)))

    def compute(tensor: te.Tensor, position: te.Tensor, weight: te.Tensor, *shift: te.Tensor) -> te.Tensor:
        def term(index: Sequence[Any], tap: Any) -> Any:
            i = index[axis]
            value = tensor(*index[:axis], position(i, tap), *index[axis + 1 :])
            return value.astype(work) * weight(i, tap)

        def element(*index: Any) -> Any:
            if taps > _UNROLLED_TAPS:
                k = te.reduce_axis((0, taps), name="k")
                return te.sum(term(index, k.var), axis=k)
            total = term(index, 0)
            for tap in range(1, taps):
                total = total + term(index, tap)
            return total

        total = te.compute(shape, element, name="resize")
        if not shift:
            return total
        return te.compute(shape, lambda *i: total(*i) + shift[0](i[axis]), name="extrapolate")

    return ctx.te(
        compute, x, *operands, name="resize", attrs=None if beyond else {INTERPOLATION_ATTR: str(axis)}
    )
