"""Small TensorFlow Lite models, put together with flatbuffers, and what LiteRT makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite

Array = np.ndarray

_TYPES = {"bool": "BOOL"} | {
    name: name.upper()
    for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32")
}

_VERSIONS = {"BROADCAST_TO": 2}
"""Versions of operators that LiteRT has none of 1 of."""


@dataclass(frozen=True)
class Tensor:
    """A tensor.

    Attributes:
        name: Its name.
        dtype: Its type.
        shape: Its shape; of results LiteRT finds it.
        data: Its value where it is constant.
        scale: One, or one for each slice of ``axis``.
        zero: As many.
        axis: Dimension of the scales.
        signature: Its shape with -1 for open dimensions.
        is_variable: Whether it is a state.
    """

    name: str
    dtype: str = "float32"
    shape: Sequence[int] = ()
    data: Array | None = None
    scale: Sequence[float] = ()
    zero: Sequence[int] = ()
    axis: int = 0
    signature: Sequence[int] = ()
    is_variable: bool = False


@dataclass(frozen=True)
class Op:
    """An operator on tensors by name; the kind of its options and their values; '' is a missing input."""

    code: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    kind: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def constant(name: str, values: Any, dtype: str = "int32", **attributes: Any) -> Tensor:
    """A constant tensor."""
    data = np.asarray(values, dtype)
    return Tensor(name, dtype, data.shape, data, **attributes)


def build(
    tensors: Sequence[Tensor], ops: Sequence[Op], inputs: Sequence[str], outputs: Sequence[str]
) -> bytes:
    """A model of one graph."""
    builder = flatbuffers.Builder(1024)
    places = {tensor.name: i for i, tensor in enumerate(tensors)}
    places[""] = -1
    codes = list(dict.fromkeys(op.code for op in ops))
    made_ops = [_op(builder, op, codes, places) for op in ops]
    made_tensors = [_tensor(builder, tensor, i + 1) for i, tensor in enumerate(tensors)]
    graph = _table(
        builder,
        "SubGraph",
        Tensors=_offsets(builder, made_tensors),
        Inputs=_ints(builder, [places[name] for name in inputs]),
        Outputs=_ints(builder, [places[name] for name in outputs]),
        Operators=_offsets(builder, made_ops),
    )
    buffers = [_buffer(builder, None), *(_buffer(builder, tensor.data) for tensor in tensors)]
    model = _table(
        builder,
        "Model",
        Version=3,
        OperatorCodes=_offsets(builder, [_code(builder, code) for code in codes]),
        Subgraphs=_offsets(builder, [graph]),
        Buffers=_offsets(builder, buffers),
    )
    builder.Finish(model, file_identifier=b"TFL3")
    return bytes(builder.Output())


def run_litert(model: bytes | Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of LiteRT's own kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(**source, experimental_op_resolver_type=kernels, num_threads=1)
    interpreter.allocate_tensors()
    for one in interpreter.get_input_details():
        interpreter.set_tensor(one["index"], feeds[one["name"]])
    interpreter.invoke()
    return {one["name"]: interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()}


def _table(builder: Any, kind: str, **fields: Any) -> int:
    getattr(tflite, f"{kind}Start")(builder)
    for name, value in fields.items():
        if value is not None:
            getattr(tflite, f"{kind}Add{name}")(builder, value)
    return getattr(tflite, f"{kind}End")(builder)


def _ints(builder: Any, values: Sequence[int], dtype: str = "int32") -> int:
    return builder.CreateNumpyVector(np.asarray(values, dtype))


def _offsets(builder: Any, values: Sequence[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependUOffsetTRelative(value)
    return builder.EndVector()


def _buffer(builder: Any, data: Array | None) -> int:
    content = None
    if data is not None and data.size:
        content = builder.CreateNumpyVector(np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8))
    return _table(builder, "Buffer", Data=content)


def _tensor(builder: Any, tensor: Tensor, buffer: int) -> int:
    quantisation = None
    if tensor.scale:
        scale = builder.CreateNumpyVector(np.asarray(tensor.scale, np.float32))
        zero = _ints(builder, tensor.zero or [0] * len(tensor.scale), "int64")
        quantisation = _table(
            builder, "QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=tensor.axis
        )
    return _table(
        builder,
        "Tensor",
        Name=builder.CreateString(tensor.name),
        Shape=_ints(builder, tensor.shape),
        Type=getattr(tflite.TensorType, _TYPES[tensor.dtype]),
        Buffer=buffer,
        Quantization=quantisation,
        IsVariable=tensor.is_variable,
        ShapeSignature=_ints(builder, tensor.signature) if tensor.signature else None,
    )


def _code(builder: Any, code: str) -> int:
    number = getattr(tflite.BuiltinOperator, code, tflite.BuiltinOperator.CUSTOM)
    is_custom = number == tflite.BuiltinOperator.CUSTOM
    return _table(
        builder,
        "OperatorCode",
        CustomCode=builder.CreateString(code) if is_custom else None,
        DeprecatedBuiltinCode=min(number, 127),
        BuiltinCode=number,
        Version=_VERSIONS.get(code, 1),
    )


def _op(builder: Any, op: Op, codes: Sequence[str], places: Mapping[str, int]) -> int:
    options = kind = None
    if op.kind:
        kind = getattr(tflite.BuiltinOptions, op.kind)
        values = {k: _ints(builder, v) if isinstance(v, list) else v for k, v in op.options.items()}
        options = _table(builder, op.kind, **values)
    return _table(
        builder,
        "Operator",
        OpcodeIndex=codes.index(op.code),
        Inputs=_ints(builder, [places[name] for name in op.inputs]),
        Outputs=_ints(builder, [places[name] for name in op.outputs]),
        BuiltinOptionsType=kind,
        BuiltinOptions=options,
    )
