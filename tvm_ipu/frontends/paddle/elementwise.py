"""Operators that work on each element."""

from __future__ import annotations

import numpy as np

from tvm_ipu.frontends.paddle.context import Context, Rule
from tvm_ipu.frontends.paddle.program import Op


def unary(op_type: str, **attributes: float | int) -> Rule:
    """The rule of an operator that ONNX has."""

    def rule(c: Context, op: Op) -> str:
        return c.b.add(op_type, c.read(op, "X"), **attributes)

    return rule


def with_attributes(op_type: str, **names: tuple[str, float]) -> Rule:
    """The rule of an operator that ONNX has, whose attributes have other names (name there, default)."""

    def rule(c: Context, op: Op) -> str:
        values = {own: op.attr(name, default) for own, (name, default) in names.items()}
        return c.b.add(op_type, c.read(op, "X"), **values)

    return rule


def binary(op_type: str) -> Rule:
    """The rule of an operator of two inputs, the second of which begins at an axis of the first."""

    def rule(c: Context, op: Op) -> str:
        x, y, axis = c.read(op, "X"), c.read(op, "Y"), op.attr("axis", -1)
        behind = c.rank(op, "X") - axis - c.rank(op, "Y") if axis >= 0 else 0
        if behind > 0:
            y = c.b.add("Unsqueeze", y, np.arange(behind) + c.rank(op, "Y"))
        return c.b.add(op_type, x, y)

    return rule


def modulo(c: Context, op: Op) -> str:
    """With the sign of the divisor, as numpy's."""
    x, y = c.read(op, "X"), c.read(op, "Y")
    quotient = c.b.add("Floor", c.b.add("Div", x, y)) if c.like(x, 0).dtype.kind == "f" else None
    return c.b.add("Mod", x, y) if quotient is None else c.b.add("Sub", x, c.b.add("Mul", quotient, y))


def floor_divide(c: Context, op: Op) -> str:
    """Rounded down."""
    x, y = c.read(op, "X"), c.read(op, "Y")
    if c.like(x, 0).dtype.kind == "f":
        return c.b.add("Floor", c.b.add("Div", x, y))
    return c.b.add("Div", c.b.add("Sub", x, c.b.add("Mod", x, y)), y)


def scale(c: Context, op: Op) -> str:
    """X * scale + bias, or (x + bias) * scale."""
    x = c.read(op, "X")
    factor = c.maybe(op, "ScaleTensor") or c.like(x, op.attr("scale", 1.0))
    bias = op.attr("bias", 0.0)
    if bias and not op.attr("bias_after_scale", True):
        return c.b.add("Mul", c.b.add("Add", x, c.like(x, bias)), factor)
    y = c.b.add("Mul", x, factor)
    return c.b.add("Add", y, c.like(x, bias)) if bias else y


def relu6(c: Context, op: Op) -> str:
    """min(max(x, 0), threshold)."""
    x = c.read(op, "X")
    return c.b.add("Clip", x, c.like(x, 0), c.like(x, op.attr("threshold", 6.0)))


def clip(c: Context, op: Op) -> str:
    """min(max(x, low), high)."""
    x = c.read(op, "X")
    low = c.maybe(op, "Min") or c.like(x, op.attr("min", 0.0))
    high = c.maybe(op, "Max") or c.like(x, op.attr("max", 0.0))
    return c.b.add("Clip", x, low, high)


def swish(c: Context, op: Op) -> str:
    """X * sigmoid(beta * x)."""
    x, beta = c.read(op, "X"), op.attr("beta", 1.0)
    return c.b.add("Mul", x, c.b.add("Sigmoid", x if beta == 1 else c.b.add("Mul", x, c.like(x, beta))))


def hard_swish(c: Context, op: Op) -> str:
    """X * min(max(x + offset, 0), threshold) / scale."""
    x = c.read(op, "X")
    threshold, factor, offset = (
        op.attr(n, d) for n, d in (("threshold", 6.0), ("scale", 6.0), ("offset", 3.0))
    )
    if (threshold, factor, offset) == (6, 6, 3):
        return c.b.add("HardSwish", x)
    inner = c.b.add("Clip", c.b.add("Add", x, c.like(x, offset)), c.like(x, 0), c.like(x, threshold))
    return c.b.add("Div", c.b.add("Mul", x, inner), c.like(x, factor))


