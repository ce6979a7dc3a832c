"""From the blocks of an attention to its template's problem."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.attention import AXES, PART, Axes
from tvm_ipu.kernels.epilogue import Epilogue, loaded_buffers
from tvm_ipu.kernels.expressions import dtype_of, shape_of, strides_of
from tvm_ipu.kernels.nests import Nest
from tvm_ipu.kernels.templates import attention


def count_parts(nests: Sequence[Nest]) -> int:
    """How many of the last nests belong to the attention whose context is the last of them."""
    count = 1
    while str(nests[-count].block.annotations.get(PART, "")) != "scores":
        count += 1
    return count


def read_parts(
    parts: Sequence[Nest], epilogue: Epilogue, target: Target
) -> tuple[attention.Problem, Epilogue, list[tirx.Buffer]]:
    """The problem, the steps between scores and softmax, and the kernel's arguments but the epilogue's.

    Args:
        parts: Scores, elementwise steps, softmax and context.
        epilogue: What is done to the context.
        target: Chip to compile for.
    """
    scores, context = parts[0], parts[-1]
    query, key = _operands(scores)
    value = _operands(context)[1]
    steps = [nest.as_step() for nest in parts[1:-1] if PART not in nest.block.annotations]
    before = Epilogue(scores.writes[0], [step for step in steps if step is not None], [])
    axes = Axes.read(context.block.annotations[AXES])
    *batch, queries, keys = shape_of(scores.writes[0])
    problem = attention.Problem(
        batch=tuple(batch),
        queries=queries,
        keys=keys,
        depth=shape_of(query)[axes.query[-1]],
        width=shape_of(value)[axes.value[-1]],
        lanes=target.lanes(32),
        query=_matrices(query, axes.query),
        key=_matrices(key, axes.key),
        value=_matrices(value, axes.value),
        result=_matrices(epilogue.anchor, axes.result),
        weights=dtype_of(parts[-2].writes[0]),
    )
    return problem, before, [query, key, value, *before.sources]


def _operands(product: Nest) -> list[tirx.Buffer]:
    return [b for b in loaded_buffers(product.block.body.value) if b not in product.writes]


def _matrices(buffer: tirx.Buffer, axes: Sequence[int]) -> attention.Matrices:
    """A stored tensor as matrices, from the permutation that makes ``[..., rows, elements]`` of it."""
    shape = shape_of(buffer)
    strides = [0 if size == 1 else s for s, size in zip(strides_of(shape), shape, strict=True)]
    *batch, row, _ = (strides[axis] for axis in axes)
    return attention.Matrices(tuple(batch), row, math.prod(shape), dtype_of(buffer))
