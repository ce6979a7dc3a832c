"""Work of one ONNX node: multiply-accumulates and arithmetic operations, from its shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm_ipu.frontends.onnx.graph import Const, Op, Tensor, attributes

Shapes = list[tuple[int, ...]]
"""Shapes of the inputs or outputs; ``()`` for a missing one."""


@dataclass(frozen=True)
class Cost:
    """Work of a node.

    Attributes:
        macs: Multiply-accumulates of a convolution, matrix product or recurrent cell.
        flops: Arithmetic operations, two for each multiply-accumulate. Other operators count one for each
            output element; pooling and reductions one for each element they read; normalisations, softmax and
            the like ``PER_ELEMENT``; operators that only move data none.
    """

    macs: int
    flops: int


PER_ELEMENT = {
    "BatchNormalization": 2,
    "GroupNormalization": 8,
    "InstanceNormalization": 8,
    "LayerNormalization": 8,
    "LogSoftmax": 5,
    "MeanVarianceNormalization": 6,
    "RMSNormalization": 5,
    "Softmax": 5,
}
"""Operations for each output element: mean, variance, difference, scale ... one each."""

_MOVES = frozenset(
    [
        "Cast",
        "CastLike",
        "Concat",
        "ConstantOfShape",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "OneHot",
        "Pad",
        "Range",
        "Reshape",
        "ReverseSequence",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Size",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
        "EyeLike",
        "NonZero",
        "Compress",
        "Unique",
        "Dropout",
    ]
)
"""Operators without arithmetic."""


def node_cost(op: Op) -> Cost | None:
    """The node's work, or None where a shape is not known."""
    values = [*op.inputs, *op.outputs]
    if any(isinstance(v, Tensor | Const) and v.shape is None for v in values):
        return None
    inputs = [v.shape or () if v else () for v in op.inputs]
    outputs = [t.shape or () if t else () for t in op.outputs]
    kind = op.node.op_type
    if kind in _MACS:
        macs = _MACS[kind](op, inputs, outputs)
        bias = sum(math.prod(s) for s in outputs[:1]) if _has_bias(op) else 0
        return Cost(macs, 2 * macs + bias)
    if kind in _MOVES:
        return Cost(0, 0)
    elements = math.prod(outputs[0]) if outputs else 0
    if kind.startswith(("Reduce", "Arg", "Global", "CumSum")):
        return Cost(0, math.prod(inputs[0]))
    if kind in ("MaxPool", "AveragePool", "LpPool"):
        return Cost(0, elements * math.prod(attributes(op.node)["kernel_shape"]))
    if kind in ("Sum", "Mean", "Max", "Min"):
        return Cost(0, elements * max(len(inputs) - 1, 1))
    return Cost(0, elements * PER_ELEMENT.get(kind, 1))


def _has_bias(op: Op) -> bool:
    return (
        op.node.op_type in ("Conv", "ConvTranspose", "Gemm")
        and len(op.inputs) > 2
        and op.inputs[2] is not None
    )


def _conv(weight: int) -> Callable[[Op, Shapes, Shapes], int]:
    """A convolution whose weight [O,I/g,...] is input ``weight``."""
    return lambda op, inputs, outputs: math.prod(outputs[0]) * math.prod(inputs[weight][1:])


def _conv_transpose(op: Op, inputs: Shapes, outputs: Shapes) -> int:
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _gemm(op: Op, inputs: Shapes, outputs: Shapes) -> int:
    inner = inputs[0][0] if attributes(op.node).get("transA", 0) else inputs[0][1]
    return math.prod(outputs[0]) * inner


def _matmul(op: Op, inputs: Shapes, outputs: Shapes) -> int:
    return math.prod(outputs[0]) * inputs[0][-1]


def _einsum(op: Op, inputs: Shapes, outputs: Shapes) -> int:
    """One for each combination of all labels; ``...`` counts as the broadcast dimensions."""
    terms = attributes(op.node)["equation"].replace(" ", "").split("->")[0].split(",")
    extents: dict[str, int] = {}
    broadcast = 1
    for term, shape in zip(terms, inputs, strict=True):
        head, _, tail = term.partition("...")
        middle = shape[len(head) : len(shape) - len(tail)] if "..." in term else ()
        broadcast = max(broadcast, math.prod(middle))
        extents |= zip(head + tail, shape[: len(head)] + shape[len(shape) - len(tail) :], strict=True)
    return math.prod(extents.values()) * broadcast


def _recurrent(op: Op, inputs: Shapes, outputs: Shapes) -> int:
    """LSTM, GRU, RNN: both products of each gate, for each step, sequence and direction."""
    steps, batch = (inputs[0][1], inputs[0][0]) if attributes(op.node).get("layout", 0) else inputs[0][:2]
    return steps * batch * (math.prod(inputs[1]) + math.prod(inputs[2]))


def _attention(op: Op, inputs: Shapes, outputs: Shapes) -> int:
    """Queries by keys, and their weights by the values, where keys are as many as the result's says."""
    query, key, value = inputs[:3]
    heads: int = attributes(op.node).get("q_num_heads", 1)
    if len(query) == 4:
        return math.prod(query[:3]) * key[2] * (query[3] + value[3])
    kv_heads = attributes(op.node).get("kv_num_heads", heads)
    depth = query[2] + heads * (value[2] // int(kv_heads))
    return query[0] * query[1] * key[1] * depth


_MACS: dict[str, Callable[[Op, Shapes, Shapes], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "DeformConv": _conv(1),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
}
