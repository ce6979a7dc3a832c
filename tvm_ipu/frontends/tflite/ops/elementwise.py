"""Functions of each element, of one tensor or of several that are broadcast."""

from __future__ import annotations

import numpy as np

from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.model import numpy_type
from tvm_ipu.frontends.tflite.ops.table import Function, Table

_INT = "iu"


def _unary(op: str) -> Function:
    def convert(call: Call) -> str:
        return call.emit(op, call.real(0))

    return convert


def _binary(op: str) -> Function:
    def convert(call: Call) -> str:
        return call.activated(call.emit(op, call.real(0), call.real(1)))

    return convert


def _is_whole(call: Call) -> bool:
    return np.dtype(call.builder.dtype(call.real(0))).kind in _INT


def _rsqrt(call: Call) -> str:
    return call.emit("Reciprocal", call.emit("Sqrt", call.real(0)))


def _square(call: Call) -> str:
    return call.emit("Mul", call.real(0), call.real(0))


def _squared_difference(call: Call) -> str:
    difference = call.emit("Sub", call.real(0), call.real(1))
    return call.emit("Mul", difference, difference)


def _not_equal(call: Call) -> str:
    return call.emit("Not", call.emit("Equal", call.real(0), call.real(1)))


def _floor_div(call: Call) -> str:
    """The quotient rounded to minus infinity."""
    a, b = call.real(0), call.real(1)
    if not _is_whole(call):
        return call.emit("Floor", call.emit("Div", a, b))
    return call.emit("Div", call.emit("Sub", a, call.emit("Mod", a, b)), b)


def _floor_mod(call: Call) -> str:
    """The rest that has the divisor's sign."""
    a, b = call.real(0), call.real(1)
    if _is_whole(call):
        return call.emit("Mod", a, b)
    rest = call.emit("Mod", a, b, fmod=1)
    zero = call.like(0, rest)
    wrong = call.emit("Less", call.emit("Mul", rest, b), zero)
    return call.emit("Where", wrong, call.emit("Add", rest, b), rest)


def _bounded(low: float, high: float) -> Function:
    def convert(call: Call) -> str:
        return call.clip(call.real(0), low, high)

    return convert


def _leaky_relu(call: Call) -> str:
    return call.emit("LeakyRelu", call.real(0), alpha=float(call.option("Alpha")))


def _gelu(call: Call) -> str:
    kind = "tanh" if call.option("Approximate") else "none"
    return call.emit("Gelu", call.real(0), approximate=kind)


def _add_n(call: Call) -> str:
    return call.emit("Sum", *(call.real(i) for i in range(call.count)))


def _zeros_like(call: Call) -> str:
    zero = call.like(np.zeros((1,) * len(call.shape(0))), call.raw(0))
    return call.emit("Expand", zero, call.add_constant(list(call.shape(0))))


def _select(call: Call) -> str:
    """SELECT: a condition of one dimension chooses among the slices of the first one."""
    condition, chosen = call.raw(0), call.real(1)
    rank = len(call.builder.shape(chosen))
    shape = call.shape(0)
    if len(shape) == 1 and rank > 1:
        condition = call.reshape(condition, (*shape, *(1,) * (rank - 1)))
    return call.emit("Where", condition, chosen, call.real(2))


def _select_v2(call: Call) -> str:
    return call.emit("Where", call.raw(0), call.real(1), call.real(2))


def _cast(call: Call) -> str:
    """The numbers in another type; integers of quantised tensors as they are."""
    return cast(call, call.raw(0), call.result().dtype)


def cast(call: Call, name: str, dtype: str) -> str:
    """A tensor in another type."""
    from onnx import helper

    if call.builder.dtype(name) == dtype:
        return name
    wanted = numpy_type(dtype)
    if wanted is None:
        raise Refused(f"images have no tensors of {dtype}")
    return call.emit("Cast", name, to=helper.np_dtype_to_tensor_dtype(wanted))


def _shift_right(call: Call) -> str:
    """ONNX shifts integers without a sign only: a quotient rounded down is the same."""
    a, b = call.raw(0), call.known(1)
    if b is None or (b < 0).any() or (b > 30).any():
        raise Refused("it shifts by numbers that are not constant or above 30")
    divisor = call.like(np.left_shift(1, b.astype(np.int64)), a)
    return call.emit("Div", call.emit("Sub", a, call.emit("Mod", a, divisor)), divisor)


TABLE: Table = {
    "ABS": _unary("Abs"),
    "ADD": _binary("Add"),
    "ADD_N": _add_n,
    "BITWISE_XOR": _binary("BitwiseXor"),
    "CAST": _cast,
    "CEIL": _unary("Ceil"),
    "COS": _unary("Cos"),
    "DIV": _binary("Div"),
    "ELU": _unary("Elu"),
    "EQUAL": _binary("Equal"),
    "EXP": _unary("Exp"),
    "FLOOR": _unary("Floor"),
    "FLOOR_DIV": _floor_div,
    "FLOOR_MOD": _floor_mod,
    "GELU": _gelu,
    "GREATER": _binary("Greater"),
    "GREATER_EQUAL": _binary("GreaterOrEqual"),
    "HARD_SWISH": _unary("HardSwish"),
    "LEAKY_RELU": _leaky_relu,
    "LESS": _binary("Less"),
    "LESS_EQUAL": _binary("LessOrEqual"),
    "LOG": _unary("Log"),
    "LOGICAL_AND": _binary("And"),
    "LOGICAL_NOT": _unary("Not"),
    "LOGICAL_OR": _binary("Or"),
    "LOGISTIC": _unary("Sigmoid"),
    "MAXIMUM": _binary("Max"),
    "MINIMUM": _binary("Min"),
    "MUL": _binary("Mul"),
    "NEG": _unary("Neg"),
    "NOT_EQUAL": _not_equal,
    "POW": _binary("Pow"),
    "PRELU": _binary("PRelu"),
    "RELU": _unary("Relu"),
    "RELU6": _bounded(0.0, 6.0),
    "RELU_0_TO_1": _bounded(0.0, 1.0),
    "RELU_N1_TO_1": _bounded(-1.0, 1.0),
    "RIGHT_SHIFT": _shift_right,
    "ROUND": _unary("Round"),
    "RSQRT": _rsqrt,
    "SELECT": _select,
    "SELECT_V2": _select_v2,
    "SIGN": _unary("Sign"),
    "SIN": _unary("Sin"),
    "SQRT": _unary("Sqrt"),
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SUB": _binary("Sub"),
    "TANH": _unary("Tanh"),
    "ZEROS_LIKE": _zeros_like,
}
