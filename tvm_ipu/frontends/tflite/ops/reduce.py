"""Reductions, normalisations and choices along axes."""

from __future__ import annotations

from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.ops.elementwise import cast
from tvm_ipu.frontends.tflite.ops.table import Function, Table


def _axes(call: Call, index: int = 1) -> list[int]:
    """A constant input of axes, from 0 on, each once."""
    rank = len(call.shape(0))
    return sorted({call.axis(axis, rank) for axis in call.integers(index)})


def _reduce(op: str) -> Function:
    def convert(call: Call) -> str:
        return _reduced(call, op, call.real(0))

    return convert


def _reduced(call: Call, op: str, x: str) -> str:
    axes, keep = _axes(call), int(bool(call.option("KeepDims")))
    if not axes:
        return x
    return call.emit(op, x, call.add_constant(axes), keepdims=keep)


def _of_booleans(op: str) -> Function:
    def convert(call: Call) -> str:
        return cast(call, _reduced(call, op, cast(call, call.raw(0), "int32")), "bool")

    return convert


def _softmax(call: Call) -> str:
    x, beta = call.real(0), float(call.option("Beta"))
    if beta != 1.0:
        x = call.emit("Mul", x, call.like(beta, x))
    return call.emit("Softmax", x, axis=-1)


def _log_softmax(call: Call) -> str:
    return call.emit("LogSoftmax", call.real(0), axis=-1)


def _l2_normalisation(call: Call) -> str:
    """Divided by the root of the sum of squares along the last axis, which is taken to be at least 1e-6."""
    x = call.real(0)
    if not call.shape(0):
        raise call.damaged("has an input without dimensions")
    norm = call.emit("ReduceL2", x, call.add_constant([-1]), keepdims=1)
    return call.activated(call.emit("Div", x, call.emit("Max", norm, call.like(1e-6, x))))


def _local_response(call: Call) -> str:
    """ONNX divides alpha by the number of channels in a window."""
    call.ranked(0, 4)
    size = 2 * int(call.option("Radius")) + 1
    if size < 1:
        raise call.damaged(f"has the radius {call.option('Radius')}")
    y = call.emit(
        "LRN",
        call.channels_first(call.real(0)),
        size=size,
        alpha=float(call.option("Alpha")) * size,
        beta=float(call.option("Beta")),
        bias=float(call.option("Bias")),
    )
    return call.channels_last(y)


def _arg(op: str) -> Function:
    def convert(call: Call) -> str:
        axis = call.axis(call.integer(1), len(call.shape(0)))
        return cast(call, call.emit(op, call.real(0), axis=axis, keepdims=0), call.result().dtype)

    return convert


def _cumulative_sum(call: Call) -> str:
    axis = call.axis(call.integer(1), len(call.shape(0)))
    exclusive, reverse = (int(bool(call.option(name))) for name in ("Exclusive", "Reverse"))
    place = call.add_constant(axis)
    return call.emit("CumSum", call.real(0), place, exclusive=exclusive, reverse=reverse)


def _top_k(call: Call) -> list[str]:
    shape, count = call.shape(0), call.integer(1)
    if not shape or not 0 <= count <= shape[-1]:
        raise call.damaged(f"takes {count} elements of {list(shape)}")
    values, places = call.builder.emit("TopK", [call.real(0), call.add_constant([count])], 2, axis=-1)
    return [values, cast(call, places, call.result(1).dtype)]


def _unique_axis(call: Call) -> list[str]:
    raise Refused("the number of its results depends on data")


TABLE: Table = {
    "ARG_MAX": _arg("ArgMax"),
    "ARG_MIN": _arg("ArgMin"),
    "CUMSUM": _cumulative_sum,
    "L2_NORMALIZATION": _l2_normalisation,
    "LOCAL_RESPONSE_NORMALIZATION": _local_response,
    "LOG_SOFTMAX": _log_softmax,
    "MEAN": _reduce("ReduceMean"),
    "REDUCE_ALL": _of_booleans("ReduceMin"),
    "REDUCE_ANY": _of_booleans("ReduceMax"),
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "REDUCE_PROD": _reduce("ReduceProd"),
    "SOFTMAX": _softmax,
    "SUM": _reduce("ReduceSum"),
    "TOPK_V2": _top_k,
    "UNIQUE": _unique_axis,
    "WHERE": _unique_axis,
}
