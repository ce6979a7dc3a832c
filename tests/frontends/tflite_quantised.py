"""Quantised operators of TensorFlow Lite, each with scales as its converter makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.frontends.tflite_kit import Op, Tensor, build

Array = np.ndarray

X = Tensor("x", shape=(2, 9, 8, 8), scale=[0.035], zero=[-7])
"""The input of most operators."""


@dataclass(frozen=True)
class Quantised:
    """An operator on integers.

    Attributes:
        code: Its name in the schema.
        steps: Largest difference to LiteRT allowed, in steps of the result.
        more: Inputs behind the first one.
        result: The result's scale and zero point.
        first: The first input.
        kind: Class of its options.
        options: The options.
        dtypes: Types of activations that LiteRT has it for.
        before: Inputs before the first one.
    """

    code: str
    steps: int
    more: Sequence[Tensor] = ()
    result: tuple[float, int] = (0.04, 3)
    first: Tensor = X
    kind: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Sequence[str] = ("int8", "uint8", "int16")
    before: Sequence[Tensor] = ()

    def typed(self, dtype: str) -> list[Tensor]:
        """Its inputs and its result for activations of a type."""
        scale, zero = self.result
        tensors = [*self.before, self.first, *self.more, Tensor("y", "", scale=[scale], zero=[zero])]
        return [_typed(tensor, dtype, self) for tensor in tensors]


def model_of(dtype: str) -> tuple[bytes, dict[str, Array]]:
    """All operators for activations of a type, side by side, and what they are given."""
    tensors, ops = [], []
    for name, case in CASES.items():
        if dtype in case.dtypes:
            own = [replace(tensor, name=f"{name}/{tensor.name}") for tensor in case.typed(dtype)]
            tensors += own
            names = [tensor.name for tensor in own]
            ops.append(Op(case.code, names[:-1], names[-1:], case.kind, case.options))
    results = [op.outputs[0] for op in ops]
    given = [tensor for tensor in tensors if tensor.data is None and tensor.name not in results]
    return build(tensors, ops, [t.name for t in given], results), {t.name: _integers(t) for t in given}


def _typed(tensor: Tensor, dtype: str, case: Quantised) -> Tensor:
    """A tensor whose zero point is that for int8, for another type; weights stay int8, or become uint8."""
    if tensor.name == "bias":
        total = np.float64(X.scale[0] if case.first is X else case.first.scale[0]) * np.float64(_of(case))
        wide = dtype == "int16"
        scale = [float(s) for s in (total / 256 if wide else total)][: 1 if dtype == "uint8" else None]
        data = tensor.data.astype("int64" if wide else "int32") * (256 if wide else 1)
        return replace(tensor, dtype=str(data.dtype), data=data, scale=scale, zero=[0] * len(scale))
    if tensor.name == "weights" and dtype == "uint8":
        data = (tensor.data.astype(np.int16) + 128).astype(np.uint8)
        return replace(tensor, dtype="uint8", data=data, scale=tensor.scale[:1], zero=[128])
    if tensor.name == "weights" or not tensor.scale:
        return tensor
    (scale,), (zero,) = tensor.scale, tensor.zero
    if dtype == "int16":
        return replace(tensor, dtype=dtype, scale=[scale / 256], zero=[0])
    return replace(tensor, dtype=dtype, zero=[zero + (128 if dtype == "uint8" else 0)])


def _of(case: Quantised) -> Array:
    """The scales of an operator's weights."""
    (weights,) = (t for t in (*case.before, *case.more) if t.name == "weights")
    return np.asarray(weights.scale)


def _integers(tensor: Tensor) -> Array:
    info = np.iinfo(tensor.dtype)
    random = np.random.default_rng(len(tensor.name))
    return random.integers(info.min, info.max + 1, tensor.shape).astype(tensor.dtype)


_RANDOM = np.random.default_rng(0)


def _weights(shape: Sequence[int], axis: int) -> Tensor:
    data = _RANDOM.integers(-127, 128, shape).astype(np.int8)
    scale = [float(s) for s in _RANDOM.uniform(0.002, 0.01, shape[axis])]
    return Tensor("weights", "int8", shape, data, scale, [0] * len(scale), axis)


def _bias(count: int) -> Tensor:
    return Tensor("bias", "int32", (count,), _RANDOM.integers(-3000, 3000, count).astype(np.int32))


def _numbers(name: str, values: Any) -> Tensor:
    data = np.asarray(values, np.int32)
    return Tensor(name, "int32", data.shape, data)


def _conv(activation: int = 0, **more: int) -> dict[str, int]:
    names = ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor")
    return {**dict.fromkeys(names, 1), "FusedActivationFunction": activation, **more}


