"""Operators that move elements or give shapes."""

from __future__ import annotations

import math

import numpy as np

from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.ops.table import Table


def _reshape(call: Call) -> str:
    shape = call.shape(0)
    wanted = call.integers(1) if call.has(1) else [int(d) for d in call.option("NewShape") or ()]
    return call.reshape(call.real(0), _resolved(call, wanted, shape))


def _resolved(call: Call, wanted: list[int], shape: tuple[int, ...]) -> list[int]:
    """The shape that is meant, with -1 worked out; another batch than the file's goes into the first one."""
    count = math.prod(shape)
    given = math.prod(d for d in wanted if d != -1)
    if wanted.count(-1) > 1 or any(d < -1 for d in wanted):
        raise call.damaged(f"makes the shape {wanted}")
    if -1 in wanted and given > 0 and count % given == 0:
        return [count // given if d == -1 else d for d in wanted]
    if -1 not in wanted and given == count:
        return wanted
    scaled = -1 not in wanted and given > 0 and shape != call.tensor(0).shape and wanted
    if scaled and (wanted[0] * count) % given == 0:
        return [wanted[0] * count // given, *wanted[1:]]
    raise call.damaged(f"makes {wanted} of {list(shape)}")


def _squeeze(call: Call) -> str:
    shape = call.shape(0)
    dims = [call.axis(int(d), len(shape)) for d in call.option("SqueezeDims") or ()]
    dropped = set(dims) or {i for i, d in enumerate(shape) if d == 1}
    if any(shape[i] != 1 for i in dropped):
        raise call.damaged(f"drops the dimensions {sorted(dropped)} of {list(shape)}")
    return call.reshape(call.real(0), [d for i, d in enumerate(shape) if i not in dropped])


def _expand_dims(call: Call) -> str:
    shape = list(call.shape(0))
    shape.insert(call.axis(call.integer(1), len(shape) + 1), 1)
    return call.reshape(call.real(0), shape)


def _shape(call: Call) -> str:
    return call.add_constant(list(call.shape(0)), _whole(call))


def _rank(call: Call) -> str:
    return call.add_constant(len(call.shape(0)), "int32")


def _whole(call: Call) -> str:
    """Type of a result that is a shape."""
    return "int64" if call.result().dtype == "int64" else "int32"


def _dims(call: Call, index: int) -> list[int]:
    """A constant input that is a shape."""
    found = call.integers(index)
    if any(d < 0 for d in found):
        raise call.damaged(f"makes the shape {found}")
    return found


def _fill(call: Call) -> str:
    return call.emit("Expand", call.real(1), call.add_constant(_dims(call, 0)))


def _broadcast_to(call: Call) -> str:
    return call.emit("Expand", call.real(0), call.add_constant(_dims(call, 1)))


def _broadcast_args(call: Call) -> str:
    try:
        shape = np.broadcast_shapes(tuple(_dims(call, 0)), tuple(_dims(call, 1)))
    except ValueError:
        raise call.damaged("has shapes that do not go together") from None
    return call.add_constant(list(shape), _whole(call))


def _range(call: Call) -> str:
    bounds = [call.constant(i) for i in range(3)]
    if any(b.size != 1 for b in bounds):
        raise call.damaged("has bounds that are not single numbers")
    if bounds[2].item() == 0:
        raise call.damaged("has the step 0")
    return call.emit("Range", *(call.reshape(call.raw(i), ()) for i in range(3)))


def _tile(call: Call) -> str:
    return call.emit("Tile", call.real(0), call.add_constant(_dims(call, 1)))


def _transpose(call: Call) -> str:
    perm = [call.axis(axis, len(call.shape(0))) for axis in call.integers(1)]
    if sorted(perm) != list(range(len(call.shape(0)))):
        raise call.damaged(f"has the order {perm} of {len(call.shape(0))} dimensions")
    return call.transpose(call.real(0), perm)


def _pack(call: Call) -> str:
    if call.count == 0:
        raise call.damaged("has no inputs")
    axis = call.axis(int(call.option("Axis")), len(call.shape(0)) + 1)
    parts = []
    for i in range(call.count):
        shape = list(call.shape(i))
        if len(shape) < axis:
            raise call.damaged(f"has inputs of shapes {list(call.shape(0))} and {shape}")
        parts.append(call.reshape(call.real(i), [*shape[:axis], 1, *shape[axis:]]))
    return call.emit("Concat", *parts, axis=axis)


def _unpack(call: Call) -> list[str]:
    shape = call.shape(0)
    axis = call.axis(int(call.option("Axis")), len(shape))
    count = len(call.operator.outputs)
    if count != shape[axis]:
        raise call.damaged(f"makes {count} of dimension {axis} of {list(shape)}")
    parts = _split(call, call.real(0), axis, [1] * count)
    return [call.reshape(part, [*shape[:axis], *shape[axis + 1 :]]) for part in parts]


def _split(call: Call, x: str, axis: int, sizes: list[int]) -> list[str]:
    if len(sizes) == 1:
        return [x]
    return call.builder.emit("Split", [x, call.add_constant(sizes)], len(sizes), axis=axis)


def _split_evenly(call: Call) -> list[str]:
    shape, count = call.shape(1), len(call.operator.outputs)
    axis = call.axis(call.integer(0), len(shape))
    if count == 0 or shape[axis] % count:
        raise call.damaged(f"makes {count} parts of dimension {axis} of {list(shape)}")
    return _split(call, call.real(1), axis, [shape[axis] // count] * count)


def _split_v(call: Call) -> list[str]:
    shape, sizes = call.shape(0), call.integers(1)
    axis = call.axis(call.integer(2), len(shape))
    rest = shape[axis] - sum(s for s in sizes if s != -1)
    sizes = [rest if s == -1 else s for s in sizes]
    if len(sizes) != len(call.operator.outputs) or any(s < 0 for s in sizes) or sum(sizes) != shape[axis]:
        raise call.damaged(f"makes parts of {sizes} of dimension {axis} of {list(shape)}")
    return _split(call, call.real(0), axis, sizes)


def _concatenation(call: Call) -> str:
    if call.count == 0:
        raise call.damaged("has no inputs")
    axis = call.axis(int(call.option("Axis")), len(call.shape(0)))
    return call.activated(call.emit("Concat", *(call.real(i) for i in range(call.count)), axis=axis))


def _pad(call: Call) -> str:
    pads = _paddings(call)
    x = call.real(0)
    value = []
    if call.has(2):
        value = [call.like(call.real_constant(2).reshape(()), x)]
    return call.emit("Pad", x, call.add_constant(pads), *value)


def _paddings(call: Call, index: int = 1) -> list[int]:
    """A constant input of [rank, 2] as ONNX's pads: all before, then all after."""
    rank, found = len(call.shape(0)), call.constant(index)
    if found.shape != (rank, 2) or (found < 0).any():
        raise call.damaged(f"has paddings {found.tolist()} for {rank} dimensions")
    return [int(p) for p in found.T.ravel()]


def _mirror_pad(call: Call) -> str:
    """REFLECT leaves the edge out, SYMMETRIC repeats it, which ONNX's Pad cannot."""
    pads, shape, x = _paddings(call), call.shape(0), call.real(0)
    edge = call.choice("Mode", (0, 1))
    rank = len(shape)
    for axis, extent in enumerate(shape):
        before, after = pads[axis], pads[rank + axis]
        if max(before, after) > extent - 1 + edge:
            raise call.damaged(f"mirrors {max(before, after)} elements of {extent}")
    if not edge:
        return call.emit("Pad", x, call.add_constant(pads), mode="reflect")
    for axis, extent in enumerate(shape):
        before, after = pads[axis], pads[rank + axis]
        if before or after:
            places = np.pad(np.arange(extent), (before, after), "symmetric")
            x = call.emit("Gather", x, call.add_constant(places), axis=axis)
    return x


def _space_to_depth(call: Call) -> str:
    return _blocks(call, "SpaceToDepth")


def _depth_to_space(call: Call) -> str:
    return _blocks(call, "DepthToSpace", mode="DCR")


def _blocks(call: Call, op: str, **attributes: str) -> str:
    call.ranked(0, 4)
    size = int(call.option("BlockSize"))
    if size < 1:
        raise call.damaged(f"has blocks of {size}")
    return call.channels_last(call.emit(op, call.channels_first(call.real(0)), blocksize=size, **attributes))


def _space_to_batch(call: Call) -> str:
    """Pads; then each place in a block becomes an element of the batch of its own."""
    shape, blocks, pads = call.shape(0), call.integers(1), call.constant(2)
    spatial = len(blocks)
    if (
        pads.shape != (spatial, 2)
        or len(shape) < spatial + 1
        or min(blocks, default=1) < 1
        or (pads < 0).any()
    ):
        raise call.damaged(f"has blocks {blocks} and paddings {pads.tolist()} for {list(shape)}")
    rest = len(shape) - 1 - spatial
    before, after = ([0, *(int(p) for p in pads[:, side]), *[0] * rest] for side in (0, 1))
    x = call.emit("Pad", call.real(0), call.add_constant([*before, *after]))
    padded = call.builder.shape(x)
    if any(padded[1 + i] % b for i, b in enumerate(blocks)):
        raise call.damaged(f"has blocks {blocks} for {list(padded)}")
    pairs = [part for i, b in enumerate(blocks) for part in (padded[1 + i] // b, b)]
    x = call.reshape(x, [padded[0], *pairs, *padded[1 + spatial :]])
    inner = [2 + 2 * i for i in range(spatial)]
    outer = [1 + 2 * i for i in range(spatial)]
    x = call.transpose(x, [*inner, 0, *outer, *range(1 + 2 * spatial, 1 + 2 * spatial + rest)])
    counts = [padded[1 + i] // b for i, b in enumerate(blocks)]
    return call.reshape(x, [padded[0] * math.prod(blocks), *counts, *padded[1 + spatial :]])


def _batch_to_space(call: Call) -> str:
    """The way back from ``_space_to_batch``; cuts the edges off at the end."""
    shape, blocks, crops = call.shape(0), call.integers(1), call.constant(2)
    spatial = len(blocks)
    fits = crops.shape == (spatial, 2) and len(shape) >= spatial + 1 and min(blocks, default=1) >= 1
    if not fits or shape[0] % math.prod(blocks) or (crops < 0).any():
        raise call.damaged(f"has blocks {blocks} and crops {crops.tolist()} for {list(shape)}")
    rest = shape[1 + spatial :]
    batch = shape[0] // math.prod(blocks)
    x = call.reshape(call.real(0), [*blocks, batch, *shape[1:]])
    pairs = [place for i in range(spatial) for place in (spatial + 1 + i, i)]
    x = call.transpose(x, [spatial, *pairs, *range(2 * spatial + 1, 2 * spatial + 1 + len(rest))])
    extents = [shape[1 + i] * b for i, b in enumerate(blocks)]
    x = call.reshape(x, [batch, *extents, *rest])
    starts = [int(c) for c in crops[:, 0]]
    ends = [e - int(c) for e, c in zip(extents, crops[:, 1], strict=True)]
    axes = list(range(1, 1 + spatial))
    return call.emit("Slice", x, *(call.add_constant(v) for v in (starts, ends, axes)))


def _reverse(call: Call) -> str:
    rank = len(call.shape(0))
    axes = [call.axis(a, rank) for a in call.integers(1)]
    numbers = ([-1] * len(axes), [-(2**31)] * len(axes), axes, [-1] * len(axes))
    return (
        call.emit("Slice", call.real(0), *(call.add_constant(v) for v in numbers)) if axes else call.real(0)
    )


def _reverse_sequence(call: Call) -> str:
    from tvm_ipu.frontends.tflite.ops.elementwise import cast

    time, batch = int(call.option("SeqDim")), int(call.option("BatchDim"))
    if {time, batch} != {0, 1}:
        raise Refused(f"its axes of time and batch are {time} and {batch}, not 0 and 1")
    return call.emit(
        "ReverseSequence", call.real(0), cast(call, call.raw(1), "int64"), time_axis=time, batch_axis=batch
    )


TABLE: Table = {
    "BATCH_TO_SPACE_ND": _batch_to_space,
    "BROADCAST_ARGS": _broadcast_args,
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _depth_to_space,
    "EXPAND_DIMS": _expand_dims,
    "FILL": _fill,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "RANGE": _range,
    "RANK": _rank,
    "RESHAPE": _reshape,
    "REVERSE_SEQUENCE": _reverse_sequence,
    "REVERSE_V2": _reverse,
    "SHAPE": _shape,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split_evenly,
    "SPLIT_V": _split_v,
    "SQUEEZE": _squeeze,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
