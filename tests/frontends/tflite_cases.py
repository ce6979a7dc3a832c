"""Operators of TensorFlow Lite, by family; each case is one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.frontends.tflite_kit import Op, Tensor
from tests.ops.op_kit import Array, Const, rand


@dataclass(frozen=True)
class Case:
    """One operator.

    Attributes:
        name: What it is about.
        code: Its name in the schema.
        inputs: Arrays that are inputs of the model, constants, or None for missing ones.
        options: Its options.
        kind: Class of the options; that of the operator's name by default.
        outputs: Types of the results.
        states: Shapes of states, which are inputs behind the others.
    """

    name: str
    code: str
    inputs: Sequence[Array | Const | None]
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    outputs: Sequence[str] = ("float32",)
    states: Sequence[tuple[int, ...]] = ()

    def tensors(self) -> list[Tensor]:
        """Its inputs and outputs."""
        found = []
        for name, value in zip(self.input_names(), self.inputs, strict=False):
            array = value.array if isinstance(value, Const) else value
            if array is not None:
                data = array if isinstance(value, Const) else None
                found.append(Tensor(name, str(array.dtype), array.shape, data))
        for name, shape in zip(self.input_names()[len(self.inputs) :], self.states, strict=True):
            found.append(Tensor(name, "float32", shape, is_variable=True))
        return found + [Tensor(n, t) for n, t in zip(self.output_names(), self.outputs, strict=True)]

    def input_names(self) -> list[str]:
        """Names of its inputs; '' for missing ones."""
        names = ["" if x is None else f"{self.name}/x{i}" for i, x in enumerate(self.inputs)]
        return names + [f"{self.name}/state{i}" for i in range(len(self.states))]

    def output_names(self) -> list[str]:
        """Names of its outputs."""
        return [f"{self.name}/y{i}" for i in range(len(self.outputs))]

    def op(self) -> Op:
        """The operator."""
        kind = self.kind or (self.code.title().replace("_", "") + "Options" if self.options else "")
        return Op(self.code, self.input_names(), self.output_names(), kind, self.options)

    def feeds(self) -> dict[str, Array]:
        """What the model is given."""
        named = zip(self.input_names(), self.inputs, strict=False)
        return {name: x for name, x in named if isinstance(x, np.ndarray)}


def ints(*shape: int, low: int = -9, high: int = 10, dtype: str = "int32") -> Array:
    """Random whole numbers, ``high`` excluded."""
    return np.random.default_rng(shape).integers(low, high, shape).astype(dtype)


def const(values: Any, dtype: str = "int32") -> Const:
    """A constant input."""
    return Const(np.asarray(values, dtype))


def _weights(*shape: int) -> Const:
    return Const(rand(*shape, low=-0.5, high=0.5))


SAME, VALID = 0, 1
RELU, RELU_N1, RELU6, TANH = 1, 2, 3, 4
X4 = rand(2, 7, 6, 4)


def _conv(stride: int, dilation: int, padding: int, activation: int = 0, **more: int) -> dict[str, int]:
    return {
        "Padding": padding,
        "StrideH": stride,
        "StrideW": 1,
        "DilationHFactor": dilation,
        "DilationWFactor": 1,
        "FusedActivationFunction": activation,
        **more,
    }


def _pool(code: str, padding: int, activation: int = 0) -> Case:
    options = {"Padding": padding, "StrideH": 2, "StrideW": 1, "FilterHeight": 3, "FilterWidth": 2}
    name = f"{code.lower()}-{padding}"
    return Case(name, code, [X4], {**options, "FusedActivationFunction": activation}, "Pool2DOptions")


CONVOLUTIONS = [
    Case(
        "conv-same",
        "CONV_2D",
        [X4, _weights(5, 3, 3, 4), _weights(5)],
        _conv(2, 1, SAME, RELU6),
        "Conv2DOptions",
    ),
    Case(
        "conv-valid", "CONV_2D", [X4, _weights(5, 2, 3, 4), _weights(5)], _conv(1, 2, VALID), "Conv2DOptions"
    ),
    Case(
        "conv-group",
        "CONV_2D",
        [X4, _weights(6, 3, 3, 2), _weights(6)],
        _conv(1, 1, SAME, RELU),
        "Conv2DOptions",
    ),
    Case(
        "depthwise",
        "DEPTHWISE_CONV_2D",
        [X4, _weights(1, 3, 3, 4), _weights(4)],
        _conv(1, 1, SAME, RELU_N1, DepthMultiplier=1),
        "DepthwiseConv2DOptions",
    ),
    Case(
        "depthwise-multiplied",
        "DEPTHWISE_CONV_2D",
        [X4, _weights(1, 3, 3, 8), _weights(8)],
        _conv(1, 2, VALID, DepthMultiplier=2),
        "DepthwiseConv2DOptions",
    ),
    Case(
        "transposed-same",
        "TRANSPOSE_CONV",
        [const([2, 13, 6, 5]), _weights(5, 3, 3, 4), X4, _weights(5)],
        {"Padding": SAME, "StrideH": 2, "StrideW": 1},
    ),
    Case(
        "transposed-valid",
        "TRANSPOSE_CONV",
        [const([2, 15, 12, 3]), _weights(3, 3, 2, 4), X4],
        {"Padding": VALID, "StrideH": 2, "StrideW": 2},
    ),
    Case(
        "dense",
        "FULLY_CONNECTED",
        [rand(3, 8), _weights(5, 8), _weights(5)],
        {"FusedActivationFunction": RELU},
    ),
    Case("dense-kept", "FULLY_CONNECTED", [rand(2, 3, 8), _weights(5, 8), None], {"KeepNumDims": True}),
    Case("dense-flat", "FULLY_CONNECTED", [rand(2, 4, 2), _weights(5, 8), None], {"KeepNumDims": False}),
    Case("matmul", "BATCH_MATMUL", [rand(2, 3, 4), rand(2, 4, 5)], {"AdjX": False}, "BatchMatMulOptions"),
    Case(
        "matmul-turned",
        "BATCH_MATMUL",
        [rand(2, 4, 3), rand(2, 5, 4)],
        {"AdjX": True, "AdjY": True},
        "BatchMatMulOptions",
    ),
    _pool("AVERAGE_POOL_2D", SAME, RELU),
    _pool("AVERAGE_POOL_2D", VALID),
    _pool("MAX_POOL_2D", SAME),
    _pool("MAX_POOL_2D", VALID, RELU6),
    _pool("L2_POOL_2D", VALID),
]

_UNARY = {
    "ABS": X4,
    "CEIL": X4,
    "COS": X4,
    "ELU": X4,
    "EXP": X4,
    "FLOOR": X4,
    "HARD_SWISH": rand(2, 5, low=-5, high=5),
    "LOG": rand(2, 5, low=0.1, high=4),
    "LOGISTIC": X4,
    "NEG": X4,
    "RELU": X4,
    "RELU6": rand(2, 5, low=-4, high=9),
    "RELU_N1_TO_1": X4,
    "ROUND": np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.2]),
    "RSQRT": rand(2, 5, low=0.1, high=4),
    "SIN": X4,
    "SQRT": rand(2, 5, low=0.1, high=4),
    "SQUARE": X4,
    "TANH": X4,
    "ZEROS_LIKE": X4,
    "LOG_SOFTMAX": rand(3, 7),
}
_A, _B = rand(2, 3, 4), rand(2, 1, 4, low=0.5, high=2.5)
_I, _J = ints(2, 3, 4), ints(2, 3, 4, low=1)
_T, _F = ints(2, 3, low=0, high=2).astype(bool), ints(3, 2, low=0, high=2).astype(bool).T.copy()

ELEMENTWISE = [
    *(Case(code.lower(), code, [x]) for code, x in _UNARY.items()),
    *(Case(code.lower(), code, [_A, _B]) for code in ("FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM")),
    *(
        Case(code.lower(), code, [_A, _B], {"FusedActivationFunction": RELU_N1})
        for code in ("ADD", "DIV", "MUL", "SUB")
    ),
    *(
        Case(code.lower(), code, [_A, _B], outputs=["bool"])
        for code in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")
    ),
    Case("add-ints", "ADD", [_I, _J], {"FusedActivationFunction": 0}, outputs=["int32"]),
    Case("floor-div-ints", "FLOOR_DIV", [_I, _J], outputs=["int32"]),
    Case("floor-mod-ints", "FLOOR_MOD", [_I, _J], outputs=["int32"]),
    Case("pow", "POW", [rand(2, 3, low=0.2), rand(2, 3)]),
    Case("squared-difference", "SQUARED_DIFFERENCE", [_A, _B]),
    Case("add-n", "ADD_N", [_A, rand(2, 3, 4, low=0), rand(2, 3, 4, high=0)]),
    Case("prelu", "PRELU", [X4, Const(rand(1, 1, 4, low=0, high=0.5))]),
    Case("leaky-relu", "LEAKY_RELU", [X4], {"Alpha": 0.3}),
    Case("gelu", "GELU", [X4], {"Approximate": False}),
    Case("gelu-tanh", "GELU", [X4], {"Approximate": True}),
    Case("and", "LOGICAL_AND", [_T, _F], outputs=["bool"]),
    Case("or", "LOGICAL_OR", [_T, _F], outputs=["bool"]),
    Case("not", "LOGICAL_NOT", [_T], outputs=["bool"]),
    Case("select", "SELECT", [_T, rand(2, 3), rand(2, 3, low=3, high=4)]),
    Case("select-rows", "SELECT", [np.array([True, False]), rand(2, 3), rand(2, 3, low=3, high=4)]),
    Case("select-v2", "SELECT_V2", [_T, rand(2, 3), rand(1, 3)]),
    Case("cast-down", "CAST", [rand(2, 3, low=-9, high=9)], outputs=["int32"]),
    Case("cast-up", "CAST", [_I]),
    Case("fake-quant", "FAKE_QUANT", [rand(3, 5)], {"Min": -1.2, "Max": 1.5, "NumBits": 8}),
]

REDUCTIONS = [
    Case("mean", "MEAN", [X4, const([1, 2])], {"KeepDims": True}, "ReducerOptions"),
    Case("mean-drop", "MEAN", [X4, const([-1])], {"KeepDims": False}, "ReducerOptions"),
    Case("sum", "SUM", [X4, const([0, 2])], {"KeepDims": False}, "ReducerOptions"),
    Case("max", "REDUCE_MAX", [X4, const([2])], {"KeepDims": True}, "ReducerOptions"),
    Case("min", "REDUCE_MIN", [X4, const([3, 1])], {"KeepDims": False}, "ReducerOptions"),
    Case("product", "REDUCE_PROD", [rand(3, 4), const([1])], {"KeepDims": False}, "ReducerOptions"),
    Case("any", "REDUCE_ANY", [_T, const([1])], {"KeepDims": False}, "ReducerOptions", ["bool"]),
    Case("all", "REDUCE_ALL", [_T, const([0])], {"KeepDims": True}, "ReducerOptions", ["bool"]),
    Case("arg-max", "ARG_MAX", [X4, const(-1)], {"OutputType": 2}, outputs=["int32"]),
    Case("arg-min", "ARG_MIN", [X4, const(1)], {"OutputType": 4}, outputs=["int64"]),
    Case("softmax", "SOFTMAX", [rand(3, 7)], {"Beta": 1.0}),
    Case("softmax-beta", "SOFTMAX", [rand(2, 3, 7)], {"Beta": 0.5}),
    Case("l2-norm", "L2_NORMALIZATION", [X4], {"FusedActivationFunction": 0}, "L2NormOptions"),
    Case(
        "lrn",
        "LOCAL_RESPONSE_NORMALIZATION",
        [X4],
        {"Radius": 1, "Bias": 1.0, "Alpha": 0.3, "Beta": 0.6},
    ),
    Case("cumsum", "CUMSUM", [rand(3, 4), const(1)], {"Exclusive": True, "Reverse": False}),
    Case("top-k", "TOPK_V2", [rand(3, 7), const(3)], outputs=["float32", "int32"]),
]

_S = rand(3, 4, 5)


def _strided(name: str, begin: list[int], end: list[int], steps: list[int], **masks: int) -> Case:
    return Case(f"strided-{name}", "STRIDED_SLICE", [_S, const(begin), const(end), const(steps)], masks)


SHAPES = [
    Case("reshape", "RESHAPE", [X4, const([2, -1, 4])]),
    Case("reshape-option", "RESHAPE", [rand(2, 6)], {"NewShape": [3, 4]}),
    Case("squeeze", "SQUEEZE", [rand(1, 3, 1, 2)], {"SqueezeDims": [0]}),
    Case("squeeze-all", "SQUEEZE", [rand(1, 3, 1, 2)], {"SqueezeDims": []}),
    Case("expand", "EXPAND_DIMS", [rand(3, 2), const(-1)]),
    Case("shape", "SHAPE", [X4], {"OutType": 2}, outputs=["int32"]),
    Case("rank", "RANK", [X4], outputs=["int32"]),
    Case("fill", "FILL", [const([2, 3]), Const(np.float32(1.5))]),
    Case("range", "RANGE", [const(1), const(9), const(3)], outputs=["int32"]),
    Case("broadcast", "BROADCAST_TO", [rand(3, 1), const([2, 3, 4])]),
    Case("tile", "TILE", [rand(2, 3), const([2, 2])]),
    Case("transpose", "TRANSPOSE", [_S, const([2, 0, 1])]),
    Case("pack", "PACK", [rand(2, 3), rand(2, 3, low=0)], {"ValuesCount": 2, "Axis": 1}),
    Case("unpack", "UNPACK", [rand(2, 3)], {"Num": 3, "Axis": 1}, outputs=["float32"] * 3),
    Case("concat", "CONCATENATION", [rand(2, 3), rand(2, 1)], {"Axis": -1}),
    Case("split", "SPLIT", [const(1), rand(2, 6)], {"NumSplits": 3}, outputs=["float32"] * 3),
    Case(
        "split-v",
        "SPLIT_V",
        [rand(2, 6), const([1, -1]), const(1)],
        {"NumSplits": 2},
        outputs=["float32"] * 2,
    ),
    Case("pad", "PAD", [X4, const([[0, 0], [1, 2], [0, 1], [0, 0]])]),
    Case("pad-value", "PADV2", [rand(2, 3), const([[1, 0], [0, 2]]), Const(np.float32(-1.5))]),
    Case("reflect", "MIRROR_PAD", [rand(4, 5), const([[1, 2], [0, 3]])], {"Mode": 0}),
    Case("symmetric", "MIRROR_PAD", [rand(4, 5), const([[1, 2], [0, 3]])], {"Mode": 1}),
    Case("space-to-depth", "SPACE_TO_DEPTH", [rand(1, 4, 6, 3)], {"BlockSize": 2}),
    Case("depth-to-space", "DEPTH_TO_SPACE", [rand(1, 2, 3, 12)], {"BlockSize": 2}),
    Case("to-batch", "SPACE_TO_BATCH_ND", [rand(1, 5, 6, 3), const([2, 3]), const([[1, 0], [0, 0]])]),
    Case("to-space", "BATCH_TO_SPACE_ND", [rand(6, 3, 2, 3), const([2, 3]), const([[1, 0], [0, 2]])]),
    Case("reverse", "REVERSE_V2", [_S, const([1])]),
    Case(
        "reverse-sequence",
        "REVERSE_SEQUENCE",
        [rand(3, 4, 2), const([1, 2, 3, 2])],
        {"SeqDim": 0, "BatchDim": 1},
    ),
    Case("slice", "SLICE", [_S, const([1, 0, 2]), const([2, -1, 2])]),
    _strided("plain", [1, 0, 4], [3, 4, 0], [1, 2, -1]),
    _strided("masks", [1, 1, 1], [2, 3, 2], [1, 1, 1], BeginMask=2, EndMask=4),
    _strided("ellipsis", [0, 1], [0, 3], [1, 1], EllipsisMask=1),
    _strided("new-axis", [0, 0, 1], [0, 0, 3], [1, 1, 1], NewAxisMask=1, BeginMask=2, EndMask=2),
    _strided("shrink", [-1, 0, 2], [0, 4, 3], [1, 2, 1], ShrinkAxisMask=5),
    _strided("backwards", [0, 3], [0, 0], [1, -1], BeginMask=1, EndMask=3),
    Case("gather", "GATHER", [_S, const([2, 0])], {"Axis": 1}),
    Case("gather-batch", "GATHER", [_S, ints(3, 2, low=0, high=4)], {"Axis": 1, "BatchDims": 1}),
    Case("gather-nd", "GATHER_ND", [_S, ints(2, 2, low=0, high=3)]),
    Case("embedding", "EMBEDDING_LOOKUP", [ints(4, low=0, high=6), Const(rand(6, 3))]),
    Case(
        "one-hot",
        "ONE_HOT",
        [ints(4, low=0, high=5), const(5), Const(np.float32(2)), Const(np.float32(-1))],
        {"Axis": -1},
    ),
    Case("scatter", "SCATTER_ND", [const([[1], [3], [1]]), rand(3, 2), const([5, 2])]),
]

RESIZES = [
    Case(
        f"{kind}-{size[0]}-{align}{half}",
        f"RESIZE_{code}",
        [rand(1, 5, 6, 3), const(size)],
        {"AlignCorners": bool(align), "HalfPixelCenters": bool(half)},
    )
    for kind, code in (("bilinear", "BILINEAR"), ("nearest", "NEAREST_NEIGHBOR"))
    for size in ([9, 12], [3, 4])
    for align, half in ((0, 0), (1, 0), (0, 1))
]


def _lstm_inputs(data: Array, hidden: int, peephole: bool) -> list[Array | Const | None]:
    width = data.shape[2]
    weights = [Const(rand(hidden, width, low=-0.5, high=0.1 * i)) for i in range(4)]
    recurrent = [Const(rand(hidden, hidden, low=-0.5, high=0.1 * i)) for i in range(4)]
    holes = [Const(rand(hidden, low=0, high=0.1 + 0.1 * i)) if peephole else None for i in range(3)]
    biases = [Const(rand(hidden, low=-0.5, high=0.2 * i)) for i in range(4)]
    return [data, *weights, *recurrent, *holes, *biases, None, None]


_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
_LSTM_OPTIONS = {"FusedActivationFunction": TANH, "CellClip": 10.0, "TimeMajor": False}

RECURRENT = [
    Case(
        "lstm",
        _LSTM,
        _lstm_inputs(rand(2, 5, 3), 4, peephole=False),
        _LSTM_OPTIONS,
        "UnidirectionalSequenceLSTMOptions",
        states=[(2, 4), (2, 4)],
    ),
    Case(
        "lstm-peephole",
        _LSTM,
        _lstm_inputs(rand(5, 2, 3), 4, peephole=True),
        {**_LSTM_OPTIONS, "TimeMajor": True},
        "UnidirectionalSequenceLSTMOptions",
        states=[(2, 4), (2, 4)],
    ),
    Case(
        "rnn",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
        [rand(2, 5, 3), _weights(4, 3), _weights(4, 4), _weights(4)],
        {"FusedActivationFunction": TANH, "TimeMajor": False},
        "SequenceRNNOptions",
        states=[(2, 4)],
    ),
]

FAMILIES = {
    "convolutions": CONVOLUTIONS,
    "elementwise": ELEMENTWISE,
    "reductions": REDUCTIONS,
    "shapes": SHAPES,
    "resizes": RESIZES,
    "recurrent": RECURRENT,
}
