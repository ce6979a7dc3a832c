"""Primitives that multiply and sum: products, convolutions, windows and reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_ipu.frontends.jax.context import Context, Rule, Value, refuse


def dot_general(c: Context, eqn: Any) -> Value:
    """A product of tensors as one of matrices: batch dimensions, rows and columns as JAX orders them."""
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left, right = eqn.invars
    rows = _others(left.aval.ndim, left_sum, left_batch)
    columns = _others(right.aval.ndim, right_sum, right_batch)
    dtype = eqn.outvars[0].aval.dtype
    x, y = (c.cast(c.full(var), dtype) for var in eqn.invars)
    batch = [left.aval.shape[i] for i in left_batch]
    depth = math.prod(left.aval.shape[i] for i in left_sum)
    row_dims, column_dims = [left.aval.shape[i] for i in rows], [right.aval.shape[i] for i in columns]
    x = c.transpose(x, [*left_batch, *rows, *left_sum])
    y = c.transpose(y, [*right_batch, *right_sum, *columns])
    flat = row_dims if row_dims and not batch else [math.prod(row_dims)]
    x = c.reshape(x, [*batch, *flat, depth])
    y = c.reshape(y, [*batch, depth, math.prod(column_dims)])
    return c.reshape(c.add("MatMul", x, y), [*batch, *row_dims, *column_dims])


def _others(rank: int, *taken: Sequence[int]) -> list[int]:
    return [i for i in range(rank) if all(i not in axes for axes in taken)]


def convolution(c: Context, eqn: Any) -> Value:
    """Of any layout; with a dilated input it is a transposed one."""
    p = eqn.params
    numbers = p["dimension_numbers"]
    if p["batch_group_count"] != 1:
        raise refuse(eqn, "batch_group_count")
    dtype = eqn.outvars[0].aval.dtype
    x = c.transpose(c.cast(c.full(eqn.invars[0]), dtype), numbers.lhs_spec)
    weight = c.transpose(c.cast(c.full(eqn.invars[1]), dtype), numbers.rhs_spec)
    pads = [(int(low), int(high)) for low, high in p["padding"]]
    groups, dilations = int(p["feature_group_count"]), [int(d) for d in p["rhs_dilation"]]
    if all(d == 1 for d in p["lhs_dilation"]):
        x, pads = _crop(c, x, pads)
        y: Value = c.add(
            "Conv", x, weight, group=groups, dilations=dilations,
            strides=[int(s) for s in p["window_strides"]],
            pads=[low for low, _ in pads] + [high for _, high in pads],
        )  # fmt: skip
    else:
        y = _transposed(c, eqn, x, weight, pads, groups, dilations)
    back = np.argsort(numbers.out_spec)
    return c.transpose(y, [int(i) for i in back])


def _crop(c: Context, x: Value, pads: list[tuple[int, int]]) -> tuple[Value, list[tuple[int, int]]]:
    """The input without what pads below 0 take away, and the other pads."""
    if min(min(pair) for pair in pads) >= 0:
        return x, pads
    size, axes = c.shape(x)[2:], np.arange(2, 2 + len(pads))
    starts = np.array([max(-low, 0) for low, _ in pads])
    ends = np.array([dim - max(-high, 0) for dim, (_, high) in zip(size, pads, strict=True)])
    return c.add("Slice", x, starts, ends, axes), [(max(low, 0), max(high, 0)) for low, high in pads]


def _transposed(
    c: Context,
    eqn: Any,
    x: Value,
    weight: Value,
    pads: list[tuple[int, int]],
    groups: int,
    dilations: list[int],
) -> Value:
    """A convolution of a dilated input: the transposed one with the kernel turned round."""
    shape = c.shape(weight)
    spatial = range(2, len(shape))
    if any(s != 1 for s in eqn.params["window_strides"]):
        raise refuse(eqn, "a dilated input with strides")
    if isinstance(weight, np.ndarray):
        weight = np.flip(weight, tuple(spatial))
    else:
        last, far, axes = [-1] * len(spatial), [np.iinfo(np.int64).min] * len(spatial), np.array(spatial)
        weight = c.add("Slice", weight, np.array(last), np.array(far), axes, np.array(last))
    split = c.reshape(weight, [groups, shape[0] // groups, *shape[1:]])
    swapped = c.transpose(split, [0, 2, 1, *range(3, len(shape) + 1)])
    turned = c.reshape(swapped, [groups * shape[1], shape[0] // groups, *shape[2:]])
    reach = [d * (k - 1) for d, k in zip(dilations, shape[2:], strict=True)]
    begin = [r - low for r, (low, _) in zip(reach, pads, strict=True)]
    end = [r - high for r, (_, high) in zip(reach, pads, strict=True)]
    more = [max(-e, 0) for e in end]
    if min(begin) < 0:
        raise refuse(eqn, "a dilated input with more padding than the kernel reaches")
    return c.add(
        "ConvTranspose", x, turned, group=groups, dilations=dilations, output_padding=more,
        strides=[int(d) for d in eqn.params["lhs_dilation"]], pads=[*begin, *(max(e, 0) for e in end)],
    )  # fmt: skip


def pool(op_type: str) -> Rule:
    """The rule of a maximum, minimum or sum over windows; windows of one are batch or channels."""

    def rule(c: Context, eqn: Any) -> Value:
        p, var = eqn.params, eqn.invars[0]
        rank, shape = var.aval.ndim, var.aval.shape
        if any(d != 1 for d in p["base_dilation"]):
            raise refuse(eqn, "a dilated input")
        sizes = list(zip(p["window_dimensions"], p["window_strides"], p["padding"], strict=True))
        moving = [i for i, (w, s, pads) in enumerate(sizes) if w != 1 or s != 1 or any(pads)]
        if not moving:
            return c.lazy(var)
        outer = [i for i in range(rank) if i not in moving]
        x = c.transpose(c.full(var), [*outer, *moving])
        if len(outer) != 2:
            x = c.reshape(x, [1, math.prod(shape[i] for i in outer), *(shape[i] for i in moving)])
        y = _windows(
            c, x, op_type, [sizes[i] for i in moving], [int(p["window_dilation"][i]) for i in moving]
        )
        if len(outer) != 2:
            y = c.reshape(y, [*(shape[i] for i in outer), *c.shape(y)[2:]])
        return c.transpose(y, [int(i) for i in np.argsort([*outer, *moving])])

    return rule


def _windows(c: Context, x: Value, op_type: str, sizes: list[Any], dilations: list[int]) -> Value:
    kernel = [int(w) for w, _, _ in sizes]
    pads = [int(pads[0]) for _, _, pads in sizes] + [int(pads[1]) for _, _, pads in sizes]
    attributes = {"kernel_shape": kernel, "strides": [int(s) for _, s, _ in sizes], "dilations": dilations}
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        raise_to = {"Max": -np.inf, "Min": np.inf, "Sum": 0}[op_type]
        front = [0, 0]
        middle = len(kernel)
        amounts = np.array([*front, *pads[:middle], *front, *pads[middle:]], np.int64)
        x, pads = c.add("Pad", x, amounts, np.asarray(raise_to, np.float32)), [0] * len(pads)
    if op_type == "Sum":
        mean = c.add("AveragePool", x, pads=pads, count_include_pad=1, **attributes)
        return c.add("Mul", mean, np.asarray(math.prod(kernel), np.float32))
    if op_type == "Min":
        return c.add("Neg", c.add("MaxPool", c.add("Neg", x), pads=pads, **attributes))
    return c.add("MaxPool", x, pads=pads, **attributes)


def reduce(op_type: str) -> Rule:
    """The rule of a sum, maximum, minimum or product over axes."""

    def rule(c: Context, eqn: Any) -> Value:
        axes = np.array(eqn.params["axes"], np.int64)
        x = c.full(eqn.invars[0])
        return c.add(op_type, x, axes, keepdims=0) if axes.size else x

    return rule


def reduce_truth(op_type: str) -> Rule:
    """The rule of all or any: least or largest of 0 and 1."""

    def rule(c: Context, eqn: Any) -> Value:
        numbers = c.cast(c.full(eqn.invars[0]), np.int32)
        axes = np.array(eqn.params["axes"], np.int64)
        return c.cast(c.add(op_type, numbers, axes, keepdims=0), np.bool_)

    return rule


def arg_extreme(op_type: str) -> Rule:
    """The rule of the place of the largest or smallest value."""

    def rule(c: Context, eqn: Any) -> Value:
        (axis,) = eqn.params["axes"]
        x, kind = c.full(eqn.invars[0]), eqn.invars[0].aval.dtype.kind
        place = c.add(op_type, c.cast(x, np.int32) if kind == "b" else x, axis=int(axis), keepdims=0)
        return c.cast(place, eqn.params["index_dtype"])

    return rule


def cumulative_sum(c: Context, eqn: Any) -> Value:
    """Sums of all that came before."""
    axis = np.asarray(eqn.params["axis"], np.int64)
    return c.add("CumSum", c.full(eqn.invars[0]), axis, reverse=int(eqn.params["reverse"]))


RULES: dict[str, Rule] = {
    "argmax": arg_extreme("ArgMax"),
    "argmin": arg_extreme("ArgMin"),
    "conv_general_dilated": convolution,
    "cumsum": cumulative_sum,
    "dot_general": dot_general,
    "reduce_and": reduce_truth("ReduceMin"),
    "reduce_max": reduce("ReduceMax"),
    "reduce_min": reduce("ReduceMin"),
    "reduce_or": reduce_truth("ReduceMax"),
    "reduce_prod": reduce("ReduceProd"),
    "reduce_sum": reduce("ReduceSum"),
    "reduce_window_max": pool("Max"),
    "reduce_window_min": pool("Min"),
    "reduce_window_sum": pool("Sum"),
}
