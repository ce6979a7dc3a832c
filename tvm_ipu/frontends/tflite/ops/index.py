"""Slices, and elements at positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.ops.elementwise import cast
from tvm_ipu.frontends.tflite.ops.table import Table

_TO_START = -(2**31)
"""An end of a slice that walks backwards and takes the first element."""


def _sliced(call: Call, cuts: Sequence[tuple[int, int, int, int]]) -> str:
    """Start, end, axis and step of each cut; one that takes all would bind the model to its batch."""
    shape = call.shape(0)
    real = [cut for cut in cuts if (cut[0], cut[1], cut[3]) != (0, shape[cut[2]], 1)]
    if not real:
        return call.real(0)
    return call.emit("Slice", call.real(0), *(call.add_constant(list(v)) for v in zip(*real, strict=True)))


def _slice(call: Call) -> str:
    shape, begin, size = call.shape(0), call.integers(1), call.integers(2)
    if not len(shape) == len(begin) == len(size):
        raise call.damaged(f"cuts {size} at {begin} out of {list(shape)}")
    ends = [d if s == -1 else b + s for d, b, s in zip(shape, begin, size, strict=True)]
    if not all(0 <= b <= e <= d for b, e, d in zip(begin, ends, shape, strict=True)):
        raise call.damaged(f"cuts {size} at {begin} out of {list(shape)}")
    return _sliced(call, [(b, e, axis, 1) for axis, (b, e) in enumerate(zip(begin, ends, strict=True))])


def _strided_slice(call: Call) -> str:
    """NumPy's slices, a bit of each mask for an entry; an ellipsis and new axes have no numbers."""
    shape = call.shape(0)
    begin, end, step = (call.integers(i) for i in (1, 2, 3))
    if not len(begin) == len(end) == len(step) or 0 in step:
        raise call.damaged(f"has begin {begin}, end {end}, strides {step}")
    masks = [
        int(call.option(n)) for n in ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask")
    ]
    open_begin, open_end, ellipsis, new, shrink = (
        [bool(m >> i & 1) for i in range(len(begin))] for m in masks
    )
    if sum(ellipsis) > 1:
        raise call.damaged("has more than one ellipsis")
    taken = sum(not e and not n for e, n in zip(ellipsis, new, strict=True))
    if taken > len(shape):
        raise call.damaged(f"cuts {taken} dimensions of {list(shape)}")
    cuts: list[tuple[int, int, int, int]] = []
    result: list[int | None] = []  # extents of the result; None for those that the cut leaves
    axis = 0
    for i in range(len(begin)):
        if ellipsis[i]:
            result += [None] * (len(shape) - taken)
            axis += len(shape) - taken
        elif new[i]:
            result.append(1)
        else:
            if shrink[i]:
                place = call.axis(begin[i], shape[axis])
                cuts.append((place, place + 1, axis, 1))
            else:
                stop = end[i] + begin[i] if call.option("Offset") else end[i]
                first = None if open_begin[i] else begin[i]
                last = None if open_end[i] else stop
                low, high, _ = slice(first, last, step[i]).indices(shape[axis])
                cuts.append((low, _TO_START if high < 0 else high, axis, step[i]))
                result.append(None)
            axis += 1
    x = _sliced(call, cuts)
    dropped = {cut[2] for cut, is_one in zip(cuts, _shrunk(ellipsis, new, shrink), strict=True) if is_one}
    left = iter([d for a, d in enumerate(call.builder.shape(x)) if a not in dropped])
    extents = [next(left) if d is None else d for d in result]
    return call.reshape(x, [*extents, *left])


def _shrunk(ellipsis: list[bool], new: list[bool], shrink: list[bool]) -> list[bool]:
    """For each cut whether its dimension is dropped."""
    return [s for e, n, s in zip(ellipsis, new, shrink, strict=True) if not e and not n]


def _gather(call: Call) -> str:
    rank, places = len(call.shape(0)), call.raw(1)
    axis = call.axis(int(call.option("Axis")), rank)
    batch = int(call.option("BatchDims"))
    if not batch:
        return call.emit("Gather", call.real(0), places, axis=axis)
    if not 0 < batch <= len(call.shape(1)) or axis != batch:
        raise Refused(f"it gathers along axis {axis} in {batch} dimensions of batches")
    spots = call.reshape(cast(call, places, "int64"), [*call.shape(1), 1])
    return call.emit("GatherND", call.real(0), spots, batch_dims=batch)


def _gather_nd(call: Call) -> str:
    return call.emit("GatherND", call.real(0), cast(call, call.raw(1), "int64"))


def _embedding_lookup(call: Call) -> str:
    return call.emit("Gather", call.real(1), call.raw(0), axis=0)


def _one_hot(call: Call) -> str:
    depth, on, off = call.integer(1), call.real(2), call.real(3)
    axis = int(call.option("Axis"))
    call.axis(axis, len(call.shape(0)) + 1)
    if depth < 0:
        raise call.damaged(f"has {depth} classes")
    values = call.emit("Concat", call.reshape(off, (1,)), call.reshape(on, (1,)), axis=0)
    return call.emit("OneHot", call.raw(0), call.add_constant(depth), values, axis=axis)


def _scatter_nd(call: Call) -> str:
    """Updates at positions of a tensor of zeros; those at the same position are added."""
    shape, updates = call.integers(2), call.real(1)
    if any(d < 0 for d in shape):
        raise call.damaged(f"makes the shape {shape}")
    zero = call.like(np.zeros((1,) * len(shape)), updates)
    zeros = call.emit("Expand", zero, call.add_constant(shape))
    return call.emit("ScatterND", zeros, cast(call, call.raw(0), "int64"), updates, reduction="add")


TABLE: Table = {
    "EMBEDDING_LOOKUP": _embedding_lookup,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "ONE_HOT": _one_hot,
    "SCATTER_ND": _scatter_nd,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
}
