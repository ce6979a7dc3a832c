"""Operators that make, move, join and choose values."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.paddle.context import Context, Rule
from tvm_ipu.frontends.paddle.program import Op

_LAST = np.iinfo(np.int64).max


def reshape(c: Context, op: Op) -> str:
    """To another shape: 0 keeps a dimension, -1 is what remains."""
    return c.b.add("Reshape", c.read(op, "X"), c.vector(op, "shape", "Shape", "ShapeTensor"))


def flatten_range(c: Context, op: Op) -> str:
    """Several axes as one."""
    dims = c.dims(op, "X")
    first, last = (a % max(len(dims), 1) for a in (op.attr("start_axis", 1), op.attr("stop_axis", -1)))
    inside = dims[first : last + 1]
    size = math.prod(inside) if min(inside, default=1) >= 0 else -1
    if size >= 0 or not any(dim < 0 for dim in dims[last + 1 :]):
        return c.b.add("Reshape", c.read(op, "X"), np.array([*[0] * first, size, *dims[last + 1 :]]))
    shape = c.b.add("Shape", c.read(op, "X"))
    front, back = (
        c.b.add("Slice", shape, np.array([a]), np.array([z])) for a, z in ((0, first), (last + 1, _LAST))
    )
    target = c.b.add("Concat", front, np.array([-1]), back, axis=0)
    return c.b.add("Reshape", c.read(op, "X"), target)


def flatten2(c: Context, op: Op) -> str:
    """Two axes of all."""
    return c.b.add("Flatten", c.read(op, "X"), axis=op.attr("axis", 1))


def squeeze(c: Context, op: Op) -> str:
    """Without axes of one."""
    axes = op.attr("axes", [])
    return c.b.add("Squeeze", c.read(op, "X"), np.array(axes, np.int64) if axes else None)


def unsqueeze(c: Context, op: Op) -> str:
    """With more axes of one."""
    return c.b.add("Unsqueeze", c.read(op, "X"), c.vector(op, "axes", "AxesTensor", "AxesTensorList"))


def transpose(c: Context, op: Op) -> str:
    """Axes in another order."""
    return c.b.add("Transpose", c.read(op, "X"), perm=op.attr("axis", []))


def concat(c: Context, op: Op) -> str:
    """Joined along an axis."""
    _no_tensor(op, "AxisTensor")
    return c.b.add("Concat", *(c.tensor(name) for name in op.inputs["X"]), axis=op.attr("axis", 0))


def split(c: Context, op: Op) -> list[str]:
    """Cut along an axis."""
    _no_tensor(op, "AxisTensor", "SectionsTensorList")
    sections, axis, count = op.attr("sections", []), op.attr("axis", 0), len(op.outputs["Out"])
    if -1 in sections:
        whole = c.dims(op, "X")[axis]
        if whole < 0:
            raise ModelError(f"{op}: it cuts an open dimension")
        sections = [whole - sum(s for s in sections if s != -1) if s == -1 else s for s in sections]
    if sections:
        return c.b.add_many("Split", c.read(op, "X"), np.array(sections, np.int64), count=count, axis=axis)
    return c.b.add_many("Split", c.read(op, "X"), count=count, axis=axis, num_outputs=count)


def stack(c: Context, op: Op) -> str:
    """Joined along a new axis."""
    axis = op.attr("axis", 0)
    parts = [c.b.add("Unsqueeze", c.tensor(name), np.array([axis])) for name in op.inputs["X"]]
    return c.b.add("Concat", *parts, axis=axis)


def cut(c: Context, op: Op) -> str:
    """Parts of some axes; those in ``decrease_axis`` go."""
    starts = c.vector(op, "starts", "StartsTensor", "StartsTensorList")
    ends = c.vector(op, "ends", "EndsTensor", "EndsTensorList")
    axes = np.array(op.attr("axes", []), np.int64)
    steps = np.array(op.attr("strides", []), np.int64)
    x = c.read(op, "Input")
    y = c.b.add("Slice", x, starts, ends, axes, *([steps] if steps.size else []))
    gone = op.attr("decrease_axis", [])
    return c.b.add("Squeeze", y, np.array(gone, np.int64)) if gone else y


def expand(c: Context, op: Op) -> str:
    """To a shape by repeating; -1 keeps a dimension."""
    shape = c.vector(op, "shape", "Shape", "expand_shapes_tensor")
    known = isinstance(shape, np.ndarray)
    return c.b.add("Expand", c.read(op, "X"), np.abs(shape) if known else c.b.add("Abs", shape))


def tile(c: Context, op: Op) -> str:
    """Repeated."""
    repeats = c.vector(op, "repeat_times", "RepeatTimes", "repeat_times_tensor")
    if isinstance(repeats, np.ndarray):
        repeats = np.array([*[1] * (c.rank(op, "X") - repeats.size), *repeats], np.int64)
    return c.b.add("Tile", c.read(op, "X"), repeats)


def gather(c: Context, op: Op) -> str:
    """Values of one axis by their places."""
    _no_tensor(op, "Axis")
    return c.b.add("Gather", c.read(op, "X"), c.read(op, "Index"), axis=op.attr("axis", 0))


def gather_nd(c: Context, op: Op) -> str:
    """Values by their places in several axes."""
    index = c.b.add("Cast", c.read(op, "Index"), to=TensorProto.INT64)
    return c.b.add("GatherND", c.read(op, "X"), index)


def embedding(c: Context, op: Op) -> str:
    """Rows of a table; those of ``padding_idx`` are zeros there already."""
    return c.b.add("Gather", c.read(op, "W"), c.read(op, "Ids"))


def pad3d(c: Context, op: Op) -> str:
    """Constants, edges or mirror images around the data; pads are given from the last axis on."""
    _no_tensor(op, "Paddings")
    pads, rank = op.attr("paddings", []), c.rank(op, "X")
    if op.attr("data_format", "NCDHW")[1] != "C":
        raise ModelError(f"{op}: data in {op.attr('data_format', '')} cannot be compiled")
    begin, end = pads[::2][::-1], pads[1::2][::-1]
    if len(begin) > rank - 2:
        begin, end = begin[-(rank - 2) :], end[-(rank - 2) :]
    front = [0] * (rank - len(begin))
    mode = {"replicate": "edge"}.get(op.attr("mode", "constant"), op.attr("mode", "constant"))
    if mode == "circular":
        mode = "wrap"
    x = c.read(op, "X")
    value = c.like(x, op.attr("value", 0.0)) if mode == "constant" else None
    return c.b.add("Pad", x, np.array([*front, *begin, *front, *end], np.int64), value, mode=mode)


def shape(c: Context, op: Op) -> str:
    """The dimensions, int32."""
    return c.b.add("Cast", c.b.add("Shape", c.read(op, "Input")), to=TensorProto.INT32)


def fill(c: Context, op: Op) -> str:
    """One value everywhere."""
    elem_type = c.elem_type(op.attr("dtype", 5))
    text = op.attr("str_value", "")
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    value = np.asarray(float(text) if text else op.attr("value", 0.0)).astype(dtype)
    dims = c.vector(op, "shape", "ShapeTensor", "ShapeTensorList")
    if isinstance(dims, np.ndarray):
        return c.b.add("Identity", np.full(dims, value))
    return c.b.add("Expand", value, dims)


def assign_value(c: Context, op: Op) -> str:
    """A constant that the program holds."""
    dtype = helper.tensor_dtype_to_np_dtype(c.elem_type(op.attr("dtype", 5)))
    lists = ("values", "fp32_values", "int32_values", "int64_values", "bool_values")
    values: list[float] = next((v for v in (op.attr(name, []) for name in lists) if v), [])
    return c.b.add("Identity", np.array(values, dtype).reshape(op.attr("shape", [])))


def arange(c: Context, op: Op) -> str:
    """Numbers in a row."""
    ends = [c.b.add("Squeeze", c.read(op, slot)) for slot in ("Start", "End", "Step")]
    return c.b.add("Range", *ends)


def top_k(c: Context, op: Op) -> list[str]:
    """The largest values and their places."""
    count = c.vector(op, "k", "K")
    options = {"largest": int(op.attr("largest", True)), "sorted": int(op.attr("sorted", True))}
    return c.b.add_many("TopK", c.read(op, "X"), count, count=2, axis=op.attr("axis", -1), **options)


def cumsum(c: Context, op: Op) -> str:
    """Sums of all that came before."""
    x = c.read(op, "X")
    axis = op.attr("axis", -1)
    if op.attr("flatten", False):
        x, axis = c.b.add("Reshape", x, np.array([-1])), 0
    kinds = {name: int(op.attr(name, False)) for name in ("exclusive", "reverse")}
    return c.b.add("CumSum", x, np.asarray(axis, np.int64), **kinds)


def pixel_shuffle(c: Context, op: Op) -> str:
    """Channels into space."""
    factor = op.attr("upscale_factor", 1)
    return c.b.add("DepthToSpace", c.read(op, "X"), blocksize=factor, mode="CRD")


def _no_tensor(op: Op, *slots: str) -> None:
    if any(op.inputs.get(slot) for slot in slots):
        raise ModelError(f"{op}: a computed {' or '.join(slots)} cannot be compiled")


RULES: dict[str, Rule] = {
    "assign_value": assign_value,
    "concat": concat,
    "cumsum": cumsum,
    "expand_v2": expand,
    "fill_constant": fill,
    "flatten2": flatten2,
    "flatten_contiguous_range": flatten_range,
    "gather": gather,
    "gather_nd": gather_nd,
    "lookup_table_v2": embedding,
    "pad3d": pad3d,
    "pixel_shuffle": pixel_shuffle,
    "range": arange,
    "reshape2": reshape,
    "shape": shape,
    "slice": cut,
    "split": split,
    "squeeze2": squeeze,
    "stack": stack,
    "strided_slice": cut,
    "tile": tile,
    "top_k_v2": top_k,
    "transpose2": transpose,
    "unsqueeze2": unsqueeze,
}
