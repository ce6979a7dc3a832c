"""Layers that move, join and choose values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.caffe.elementwise import Rule, axis_of
from tvm_ipu.frontends.caffe.network import Layer
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder


def concat(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Joined along an axis."""
    p = layer.param("concat_param")
    axis = p.concat_dim if p.HasField("concat_dim") else p.axis
    return b.add("Concat", *x, axis=axis_of(b, layer, x[0], axis))


def slice_parts(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> list[str]:
    """Cut along an axis, at given points or into equal parts."""
    p = layer.param("slice_param")
    axis = axis_of(b, layer, x[0], p.slice_dim if p.HasField("slice_dim") else p.axis)
    size, count = b.shape(x[0])[axis], len(layer.tops)
    points = list(p.slice_point) or [size // count * i for i in range(1, count)]
    sizes = np.diff([0, *points, size])
    if len(points) != count - 1 or (not p.slice_point and size % count) or min(sizes) < 1:
        raise ModelError(f"{layer}: {size} values along axis {axis} are not cut into {count} by {points}")
    return b.add_many("Split", x[0], sizes.astype(np.int64), count=count, axis=axis)


def split(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> list[str]:
    """The same for several readers."""
    return [b.add("Identity", x[0]) for _ in layer.tops]


def softmax(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Along one axis."""
    return b.add("Softmax", x[0], axis=axis_of(b, layer, x[0], layer.param("softmax_param").axis))


def flatten(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Several axes as one."""
    p, shape = layer.param("flatten_param"), b.shape(x[0])
    first, last = (axis_of(b, layer, x[0], axis) for axis in (p.axis, p.end_axis))
    dims = [*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]]
    return b.add("Reshape", x[0], np.array(dims, np.int64))


def reshape(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Some axes in another shape: 0 keeps a dimension, -1 is what remains."""
    p, shape = layer.param("reshape_param"), b.shape(x[0])
    start = axis_of(b, layer, x[0], p.axis, ends=1)
    stop = len(shape) if p.num_axes == -1 else start + p.num_axes
    middle = shape[start:stop]
    wanted = list(p.shape.dim)
    if any(dim == 0 and i >= len(middle) for i, dim in enumerate(wanted)) or wanted.count(-1) > 1:
        raise ModelError(f"{layer}: a shape of {list(shape)} cannot become {wanted}")
    dims = [middle[i] if dim == 0 else dim for i, dim in enumerate(wanted)]
    known = math.prod(dim for dim in dims if dim != -1)
    total = math.prod(middle)
    if (total % known if -1 in dims else total != known) or known < 1:
        raise ModelError(f"{layer}: a shape of {list(shape)} cannot become {wanted}")
    dims = [total // known if dim == -1 else dim for dim in dims]
    return b.add("Reshape", x[0], np.array([*shape[:start], *dims, *shape[stop:]], np.int64))


def permute(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Axes in another order; those that are not named follow."""
    order = list(layer.param("permute_param").order)
    rank = len(b.shape(x[0]))
    order += [axis for axis in range(rank) if axis not in order]
    if sorted(order) != list(range(rank)):
        raise ModelError(f"{layer}: {order} is no order of {rank} axes")
    return b.add("Transpose", x[0], perm=order)


def crop(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """The first input cut to the size of the second."""
    p = layer.param("crop_param")
    if len(x) != 2:
        raise ModelError(f"{layer}: it has {len(x)} inputs; 2 are expected")
    axis = axis_of(b, layer, x[0], p.axis)
    shape, wanted = b.shape(x[0])[axis:], b.shape(x[1])[axis:]
    offsets = list(p.offset) or [0]
    offsets = offsets * len(shape) if len(offsets) == 1 else offsets
    fits = len(offsets) == len(shape) == len(wanted)
    if not fits or any(o + w > s for o, w, s in zip(offsets, wanted, shape, strict=True)):
        raise ModelError(f"{layer}: {list(wanted)} from {offsets} on is not inside {list(shape)}")
    ends = [o + w for o, w in zip(offsets, wanted, strict=True)]
    return b.add("Slice", x[0], np.array(offsets), np.array(ends), np.arange(axis, axis + len(shape)))


def tile(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Repeated along an axis."""
    p = layer.param("tile_param")
    repeats = np.ones(len(b.shape(x[0])), np.int64)
    repeats[axis_of(b, layer, x[0], p.axis)] = p.tiles
    return b.add("Tile", x[0], repeats)


def shuffle_channel(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Channels of groups in turn."""
    groups, shape = layer.param("shuffle_channel_param").group, b.shape(x[0])
    if shape[1] % groups:
        raise ModelError(f"{layer}: {shape[1]} channels in {groups} groups")
    y = b.add("Reshape", x[0], np.array([shape[0], groups, shape[1] // groups, *shape[2:]], np.int64))
    y = b.add("Transpose", y, perm=[0, 2, 1, *range(3, len(shape) + 1)])
    return b.add("Reshape", y, np.array(shape, np.int64))


def arg_max(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Places of the largest values as floats, or with ``out_max_val`` the values (also)."""
    p, shape = layer.param("argmax_param"), b.shape(x[0])
    if p.HasField("axis"):
        values, places = _largest(b, x[0], p.top_k, axis_of(b, layer, x[0], p.axis))
        return values if p.out_max_val else places
    rows = b.add("Reshape", x[0], np.array([shape[0], 1, -1], np.int64))
    values, places = _largest(b, rows, p.top_k, 2)
    both = b.add("Concat", places, values, axis=1) if p.out_max_val else places
    dims = [shape[0], 1 + p.out_max_val, p.top_k, *[1] * (len(shape) - 3)]
    return b.add("Reshape", both, np.array(dims, np.int64))


def _largest(b: ModelBuilder, x: str, count: int, axis: int) -> tuple[str, str]:
    values, places = b.add_many("TopK", x, np.array([count], np.int64), count=2, axis=axis)
    return values, b.add("Cast", places, to=b.elem_type(x))


RULES: dict[str, Rule] = {
    "ArgMax": arg_max,
    "Concat": concat,
    "Crop": crop,
    "Flatten": flatten,
    "Permute": permute,
    "Reshape": reshape,
    "ShuffleChannel": shuffle_channel,
    "Slice": slice_parts,
    "Softmax": softmax,
    "Split": split,
    "Tile": tile,
}
