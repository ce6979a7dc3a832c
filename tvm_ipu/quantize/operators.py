"""What calibration knows of ONNX's operators."""

from __future__ import annotations

from tvm_ipu.base.graph import Graph, Node

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Sums of products, the operators that have weights."""

MOVES = frozenset(
    {
        "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
        "GlobalMaxPool", "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMin", "Reshape", "Resize",
        "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample",
    }
)  # fmt: skip
"""Operators whose results hold elements of their first input, or zeros; see ``is_move``."""

UNARY = frozenset(
    {
        "Abs", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
        "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
        "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
"""Functions of each element."""

BINARY = frozenset({"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub"})
"""Functions of each element of several tensors."""

COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
"""Questions about the elements of two tensors."""

CLIPS = frozenset({"Clip", "Relu"})
"""Functions that only narrow the range of what they read."""

REGIONS = frozenset({"MaxRoiPool", "RoiAlign"})
"""Operators whose other inputs are places in the first one, for which 8 bits are too few."""

_UNITS = ("Conv", "ConvTranspose")


def is_move(node: Node) -> bool:
    """Whether the results of a node hold elements of its first input only, or zeros."""
    if node.op_type in ("Resize", "Upsample"):
        return bool(node.attributes.get("mode", "nearest") == "nearest")
    if node.op_type == "Pad":
        return node.attributes.get("mode", "constant") in ("constant", "edge", "reflect")
    return node.op_type in MOVES


def weight_of(node: Node, graph: Graph) -> str:
    """Name of the constant that a product multiplies its first input by; empty where there is none."""
    name = node.inputs[1] if node.op_type in PRODUCTS and len(node.inputs) > 1 else ""
    return name if name in graph.constants else ""


def weight_axis(node: Node, graph: Graph) -> int | None:
    """The axis of a product's weights that runs over its output channels; None where there is none."""
    rank = graph.constants[node.inputs[1]].ndim
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if int(node.attributes.get("group", 1)) == 1 else None
    if node.op_type == "Gemm":
        return 0 if int(node.attributes.get("transB", 0)) else 1
    return rank - 1 if rank > 1 else None


def bias_of(node: Node, graph: Graph) -> str:
    """Name of the constant that a product adds to each output channel; empty where there is none."""
    name = node.inputs[2] if node.op_type in (*_UNITS, "Gemm") and len(node.inputs) > 2 else ""
    return name if name in graph.constants else ""


def is_depthwise(node: Node, graph: Graph) -> bool:
    """Whether a convolution has as many groups as input channels, and more than one."""
    group = int(node.attributes.get("group", 1))
    return node.op_type == "Conv" and group > 1 and graph.constants[node.inputs[1]].shape[1] == 1
