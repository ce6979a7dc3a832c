"""Bits of the quantised weights of an ONNX model, as the model says and not as its numbers would fit."""

from __future__ import annotations

import ml_dtypes

from tvm_ipu.frontends.onnx.graph import Array, node_label
from tvm_ipu.frontends.onnx.load import read_source
from tvm_ipu.frontends.options import OnnxSource

_WEIGHT = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
}
"""Products -> place of the weight among their inputs."""

_MOVES = ("DequantizeLinear", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze")
"""What may lie between a weight and its product."""


def weight_bits(source: OnnxSource) -> dict[str, int]:
    """Bits of integer weights by the name of the product that reads them; other products are left out.

    Raises:
        ModelError: The model cannot be read.
    """
    read = read_source(source)
    before = {node.output[0]: node.input[0] for node in read.graph.node if node.op_type in _MOVES}
    found = {}
    for node in read.graph.node:
        place = _WEIGHT.get(node.op_type, len(node.input))
        name = node.input[place] if place < len(node.input) else ""
        while name in before:
            name = before[name]
        bits = _bits(read.weights.get(name))
        if bits:
            found[node_label(node)] = bits
    return found


def _bits(weight: Array | None) -> int:
    """Bits of an element; 0 of what are no integers, or no weight."""
    if weight is None or weight.dtype.kind not in "iuV":
        return 0
    try:
        return int(ml_dtypes.iinfo(weight.dtype).bits)
    except ValueError:
        return 0
