"""Primitives that move, join and choose values."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ipu.frontends.jax.context import Context, Rule, Value, refuse


def broadcast(c: Context, eqn: Any) -> Value:
    """Axes of one between the others; repeating is left to what reads them."""
    x, var = c.lazy(eqn.invars[0]), eqn.outvars[0]
    dims = [1] * var.aval.ndim
    for axis, size in zip(eqn.params["broadcast_dimensions"], c.shape(x), strict=True):
        dims[axis] = size
    return c.reshape(x, dims)


def reshape(c: Context, eqn: Any) -> Value:
    """To another shape."""
    if eqn.params.get("dimensions") is not None:
        raise refuse(eqn, "an order of dimensions")
    return c.reshape(c.full(eqn.invars[0]), eqn.outvars[0].aval.shape)


def squeeze(c: Context, eqn: Any) -> Value:
    """Without axes of one."""
    x = c.lazy(eqn.invars[0])
    return c.reshape(x, [d for i, d in enumerate(c.shape(x)) if i not in eqn.params["dimensions"]])


def transpose(c: Context, eqn: Any) -> Value:
    """Axes in another order."""
    return c.transpose(c.lazy(eqn.invars[0]), eqn.params["permutation"])


def slice_(c: Context, eqn: Any) -> Value:
    """Parts of all axes."""
    p, shape = eqn.params, eqn.invars[0].aval.shape
    strides = p["strides"] or (1,) * len(shape)
    parts = zip(p["start_indices"], p["limit_indices"], strides, shape, strict=True)
    chosen = [(i, s, e, t) for i, (s, e, t, size) in enumerate(parts) if (s, e, t) != (0, size, 1)]
    return _slice(c, c.full(eqn.invars[0]), chosen)


def _slice(c: Context, x: Value, parts: list[Any]) -> Value:
    """Parts of axes: axis, start, end and step each."""
    if not parts:
        return x
    axes, starts, ends, steps = (np.array(column, np.int64) for column in zip(*parts, strict=True))
    return c.add("Slice", x, starts, ends, axes, steps)


def reverse(c: Context, eqn: Any) -> Value:
    """Axes from their ends on."""
    far = np.iinfo(np.int64).min
    return _slice(c, c.full(eqn.invars[0]), [(axis, -1, far, -1) for axis in eqn.params["dimensions"]])


def dynamic_slice(c: Context, eqn: Any) -> Value:
    """Parts of axes from starts that may be computed; they are moved so that all of it lies inside."""
    var, starts = eqn.invars[0], eqn.invars[1:]
    x = c.full(var)
    for axis, (start, size) in enumerate(zip(starts, eqn.params["slice_sizes"], strict=True)):
        room = var.aval.shape[axis] - size
        if not room:
            continue
        known = c.known(start)
        if known is not None:
            first = min(max(int(known), 0), room)
            x = _slice(c, x, [(axis, first, first + size, 1)])
            continue
        index = c.add("Max", c.add("Min", c.cast(c.lazy(start), np.int64), np.array(room)), np.array(0))
        x = c.add("Gather", x, c.add("Add", c.reshape(index, [1]), np.arange(size)), axis=axis)
    return x


def dynamic_update_slice(c: Context, eqn: Any) -> Value:
    """With a part replaced, whose place is known."""
    var, update, *starts = eqn.invars
    known = [c.known(start) for start in starts]
    if any(value is None for value in known):
        raise refuse(eqn, "a place that is computed")
    rooms = [whole - part for whole, part in zip(var.aval.shape, update.aval.shape, strict=True)]
    first = [min(max(int(k), 0), room) for k, room in zip(known, rooms, strict=True) if k is not None]
    grid = np.meshgrid(
        *(np.arange(s, s + n) for s, n in zip(first, update.aval.shape, strict=True)), indexing="ij"
    )
    return c.add("ScatterND", c.full(var), np.stack(grid, -1).astype(np.int64), c.full(update))


def concatenate(c: Context, eqn: Any) -> Value:
    """Joined along an axis."""
    return c.add("Concat", *(c.full(var) for var in eqn.invars), axis=int(eqn.params["dimension"]))


def stack(c: Context, eqn: Any) -> Value:
    """Joined along a new axis."""
    axis, shape = int(eqn.params["axis"]), [*eqn.outvars[0].aval.shape]
    shape[axis] = 1
    return c.add("Concat", *(c.reshape(c.full(var), shape) for var in eqn.invars), axis=axis)


def split(c: Context, eqn: Any) -> list[Value]:
    """Cut along an axis."""
    sizes = np.array(eqn.params["sizes"], np.int64)
    x = c.full(eqn.invars[0])
    return [*c.b.add_many("Split", x, sizes, count=len(sizes), axis=int(eqn.params["axis"]))]


def pad(c: Context, eqn: Any) -> Value:
    """Values around the data; amounts below 0 cut."""
    config = [(int(low), int(high), int(inner)) for low, high, inner in eqn.params["padding_config"]]
    value = c.known(eqn.invars[1])
    if any(inner for _, _, inner in config) or value is None:
        raise refuse(eqn, "padding between elements, or with a computed value,")
    shape = eqn.invars[0].aval.shape
    cuts = [
        (axis, max(-low, 0), shape[axis] - max(-high, 0), 1)
        for axis, (low, high, _) in enumerate(config)
        if min(low, high) < 0
    ]
    x = _slice(c, c.full(eqn.invars[0]), cuts)
    amounts = [max(low, 0) for low, _, _ in config] + [max(high, 0) for _, high, _ in config]
    return c.add("Pad", x, np.array(amounts, np.int64), value.reshape(())) if any(amounts) else x


def tile(c: Context, eqn: Any) -> Value:
    """Repeated."""
    return c.add("Tile", c.full(eqn.invars[0]), np.array(eqn.params["reps"], np.int64))


def gather(c: Context, eqn: Any) -> Value:
    """Whole slices by their places in some axes, as embeddings and integer indices give."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    var, index_var = eqn.invars
    axes = list(numbers.start_index_map)
    shape = var.aval.shape
    whole = all(sizes[i] == (1 if i in axes else shape[i]) for i in range(len(shape)))
    if numbers.operand_batching_dims or sorted(axes) != sorted(numbers.collapsed_slice_dims) or not whole:
        raise refuse(eqn, "this form of indices")
    limits = np.array([shape[axis] - 1 for axis in axes], np.int64)
    places = c.cast(c.full(index_var), np.int64)
    places = c.add("Min", c.add("Max", places, np.array(0)), limits)  # outside is not defined
    batch = index_var.aval.ndim - 1
    rest = [i for i in range(len(shape)) if i not in axes]
    if len(axes) == 1:
        dims = index_var.aval.shape[:-1]
        y: Value = c.add("Gather", c.full(var), c.reshape(places, dims), axis=axes[0])
        order = [
            *range(axes[0], axes[0] + batch),
            *range(axes[0]),
            *range(axes[0] + batch, batch + len(rest)),
        ]
        y = c.transpose(y, order)
    else:
        y = c.add("GatherND", c.transpose(c.full(var), [*axes, *rest]), places)
    offsets = list(numbers.offset_dims)
    target = [i for i in range(batch + len(rest)) if i not in offsets] + offsets
    return c.transpose(y, [int(i) for i in np.argsort(target)])


