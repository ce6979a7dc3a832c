"""Operators on regions of an image."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import attr_text, local, loops, number, required, wrap_index

_MAX_SAMPLES = 4096
"""Sampling points along one side of a bin; more than any region that touches an image needs."""


_LOWEST = tirx.min_value("float32")


def _f(value: float) -> Any:
    return number(value, "float32")


@converter("NonMaxSuppression")
def non_max_suppression(ctx: Context, node: Node) -> relax.Expr:
    """Only where all inputs are constant: the data decide how many boxes remain."""
    raise UnsupportedNode("its inputs must be constants: the data decide the shape of the output")


def _whole(value: Any, low: int, high: int) -> Any:
    """A float32 value as int32 inside ``[low, high]``; NaN becomes ``low``."""
    inside = tirx.Select(value > _f(low), value, _f(low))
    return tirx.Select(inside < _f(high), inside, _f(high)).astype("int32")


@converter("RoiAlign")
def roi_align(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, both modes; computed in float32. Batch indices are clamped."""
    x, rois, batches = (required(node, i, n) for i, n in enumerate(("X", "rois", "batch_indices")))
    (images, channels, height, width), dtype = ctx.shape(x), ctx.dtype(x)
    count = ctx.shape(rois)[0]
    bins = (int(node.attrs.get("output_height", 1)), int(node.attrs.get("output_width", 1)))
    ratio, scale = int(node.attrs.get("sampling_ratio", 0)), float(node.attrs.get("spatial_scale", 1.0))
    average = attr_text(node, "mode", "avg", ("avg", "max")) == "avg"
    half = node.since >= 16 and (
        attr_text(node, "coordinate_transformation_mode", "half_pixel", ("half_pixel", "output_half_pixel"))
        == "half_pixel"
    )

    def body(image: Any, regions: Any, index: Any, target: Any) -> None:
        with T.parallel(count * channels) as unit:
            roi, c = unit // channels, unit % channels
            n = wrap_index(index[roi], images)
            # [start, size of a bin, samples] of the vertical axis, then of the horizontal one
            axes = []
            for axis in range(2):
                ends = [regions[roi, 1 - axis + 2 * e].astype("float32") * _f(scale) for e in range(2)]
                start, stop = (v - _f(0.5 if half else 0.0) for v in ends)
                size = stop - start if half else tirx.max(stop - start, _f(1.0))
                step = local("float32", 2)
                step[0], step[1] = start, size / _f(bins[axis])
                samples = local("int32")
                wanted = tirx.ceil(size / _f(bins[axis]))
                samples[0] = number(ratio, "int32") if ratio > 0 else _whole(wanted, 0, _MAX_SAMPLES)
                axes.append((step, samples))
            (ystep, ycount), (xstep, xcount) = axes
            total = local("float32")
            with T.grid(*bins) as (ph, pw):
                total[0] = _f(0.0) if average else _LOWEST
                with T.serial(ycount[0]) as iy, T.serial(xcount[0]) as ix:
                    place = []
                    for p, i, step, number_of in ((ph, iy, ystep, ycount), (pw, ix, xstep, xcount)):
                        part = (i.astype("float32") + _f(0.5)) * step[1] / number_of[0].astype("float32")
                        place.append(step[0] + p.astype("float32") * step[1] + part)
                    corners = _corners(
                        lambda a, b: image[n, c, a, b].astype("float32"), place, (height, width)
                    )
                    if average:
                        for corner in corners:
                            total[0] = total[0] + corner
                    else:
                        for corner in corners:
                            total[0] = tirx.max(total[0], corner)
                samples = tirx.max(ycount[0] * xcount[0], 1)
                if average:
                    target[roi, c, ph, pw] = (total[0] / samples.astype("float32")).astype(dtype)
                else:
                    empty = ycount[0] * xcount[0] == 0
                    target[roi, c, ph, pw] = tirx.Select(empty, _f(0.0), total[0]).astype(dtype)

    return loops(ctx, "roi_align", [x, rois, batches], [((count, channels, *bins), dtype)], body)[0]


def _corners(read: Any, place: list[Any], extents: tuple[int, int]) -> list[Any]:
    """The four weighted pixels around a position; all 0 where it is more than one pixel outside the image."""
    axes = []
    inside = []
    for position, extent in zip(place, extents, strict=True):
        inside.append(tirx.all(position >= _f(-1.0), position <= _f(float(extent))))
        clamped = tirx.Select(position > _f(0.0), position, _f(0.0))
        low = _whole(clamped, 0, extent - 1)
        last = low >= extent - 1
        fraction = tirx.Select(last, _f(0.0), clamped - low.astype("float32"))
        high = tirx.Select(last, low, low + 1)
        axes.append(((low, _f(1.0) - fraction), (high, fraction)))
    seen = tirx.all(*inside)
    (y0, y1), (x0, x1) = axes
    return [tirx.Select(seen, read(y, x) * wy * wx, _f(0.0)) for y, wy in (y0, y1) for x, wx in (x0, x1)]


@converter("MaxRoiPool")
def max_roi_pool(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; computed in float32. Batch indices are clamped."""
    x, rois = required(node, 0, "X"), required(node, 1, "rois")
    (images, channels, *image), dtype = ctx.shape(x), ctx.dtype(x)
    count = ctx.shape(rois)[0]
    bins = [int(v) for v in node.attrs["pooled_shape"]]
    scale = float(node.attrs.get("spatial_scale", 1.0))

    def rounded(value: Any) -> Any:
        return _whole(tirx.floor(value.astype("float32") * _f(scale) + _f(0.5)), -(2**20), 2**20)

    def body(source: Any, regions: Any, target: Any) -> None:
        with T.parallel(count * channels) as unit:
            roi, c = unit // channels, unit % channels
            n = wrap_index(_whole(regions[roi, 0].astype("float32"), 0, images - 1), images)
            best, bounds = local("float32"), local("int32", 4)
            with T.grid(*bins) as (ph, pw):
                for axis, p in enumerate((ph, pw)):
                    start, stop = rounded(regions[roi, 2 - axis]), rounded(regions[roi, 4 - axis])
                    size = tirx.max(stop - start + 1, 1).astype("float32") / _f(bins[axis])
                    low = tirx.floor(p.astype("float32") * size).astype("int32") + start
                    high = tirx.ceil((p + 1).astype("float32") * size).astype("int32") + start
                    bounds[axis] = tirx.max(tirx.min(low, image[axis]), 0)
                    bounds[2 + axis] = tirx.max(tirx.min(high, image[axis]), 0)
                best[0] = _LOWEST
                rows, columns = (tirx.max(bounds[2 + a] - bounds[a], 0) for a in range(2))
                with T.serial(rows) as i, T.serial(columns) as j:
                    place = [tirx.min(bounds[a] + k, image[a] - 1) for a, k in ((0, i), (1, j))]
                    best[0] = tirx.max(best[0], source[n, c, place[0], place[1]].astype("float32"))
                empty = rows * columns == 0
                target[roi, c, ph, pw] = tirx.Select(empty, _f(0.0), best[0]).astype(dtype)

    return loops(ctx, "max_roi_pool", [x, rois], [((count, channels, *bins), dtype)], body)[0]
