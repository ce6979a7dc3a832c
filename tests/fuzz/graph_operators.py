"""Arithmetic of random graphs: each function adds an operator, or a few, to a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from tests.fuzz.graph_maker import Maker, NotTaken, Tensor

Operator = Callable[[Maker], object]
FLOATS = ("float32", "float32", "float32", "float16")
NUMBERS = (*FLOATS, "int32", "int64", "int8", "uint8")
INTEGERS = ("int32", "int64", "int8", "uint8")


def positive(m: Maker, x: Tensor, least: float = 0.1) -> Tensor:
    """``x`` or its absolute values, away from zero."""
    if x.array.size and x.array.min() >= least / 2 and not m.chance(0.2):
        return x
    return m.node("Add", m.node("Abs", x), m.constant(np.array(least, x.dtype)))


def bounded(m: Maker, x: Tensor, bound: float) -> Tensor:
    """``x``, or something of it within bounds."""
    if np.abs(x.array).max(initial=0) <= bound:
        return x
    return m.node("Mul", m.node("Tanh", x), m.constant(np.array(bound * 0.9, x.dtype)))


SMOOTH = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "Abs": {}, "Neg": {}, "Erf": {}, "Softplus": {}, "Softsign": {},
    "Elu": {"alpha": 0.7}, "Selu": {}, "Celu": {"alpha": 1.5}, "LeakyRelu": {"alpha": 0.1},
    "HardSigmoid": {"alpha": 0.25}, "HardSwish": {}, "Mish": {}, "Gelu": {},
    "ThresholdedRelu": {"alpha": 0.3}, "Sin": {}, "Cos": {}, "Atan": {}, "Asinh": {}, "Identity": {},
    "Dropout": {}, "Floor": {}, "Ceil": {},
    "Round": {}, "Sign": {}, "IsNaN": {}, "IsInf": {}, "Shrink": {"lambd": 0.4, "bias": 0.1},
}  # fmt: skip


def unary(m: Maker) -> object:
    op = m.random.choice(list(SMOOTH))
    return m.node(op, m.real(), **SMOOTH[op])


def relu(m: Maker) -> object:
    return m.node(m.choose("Relu", "Sigmoid", "HardSwish", "LeakyRelu", "Tanh"), m.real())


def bounded_unary(m: Maker) -> object:
    op, bound = m.choose(("Exp", 5), ("Sinh", 4), ("Cosh", 4), ("Tan", 1), ("Asin", 0.9), ("Acos", 0.9),
                         ("Atanh", 0.9))  # fmt: skip
    return m.node(op, bounded(m, m.real(), bound))


def positive_unary(m: Maker) -> object:
    op = m.choose("Log", "Sqrt", "Reciprocal", "Acosh")
    return m.node(op, positive(m, m.real(), 1.1 if op == "Acosh" else 0.1))


def integer_unary(m: Maker) -> object:
    return m.node(m.choose("Abs", "Neg", "Sign", "Relu", "BitwiseNot"), m.pick(INTEGERS))


def binary(m: Maker) -> object:
    x = m.pick(NUMBERS)
    y = m.other(x)
    op = m.choose("Add", "Sub", "Mul", "Add", "Mul", "Max", "Min")
    return m.node(op, *((x, y) if m.chance(0.6) else (y, x)))


def divide(m: Maker) -> object:
    x = m.real()
    return m.node("Div", x, positive(m, m.other(x)))


def divide_integers(m: Maker) -> object:
    x = m.pick(INTEGERS)
    y = m.other(x)
    if not y.array.all():
        y = m.constant(m.choose(-7, -2, 2, 3, 5) if x.dtype != "uint8" else 3, x.dtype)
    op = m.choose("Div", "Mod", "Mod")
    return m.node(op, x, y, **({"fmod": 1} if op == "Mod" and m.chance(0.3) else {}))


def power(m: Maker) -> object:
    x = m.real()
    exponent = m.choose(2.0, 3.0, 0.5, -1.0, 1.5)
    base = x if exponent in (2.0, 3.0) else positive(m, x)
    return m.node("Pow", base, m.constant(np.array(exponent, m.choose("float32", x.dtype))))


def variadic(m: Maker) -> object:
    x = m.real()
    return m.node(m.choose("Sum", "Mean", "Max", "Min"), x, *(m.other(x) for _ in range(m.between(1, 3))))


def compare(m: Maker) -> object:
    x = m.pick(NUMBERS)
    return m.node(m.choose("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"), x, m.other(x))


def logic(m: Maker) -> object:
    x = m.pick(("bool",))
    if m.chance(0.25):
        return m.node("Not", x)
    return m.node(m.choose("And", "Or", "Xor", "Equal"), x, m.other(x))


def bitwise(m: Maker) -> object:
    x = m.pick(INTEGERS)
    if x.dtype == "uint8" and m.chance(0.5):
        places = m.constant(np.array(m.between(0, 7), "uint8"))
        return m.node("BitShift", x, places, direction=m.choose("LEFT", "RIGHT"))
    return m.node(m.choose("BitwiseAnd", "BitwiseOr", "BitwiseXor"), x, m.other(x))


def where(m: Maker) -> object:
    x = m.pick((*NUMBERS, "bool"))
    shape = tuple(1 if m.chance(0.3) else extent for extent in x.shape)[m.between(0, x.rank) :]
    found = [t for t in m.tensors.values() if t.dtype == "bool" and t.shape == x.shape]
    condition = m.random.choice(found) if found and m.chance(0.7) else m.fresh(shape, "bool")
    pair = (x, m.other(x))
    return m.node("Where", condition, *(pair if m.chance(0.5) else pair[::-1]))


def cast(m: Maker) -> object:
    x = m.pick((*NUMBERS, "bool"))
    to = m.random.choice([one for one in m.dtypes if one != x.dtype] or m.dtypes)
    if to == "float16" and np.abs(x.array.astype(np.float64)).max(initial=0) > 1000:
        raise NotTaken("large")
    if x.dtype.startswith("float") and to in INTEGERS:
        bound = 100.0
        x = m.node("Abs", bounded(m, x, bound)) if to == "uint8" else bounded(m, x, bound)
    return m.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(to)))


def clip(m: Maker) -> object:
    x = m.pick(NUMBERS)
    low, high = (5, 60) if x.dtype in INTEGERS else (-0.8, 1.3)
    bounds = [m.constant(np.array(low, x.dtype)), m.constant(np.array(high, x.dtype))]
    return m.node("Clip", x, *m.choose(bounds, [bounds[0]], [None, bounds[1]]))


def prelu(m: Maker) -> object:
    x = m.real(1)
    slope = m.array(m.choose(x.shape[-1:], (x.shape[0],) + (1,) * (x.rank - 1), (1,)), x.dtype)
    return m.node("PRelu", x, m.constant(slope))


# Reductions and order


def axes_of(m: Maker, x: Tensor) -> list[int]:
    axes = m.random.sample(range(x.rank), m.between(1, x.rank))
    return [axis - x.rank if m.chance(0.3) else axis for axis in axes]


def reduce(m: Maker) -> object:
    op = m.choose("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp", "LogSum")
    x = m.real(1) if m.chance(0.75) else m.pick(("int32", "int64", "int8", "uint8"), 1)
    if op == "LogSum":
        x = positive(m, x)
    axes = m.constant(axes_of(m, x), "int64")
    return m.node(f"Reduce{op}", x, axes, keepdims=m.between(0, 1))


def arg(m: Maker) -> object:
    x = m.pick(NUMBERS, 1)
    attributes = {"keepdims": m.between(0, 1), "select_last_index": m.between(0, 1)}
    return m.node(m.choose("ArgMax", "ArgMin"), x, axis=m.between(-x.rank, x.rank - 1), **attributes)


def cumulate(m: Maker) -> object:
    x = m.pick(("float32", "int32", "int64"), 1)
    axis = m.constant(np.array(m.between(-x.rank, x.rank - 1)))
    return m.node("CumSum", x, axis, exclusive=m.between(0, 1), reverse=m.between(0, 1))


def top(m: Maker) -> object:
    x = m.pick(("float32", "int32", "int64"), 1)
    axis = m.between(0, x.rank - 1)
    count = m.constant([m.between(1, x.shape[axis])], "int64")
    return m.several("TopK", x, count, outputs=2, axis=axis, largest=m.between(0, 1))


def softmax(m: Maker) -> object:
    x = m.real(1)
    op = m.choose("Softmax", "Softmax", "LogSoftmax", "Hardmax")
    return m.node(op, x, axis=m.between(-x.rank, x.rank - 1))


OPERATORS: dict[Operator, float] = {
    unary: 4, relu: 3, bounded_unary: 1, positive_unary: 1.5, integer_unary: 1, binary: 8, divide: 1.5,
    divide_integers: 1, power: 1, variadic: 1, compare: 1.5, logic: 1.5, bitwise: 1, where: 2, cast: 3,
    clip: 2, prelu: 1, reduce: 4, arg: 1, cumulate: 0.7, top: 0.7, softmax: 2,
}  # fmt: skip
"""Operators and how often they are taken."""
