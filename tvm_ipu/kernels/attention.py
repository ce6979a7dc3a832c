"""What the attention template computes, as tensor expressions: ``softmax(f(q @ k.T)) @ v``.

The blocks of the scores and of softmax are marked as parts; the last one, the context, names the template.
Between the scores and softmax lie the blocks of ``f``: elementwise operations such as scale and mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from tvm_ipu.kernels.computes import TEMPLATE, shape_of
from tvm_ipu.kernels.dot import accumulator

PART = "tvm_ipu.part"
"""Block attribute of a block that a template computes before the one that names it."""

AXES = "tvm_ipu.axes"
"""Block attribute of the context: the four fields of ``Axes``, one after the other."""


@dataclass(frozen=True)
class Axes:
    """How queries, keys, values and the result are stored.

    Each is a permutation: dimension ``i`` of ``[..., rows, elements]`` is dimension ``axes[i]`` of the stored
    tensor; elements come last in memory.
    """

    query: tuple[int, ...]
    key: tuple[int, ...]
    value: tuple[int, ...]
    result: tuple[int, ...]

    def flat(self) -> list[int]:
        """All four, to be an attribute."""
        return [*self.query, *self.key, *self.value, *self.result]

    @staticmethod
    def read(flat: Sequence[Any]) -> Axes:
        """From what ``flat`` gave."""
        values = [int(value) for value in flat]
        rank = len(values) // 4
        query, key, value, result = (tuple(values[i * rank : (i + 1) * rank]) for i in range(4))
        return Axes(query, key, value, result)


def attention(
    q: te.Tensor,
    k: te.Tensor,
    v: te.Tensor,
    axes: Axes,
    transform: Callable[[te.Tensor], te.Tensor],
    dtype: str = "float32",
) -> te.Tensor:
    """Scaled dot-product attention of any number of heads.

    Args:
        q: Queries ``[..., queries, depth]``, permuted by ``axes.query``.
        k: Keys ``[..., keys, depth]``, permuted; leading dimensions of 1 are shared.
        v: Values ``[..., keys, width]``, permuted likewise.
        axes: How the tensors are stored.
        transform: What is done to the scores ``[..., queries, keys]``, element by element, before softmax; it
            makes floats of the sums of 8-bit operands.
        dtype: Type to which the weights are rounded before they meet the values.

    Returns:
        ``[..., queries, width]``, permuted by ``axes.result``.
    """
    *batch, queries, depth = (shape_of(q)[axis] for axis in axes.query)
    keys, width = (shape_of(v)[axis] for axis in axes.value[-2:])
    work = accumulator(str(q.dtype))
    rows = (*batch, queries)
    over = [te.reduce_axis((0, size), name) for size, name in ((depth, "d"), (keys, "k"), (keys, "j"))]
    last = te.reduce_axis((0, keys), "i")

    def score(*at: Any) -> Any:
        *row, key = at
        left = q[_stored(axes.query, (*row, over[0]), q)]
        right = k[_stored(axes.key, (*row[:-1], key, over[0]), k)]
        return te.sum(left.astype(work) * right.astype(work), axis=over[0])

    def part(name: str) -> dict[str, str]:
        return {PART: name}

    scores = te.compute((*rows, keys), score, name="scores", attrs=part("scores"))
    x = transform(scores)
    peak = te.compute(
        rows, lambda *at: te.max(x[(*at, over[1])], axis=over[1]), name="peak", attrs=part("peak")
    )
    power = te.compute(
        (*rows, keys), lambda *at: tirx.exp(x(*at) - peak(*at[:-1])), name="power", attrs=part("power")
    )
    total = te.compute(
        rows, lambda *at: te.sum(power[(*at, over[2])], axis=over[2]), name="total", attrs=part("total")
    )
    weights = te.compute(
        (*rows, keys),
        lambda *at: (power(*at) / total(*at[:-1])).astype(dtype),
        name="weights",
        attrs=part("weights"),
    )

    def context(*stored: Any) -> Any:
        *row, element = (stored[axis] for axis in axes.result)
        value = v[_stored(axes.value, (*row[:-1], last, element), v)]
        result = accumulator(dtype)
        return te.sum(weights[(*row, last)].astype(result) * value.astype(result), axis=last)

    shape = [0] * len(axes.result)
    for size, axis in zip((*rows, width), axes.result, strict=True):
        shape[axis] = size
    attrs = {TEMPLATE: "attention", AXES: axes.flat()}
    return te.compute(tuple(shape), context, name="attention", attrs=attrs)


def where(condition: te.Tensor, x: te.Tensor | tirx.Expr, y: te.Tensor | tirx.Expr) -> te.Tensor:
    """Elements of ``x`` or of ``y``, which broadcast as numpy's do; either may be a number."""
    tensors = [value for value in (condition, x, y) if isinstance(value, te.Tensor)]
    shape = np.broadcast_shapes(*map(shape_of, tensors))

    def at(value: te.Tensor | tirx.Expr, index: Sequence[Any]) -> Any:
        if not isinstance(value, te.Tensor):
            return value
        own = shape_of(value)
        tail = index[len(index) - len(own) :]
        return value(*(0 if size == 1 else i for size, i in zip(own, tail, strict=True)))

    return te.compute(shape, lambda *i: tirx.Select(at(condition, i) != 0, at(x, i), at(y, i)), name="where")


def _stored(axes: Sequence[int], at: Sequence[Any], tensor: te.Tensor) -> tuple[Any, ...]:
    """Index of a stored tensor from an index of the one it is a permutation of."""
    index: list[Any] = [0] * len(at)
    for axis, own in zip(axes, at, strict=True):
        index[axis] = own
    leading = set(axes[:-2])
    return tuple(
        0 if size == 1 and axis in leading else own
        for axis, (size, own) in enumerate(zip(shape_of(tensor), index, strict=True))
    )
