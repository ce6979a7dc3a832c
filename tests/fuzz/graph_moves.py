"""Moves of elements in random graphs: shapes, orders, indices, resizes and branches."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.graph_maker import Maker, NotTaken, Tensor
from tests.fuzz.graph_operators import Operator


def reshape(m: Maker) -> object:
    x = m.pick()
    shape: list[int] = []
    left = x.array.size
    while left > 1 and len(shape) < 4:
        extent = m.random.choice([d for d in range(1, left + 1) if left % d == 0])
        shape.append(extent)
        left //= extent
    if left > 1 or not shape or m.chance(0.1):
        shape.append(left)
    if m.chance(0.3):
        shape[m.between(0, len(shape) - 1)] = -1
    return m.node("Reshape", x, m.constant(shape, "int64"))


def flatten(m: Maker) -> object:
    x = m.pick((), 1)
    return m.node("Flatten", x, axis=m.between(-x.rank, x.rank))


def squeeze(m: Maker) -> object:
    x = m.pick((), 1)
    ones = [axis for axis, extent in enumerate(x.shape) if extent == 1]
    if not ones or m.chance(0.3):
        axes = sorted(m.random.sample(range(x.rank + 1), 1))
        return m.node("Unsqueeze", x, m.constant(axes, "int64"))
    return m.node("Squeeze", x, m.constant(m.random.sample(ones, m.between(1, len(ones))), "int64"))


def transpose(m: Maker) -> object:
    x = m.pick((), 2)
    perm = m.random.sample(range(x.rank), x.rank)
    if x.rank == 4 and m.chance(0.5):
        perm = m.choose([0, 2, 3, 1], [0, 3, 1, 2], [0, 2, 1, 3], [0, 1, 3, 2])
    return m.node("Transpose", x, perm=perm)


def concat(m: Maker) -> object:
    x = m.pick((), 1)
    axis = m.between(0, x.rank - 1)

    def fits(one: Tensor) -> bool:
        same = one.dtype == x.dtype and one.rank == x.rank
        return same and all(
            a == b for i, (a, b) in enumerate(zip(one.shape, x.shape, strict=True)) if i != axis
        )

    found = [t for t in m.tensors.values() if fits(t)]
    extent = (*x.shape[:axis], m.between(1, 5), *x.shape[axis + 1 :])
    rest = [
        m.random.choice(found) if m.chance(0.7) else m.fresh(extent, x.dtype) for _ in range(m.between(1, 3))
    ]
    return m.node("Concat", *m.random.sample([x, *rest], 1 + len(rest)), axis=axis - m.choose(0, x.rank))


def split(m: Maker) -> object:
    x = m.pick((), 1)
    axes = [axis for axis, extent in enumerate(x.shape) if extent > 1]
    if not axes:
        raise NotTaken("one element")
    axis = m.random.choice(axes)
    count = m.between(2, min(4, x.shape[axis]))
    cuts = sorted(m.random.sample(range(1, x.shape[axis]), count - 1))
    parts = np.diff([0, *cuts, x.shape[axis]])
    return m.several("Split", x, m.constant(parts, "int64"), outputs=count, axis=axis)


def slices(m: Maker) -> object:
    x = m.pick((), 1)
    axes = sorted({m.between(0, x.rank - 1) for _ in range(2)})
    cuts: list[tuple[int, int, int]] = []
    for axis in axes:
        start, extent = m.between(0, x.shape[axis] - 1), x.shape[axis]
        if m.chance(0.3):
            cuts.append((m.choose(start, start - extent), -(2**40), -m.between(1, 2)))
        else:
            end = m.between(start + 1, extent)
            cuts.append((start, m.choose(end, end, 2**50), m.between(1, 3)))
    starts, ends, steps = zip(*cuts, strict=True)
    return m.node("Slice", x, *(m.constant(one, "int64") for one in (starts, ends, axes, steps)))


def expand(m: Maker) -> object:
    x = m.pick((), 0, 4, 512)
    shape = [m.between(2, 4) if extent == 1 else m.choose(1, extent) for extent in x.shape]
    shape = [m.between(1, 3)] * m.between(0, 1) + shape
    return m.node("Expand", x, m.constant(shape, "int64"))


def tile(m: Maker) -> object:
    x = m.pick((), 1, 4, 512)
    return m.node("Tile", x, m.constant([m.between(1, 3) for _ in x.shape], "int64"))


def pad(m: Maker) -> object:
    x = m.pick((), 1)
    mode = m.choose("constant", "constant", "reflect", "edge", "wrap")
    most = [extent - 1 if mode in ("reflect", "wrap") else 3 for extent in x.shape] * 2
    pads = [m.between(0, min(2, one)) if m.chance(0.6) else 0 for one in most]
    if mode == "constant" and m.chance(0.2):
        pads[0] = -m.between(0, x.shape[0] - 1)
    value = m.constant(m.array((), x.dtype)) if mode == "constant" and m.chance(0.6) else None
    return m.node("Pad", x, m.constant(pads, "int64"), *([value] if value else []), mode=mode)


def space(m: Maker) -> object:
    x = m.real(4, 4)
    _, channels, height, width = x.shape
    if height % 2 == 0 and width % 2 == 0 and m.chance(0.5):
        return m.node("SpaceToDepth", x, blocksize=2)
    if channels % 4:
        weights = m.constant(m.array((4, channels, 1, 1), x.dtype))
        x = m.node("Conv", x, weights)
    return m.node("DepthToSpace", x, blocksize=2, mode=m.choose("DCR", "CRD"))


def indices(m: Maker, shape: tuple[int, ...], extent: int) -> Tensor:
    array = m.numbers.integers(-extent, extent, shape).astype(m.choose("int64", "int32"))
    return m.constant(array) if m.chance(0.5) else m.input(array)


def gather(m: Maker) -> object:
    x = m.pick((), 1)
    axis = m.between(0, x.rank - 1)
    shape = m.choose((), (3,), (2, 3), (1,), (x.shape[axis],))
    return m.node("Gather", x, indices(m, shape, x.shape[axis]), axis=axis - m.choose(0, x.rank))


def gather_elements(m: Maker) -> object:
    x = m.pick((), 1)
    axis = m.between(0, x.rank - 1)
    shape = tuple(m.between(1, extent) if i != axis else m.between(1, 5) for i, extent in enumerate(x.shape))
    return m.node("GatherElements", x, indices(m, shape, x.shape[axis]), axis=axis)


def gather_nd(m: Maker) -> object:
    x = m.pick((), 1)
    depth = m.between(1, x.rank)
    index = np.stack([m.numbers.integers(-e, e, (4,)) for e in x.shape[:depth]], -1).astype(np.int64)
    return m.node("GatherND", x, m.constant(index) if m.chance(0.5) else m.input(index))


def scatter(m: Maker) -> object:
    x = m.pick((), 1)
    axis = m.between(0, x.rank - 1)
    count = m.between(1, x.shape[axis])
    places = m.numbers.permutation(x.shape[axis])[:count].astype(np.int64)
    if m.chance(0.5) and axis == 0:
        updates = m.fresh((count, *x.shape[1:]), x.dtype)
        return m.node("ScatterND", x, m.constant(places[:, None]), updates)
    shape = tuple(count if i == axis else extent for i, extent in enumerate(x.shape))
    index = np.broadcast_to(places.reshape([-1 if i == axis else 1 for i in range(x.rank)]), shape)
    updates = m.fresh(shape, x.dtype)
    reduction = m.choose({}, {}, {"reduction": m.choose("add", "mul", "max", "min")})
    return m.node("ScatterElements", x, m.constant(index.copy()), updates, axis=axis, **reduction)


def one_hot(m: Maker) -> object:
    x = m.pick(("int32", "int64"), 0, 3, 256)
    values = m.constant(m.array((2,), m.choose("float32", "int64")))
    return m.node("OneHot", x, m.constant(np.array(6)), values, axis=m.between(-1, x.rank))


def triangle(m: Maker) -> object:
    x = m.pick(("float32", "int64", "bool"), 2)
    return m.node("Trilu", x, m.constant(np.array(m.between(-2, 2))), upper=m.between(0, 1))


def reverse(m: Maker) -> object:
    x = m.pick((), 2)
    lengths = m.constant(m.numbers.integers(1, x.shape[0] + 1, x.shape[1]).astype(np.int64))
    return m.node("ReverseSequence", x, lengths, time_axis=0, batch_axis=1)


def shape_of(m: Maker) -> object:
    """Shape arithmetic that exporters leave in a model: the batch is kept, the rest flattened."""
    x = m.pick((), 2)
    first = m.node("Gather", m.node("Shape", x), m.constant([0], "int64"))
    return m.node("Reshape", x, m.node("Concat", first, m.constant([-1], "int64"), axis=0))


def resize(m: Maker) -> object:
    x = m.real(3, 4)
    mode = m.choose("nearest", "linear", "linear", "cubic")
    where = m.choose("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    factors = [1.0, 1.0] + [m.choose(1.0, 2.0, 2.0, 0.5, 1.5, 3.0) for _ in x.shape[2:]]
    sizes = [max(1, math.floor(e * f)) for e, f in zip(x.shape, factors, strict=True)]
    by_size = where == "align_corners" or m.chance(0.5)  # onnxruntime rounds the length first, ONNX does not
    extent = m.constant(sizes, "int64") if by_size else m.constant(factors, "float32")
    inputs = [None, None, extent] if by_size else [None, extent]
    near = {"nearest_mode": m.choose("floor", "round_prefer_floor", "ceil")} if mode == "nearest" else {}
    return m.node("Resize", x, *inputs, mode=mode, coordinate_transformation_mode=where, **near)


def branch(m: Maker) -> object:
    """If, with a condition that is constant or an input; both branches see the tensors outside."""
    x = m.real()
    y = m.fresh(x.shape, x.dtype)
    condition = m.constant(np.array(m.chance(0.5))) if m.chance(0.6) else m.input(np.array(m.chance(0.5)))
    kind = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    kind.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(x.array.dtype)
    inner = [
        helper.make_node("Add", [x.name, y.name], ["a"]), helper.make_node("Relu", ["a"], ["z"])
    ]  # fmt: skip
    branches = {
        "then_branch": helper.make_graph(inner, "then", [], [kind]),
        "else_branch": helper.make_graph([helper.make_node("Neg", [y.name], ["z"])], "else", [], [kind]),
    }
    return m.node("If", condition, captured=(x, y), **branches)


MOVES: dict[Operator, float] = {
    reshape: 4, flatten: 1, squeeze: 2, transpose: 5, concat: 3, split: 3, slices: 3, expand: 1, tile: 0.7,
    pad: 2, space: 1.5, gather: 2, gather_elements: 0.7, gather_nd: 0.5, scatter: 0.7, one_hot: 0.4,
    triangle: 0.4, reverse: 0.3, shape_of: 1, resize: 2, branch: 1,
}  # fmt: skip
"""Operators and how often they are taken."""