def gelu(c: Context, op: Op) -> str:
    """By the error function, or by its approximation."""
    return c.b.add("Gelu", c.read(op, "X"), approximate="tanh" if op.attr("approximate", False) else "none")


def softplus(c: Context, op: Op) -> str:
    """log(1 + exp(beta * x)) / beta, and x itself above the threshold, where the two are equal."""
    x, beta = c.read(op, "X"), op.attr("beta", 1.0)
    if beta == 1:
        return c.b.add("Softplus", x)
    return c.b.add("Div", c.b.add("Softplus", c.b.add("Mul", x, c.like(x, beta))), c.like(x, beta))


def prelu(c: Context, op: Op) -> str:
    """One slope for all, for each channel, or for each element."""
    alpha = c.read(op, "Alpha")
    if op.attr("mode", "all") == "channel":
        alpha = c.b.add("Reshape", alpha, np.array([-1, *[1] * (c.rank(op, "X") - 2)]))
    return c.b.add("PRelu", c.read(op, "X"), alpha)


def rsqrt(c: Context, op: Op) -> str:
    """1 / sqrt(x)."""
    return c.b.add("Reciprocal", c.b.add("Sqrt", c.read(op, "X")))


def square(c: Context, op: Op) -> str:
    """X * x."""
    x = c.read(op, "X")
    return c.b.add("Mul", x, x)


def power(c: Context, op: Op) -> str:
    """X ** factor."""
    x = c.read(op, "X")
    return c.b.add("Pow", x, c.maybe(op, "FactorTensor") or c.like(x, op.attr("factor", 1.0)))


def cast(c: Context, op: Op) -> str:
    """To another element type."""
    return c.b.add("Cast", c.read(op, "X"), to=c.elem_type(op.attr("out_dtype", 5)))


def dropout(c: Context, op: Op) -> str:
    """Nothing, or where training did not scale up, a scale."""
    x = c.read(op, "X")
    if op.attr("dropout_implementation", "downgrade_in_infer") == "upscale_in_train":
        return c.b.add("Identity", x)
    return c.b.add("Mul", x, c.like(x, 1 - op.attr("dropout_prob", 0.5)))


def not_equal(c: Context, op: Op) -> str:
    """Where two tensors differ."""
    return c.b.add("Not", c.b.add("Equal", c.read(op, "X"), c.read(op, "Y")))


def where(c: Context, op: Op) -> str:
    """Values of one of two tensors."""
    return c.b.add("Where", c.read(op, "Condition"), c.read(op, "X"), c.read(op, "Y"))


_SAME = {
    "abs": "Abs", "assign": "Identity", "ceil": "Ceil", "cos": "Cos", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "log": "Log", "logical_not": "Not", "mish": "Mish", "reciprocal": "Reciprocal",
    "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin",
    "softsign": "Softsign", "sqrt": "Sqrt", "tanh": "Tanh",
}  # fmt: skip
_BINARY = {
    "elementwise_add": "Add", "elementwise_div": "Div", "elementwise_max": "Max", "elementwise_min": "Min",
    "elementwise_mul": "Mul", "elementwise_pow": "Pow", "elementwise_sub": "Sub", "equal": "Equal",
    "greater_equal": "GreaterOrEqual", "greater_than": "Greater", "less_equal": "LessOrEqual",
    "less_than": "Less", "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor",
}  # fmt: skip
RULES: dict[str, Rule] = {
    **{name: unary(op_type) for name, op_type in _SAME.items()},
    **{name: binary(op_type) for name, op_type in _BINARY.items()},
    "cast": cast,
    "clip": clip,
    "dropout": dropout,
    "elementwise_floordiv": floor_divide,
    "elementwise_mod": modulo,
    "elu": with_attributes("Elu", alpha=("alpha", 1.0)),
    "gelu": gelu,
    "hard_sigmoid": with_attributes("HardSigmoid", alpha=("slope", 0.2), beta=("offset", 0.5)),
    "hard_swish": hard_swish,
    "leaky_relu": with_attributes("LeakyRelu", alpha=("alpha", 0.02)),
    "not_equal": not_equal,
    "pow": power,
    "prelu": prelu,
    "relu6": relu6,
    "rsqrt": rsqrt,
    "scale": scale,
    "silu": swish,
    "softplus": softplus,
    "square": square,
    "swish": swish,
    "where": where,
}