def scatter(reduction: str) -> Rule:
    """The rule of slices of the first axes that are replaced, or added to."""

    def rule(c: Context, eqn: Any) -> Value:
        numbers = eqn.params["dimension_numbers"]
        var, index_var, update = eqn.invars
        axes = list(numbers.scatter_dims_to_operand_dims)
        batch = index_var.aval.ndim - 1
        windows = list(numbers.update_window_dims)
        in_order = axes == list(range(len(axes))) == list(numbers.inserted_window_dims)
        if not in_order or windows != list(range(batch, update.aval.ndim)):
            raise refuse(eqn, "this form of indices")
        places = c.cast(c.full(index_var), np.int64)
        return c.add("ScatterND", c.full(var), places, c.full(update), reduction=reduction)

    return rule


def sort(c: Context, eqn: Any) -> list[Value]:
    """Ascending by the first operand."""
    p = eqn.params
    if p["num_keys"] != 1:
        raise refuse(eqn, "sorting by several keys")
    axis = int(p["dimension"])
    count = np.array([eqn.invars[0].aval.shape[axis]], np.int64)
    values, places = c.b.add_many("TopK", c.full(eqn.invars[0]), count, count=2, axis=axis, largest=0)
    others = [c.add("GatherElements", c.full(var), places, axis=axis) for var in eqn.invars[1:]]
    return [values, *others]


def top_k(c: Context, eqn: Any) -> list[Value]:
    """The largest values and their places."""
    count = np.array([eqn.params["k"]], np.int64)
    axis = int(eqn.params.get("axis", -1))
    values, places = c.b.add_many("TopK", c.full(eqn.invars[0]), count, count=2, axis=axis)
    return [values, c.cast(places, eqn.outvars[1].aval.dtype)]


RULES: dict[str, Rule] = {
    "broadcast_in_dim": broadcast,
    "concatenate": concatenate,
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    "pad": pad,
    "reshape": reshape,
    "rev": reverse,
    "scatter": scatter("none"),
    "scatter-add": scatter("add"),
    "scatter_add": scatter("add"),
    "slice": slice_,
    "sort": sort,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "top_k": top_k,
    "transpose": transpose,
}