_OTHER = Tensor("other", shape=X.shape, scale=[0.021], zero=[11])
_FLAT = Tensor("x", shape=(5, 64), scale=[0.03], zero=[4])
_SAME = (X.scale[0], X.zero[0])
_POOL = {"StrideH": 2, "StrideW": 2, "FilterHeight": 3, "FilterWidth": 2}
_BOUNDED = (1 / 256, -128)
_EIGHT = ("int8", "uint8")

CASES = {
    "conv": Quantised(
        "CONV_2D",
        1,
        [_weights((6, 3, 3, 8), 0), _bias(6)],
        (0.09, -20),
        kind="Conv2DOptions",
        options=_conv(1),
    ),
    "depthwise": Quantised(
        "DEPTHWISE_CONV_2D",
        1,
        [_weights((1, 3, 3, 8), 3), _bias(8)],
        (0.05, 9),
        kind="DepthwiseConv2DOptions",
        options=_conv(DepthMultiplier=1, StrideH=2, StrideW=2),
    ),
    "transposed": Quantised(
        "TRANSPOSE_CONV",
        1,
        [],
        (0.12, 9),
        kind="TransposeConvOptions",
        options={"StrideH": 2, "StrideW": 2},
        before=[_numbers("shape", [2, 18, 16, 4]), _weights((4, 3, 3, 8), 0)],
        dtypes=_EIGHT,
    ),
    "dense": Quantised(
        "FULLY_CONNECTED",
        1,
        [replace(_weights((7, 64), 0), scale=[0.004], zero=[0]), replace(_bias(7))],
        (0.1, -3),
        _FLAT,
        "FullyConnectedOptions",
        {"FusedActivationFunction": 3},
    ),
    "add": Quantised("ADD", 1, [_OTHER], kind="AddOptions", options={"FusedActivationFunction": 1}),
    "sub": Quantised("SUB", 1, [_OTHER], kind="SubOptions", options={"FusedActivationFunction": 0}),
    "mul": Quantised(
        "MUL", 1, [_OTHER], (0.09, 5), kind="MulOptions", options={"FusedActivationFunction": 0}
    ),
    "maximum": Quantised("MAXIMUM", 0, [replace(X, name="other")], _SAME, kind="MaximumMinimumOptions"),
    "average-pool": Quantised("AVERAGE_POOL_2D", 1, result=_SAME, kind="Pool2DOptions", options=_POOL),
    "average-pool-low": Quantised(
        "AVERAGE_POOL_2D",
        1,
        result=(X.scale[0], -128),
        first=replace(X, zero=[-128]),
        kind="Pool2DOptions",
        options={"StrideH": 1, "StrideW": 1, "FilterHeight": 8, "FilterWidth": 8},
    ),
    "max-pool": Quantised("MAX_POOL_2D", 0, result=_SAME, kind="Pool2DOptions", options=_POOL),
    "mean": Quantised("MEAN", 1, [_numbers("axes", [1, 2])], (0.02, -5), kind="ReducerOptions"),
    "softmax": Quantised(
        "SOFTMAX", 1, result=_BOUNDED, kind="SoftmaxOptions", options={"Beta": 1.0}, dtypes=_EIGHT
    ),
    "logistic": Quantised("LOGISTIC", 1, result=_BOUNDED, dtypes=_EIGHT),
    "tanh": Quantised("TANH", 1, result=(1 / 128, 0), dtypes=_EIGHT),
    "leaky-relu": Quantised("LEAKY_RELU", 1, kind="LeakyReluOptions", options={"Alpha": 0.2}),
    "hard-swish": Quantised("HARD_SWISH", 1, result=(0.034, -40), dtypes=_EIGHT),
    "relu": Quantised("RELU", 1, result=(0.02, -128), dtypes=_EIGHT),
    "rescale": Quantised("QUANTIZE", 1, kind="QuantizeOptions"),
    "pad": Quantised("PAD", 0, [_numbers("pads", [[0, 0], [1, 2], [0, 1], [0, 0]])], _SAME),
    "concat": Quantised(
        "CONCATENATION",
        0,
        [replace(X, name="other")],
        _SAME,
        kind="ConcatenationOptions",
        options={"Axis": 3},
    ),
    "transpose": Quantised("TRANSPOSE", 0, [_numbers("order", [0, 3, 1, 2])], _SAME),
    "resize": Quantised(
        "RESIZE_BILINEAR",
        2,  # LiteRT rounds the step from pixel to pixel to 2^-10 and multiplies after that
        [_numbers("size", [15, 13])],
        _SAME,
        kind="ResizeBilinearOptions",
        options={"HalfPixelCenters": True},
        dtypes=_EIGHT,
    ),
    "slice": Quantised("SLICE", 0, [_numbers("begin", [0, 2, 1, 0]), _numbers("size", [2, 3, 4, 8])], _SAME),
}
