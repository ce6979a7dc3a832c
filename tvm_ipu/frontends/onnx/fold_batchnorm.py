"""Fold BatchNormalization into the convolution before it.

    Conv(x, W, b), BatchNormalization(scale, bias, mean, var)    ->    Conv(x, W * k, (b - mean) * k + bias)

with k = scale / sqrt(var + epsilon), where all of it is constant and nothing else reads the convolution.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from onnx import NodeProto

from tvm_ipu.frontends.onnx.graph import Array, Const, Graph, Op, Tensor, attributes


def fold_batchnorm(graph: Graph) -> Graph:
    """The graph with every such pair as one convolution."""
    readers = Counter(id(v) for op in graph.ops for v in op.inputs)
    readers.update(id(v) for _, v in graph.outputs)
    producers = {id(op.outputs[0]): i for i, op in enumerate(graph.ops)}
    ops: list[Op | None] = list(graph.ops)
    for i, norm in enumerate(graph.ops):
        if norm.node.op_type != "BatchNormalization" or len([t for t in norm.outputs if t]) != 1:
            continue
        source = producers.get(id(norm.inputs[0]))
        conv = None if source is None else ops[source]
        if source is not None and conv is not None and readers[id(norm.inputs[0])] == 1:
            folded = _fold(conv, norm)
            if folded is not None:
                ops[source], ops[i] = None, folded
                producers[id(folded.outputs[0])] = i
    return replace(graph, ops=tuple(op for op in ops if op is not None))


def _fold(conv: Op, norm: Op) -> Op | None:
    values = [v.array for v in (*conv.inputs[1:], *norm.inputs[1:]) if isinstance(v, Const)]
    if conv.node.op_type not in ("Conv", "ConvTranspose") or len(values) != len(conv.inputs) + 3:
        return None
    weight, bias = values[0], values[1] if len(conv.inputs) == 3 else 0
    scale, shift, mean, variance = (v.astype(np.float64) for v in values[-4:])
    factor = scale / np.sqrt(variance + attributes(norm.node).get("epsilon", 1e-5))
    new_bias = ((bias - mean) * factor + shift).astype(weight.dtype)
    new_weight = _scaled(weight, factor, conv).astype(weight.dtype)
    output = norm.outputs[0]
    if output is None:
        return None
    inputs = (
        conv.inputs[0],
        Const(f"{output.name}/weight", new_weight),
        Const(f"{output.name}/bias", new_bias),
    )
    node = NodeProto()
    node.CopyFrom(conv.node)
    node.input[:] = [v.name for v in inputs if isinstance(v, Const | Tensor)]
    node.output[:] = [output.name]
    return Op(node, conv.version, inputs, (output,))


def _scaled(weight: Array, factor: Array, conv: Op) -> Array:
    """The weight [O,I/g,...] of a Conv or [I,O/g,...] of a ConvTranspose with its output channels scaled."""
    tail = (1,) * (weight.ndim - 2)
    if conv.node.op_type == "Conv":
        return weight * factor.reshape(-1, 1, *tail)
    groups = attributes(conv.node).get("group", 1)
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return (split * factor.reshape(groups, 1, -1, *tail)).reshape(weight.shape)
