"""Primitives that work on each element."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ipu.frontends.jax.context import Context, Rule, Value, refuse


def unary(op_type: str) -> Rule:
    """The rule of a primitive that ONNX has."""

    def rule(c: Context, eqn: Any) -> Value:
        return c.add(op_type, c.lazy(eqn.invars[0]))

    return rule


def binary(op_type: str, boolean: str = "") -> Rule:
    """The rule of a primitive of two operands; ``boolean`` is the operator where those are truth values."""

    def rule(c: Context, eqn: Any) -> Value:
        operands = [c.lazy(var) for var in eqn.invars]
        kind = eqn.invars[0].aval.dtype.kind
        return c.add(boolean if boolean and kind == "b" else op_type, *operands)

    return rule


def identity(c: Context, eqn: Any) -> list[Value]:
    """The operands themselves: hints for training or devices."""
    return [c.lazy(var) for var in eqn.invars]


def maximum(c: Context, eqn: Any) -> Value:
    """The larger operand; one that nothing is below is left out, and 0 makes a ReLU."""
    return _extreme(c, eqn, "Max", -np.inf, "Or")


def minimum(c: Context, eqn: Any) -> Value:
    """The smaller operand."""
    return _extreme(c, eqn, "Min", np.inf, "And")


def _extreme(c: Context, eqn: Any, op_type: str, neutral: float, boolean: str) -> Value:
    values = [c.lazy(var) for var in eqn.invars]
    is_float = eqn.invars[0].aval.dtype.kind not in "biu"
    for one, other in ((0, 1), (1, 0)):
        value = values[one]
        if not isinstance(value, np.ndarray) or not is_float:
            continue
        if (value == neutral).all():
            return values[other]
        if op_type == "Max" and not value.any():
            return c.add("Relu", values[other])
    return c.add(boolean if eqn.invars[0].aval.dtype.kind == "b" else op_type, *values)


def integer_power(c: Context, eqn: Any) -> Value:
    """X ** y by products."""
    x, power = c.lazy(eqn.invars[0]), abs(eqn.params["y"])
    result: Value | None = None
    while power:
        if power & 1:
            result = x if result is None else c.add("Mul", result, x)
        power >>= 1
        x = c.add("Mul", x, x) if power else x
    result = np.ones((), eqn.invars[0].aval.dtype) if result is None else result
    return c.add("Reciprocal", result) if eqn.params["y"] < 0 else result


def select(c: Context, eqn: Any) -> Value:
    """One of several operands for each element."""
    which, *cases = eqn.invars
    known = c.lazy(which)
    if isinstance(known, np.ndarray) and (known == known.flat[0]).all():
        return c.lazy(cases[int(known.flat[0])])
    result = c.lazy(cases[0])
    if which.aval.dtype.kind == "b":
        return c.add("Where", known, c.lazy(cases[1]), result)
    for number, case in enumerate(cases[1:], 1):
        result = c.add("Where", c.add("Equal", known, c.like(which, number)), c.lazy(case), result)
    return result


def clamp(c: Context, eqn: Any) -> Value:
    """min(max(x, low), high)."""
    low, x, high = (c.lazy(var) for var in eqn.invars)
    bounds = [v.reshape(()) if isinstance(v, np.ndarray) and v.size == 1 else v for v in (low, high)]
    if all(isinstance(v, np.ndarray) and v.ndim == 0 for v in bounds):
        return c.add("Clip", x, *bounds)
    return c.add("Min", c.add("Max", x, low), high)


def convert(c: Context, eqn: Any) -> Value:
    """To another element type."""
    return c.cast(c.lazy(eqn.invars[0]), eqn.params["new_dtype"])


def square(c: Context, eqn: Any) -> Value:
    """X * x."""
    x = c.lazy(eqn.invars[0])
    return c.add("Mul", x, x)


def rsqrt(c: Context, eqn: Any) -> Value:
    """1 / sqrt(x)."""
    return c.add("Reciprocal", c.add("Sqrt", c.lazy(eqn.invars[0])))


def log1p(c: Context, eqn: Any) -> Value:
    """log(1 + x)."""
    return c.add("Log", c.add("Add", c.lazy(eqn.invars[0]), c.like(eqn.invars[0], 1)))


def expm1(c: Context, eqn: Any) -> Value:
    """exp(x) - 1."""
    return c.add("Sub", c.add("Exp", c.lazy(eqn.invars[0])), c.like(eqn.invars[0], 1))


def exp2(c: Context, eqn: Any) -> Value:
    """2 ** x."""
    x = eqn.invars[0]
    return c.add("Exp", c.add("Mul", c.lazy(x), c.like(x, np.log(2))))


def erfc(c: Context, eqn: Any) -> Value:
    """1 - erf(x)."""
    return c.add("Sub", c.like(eqn.invars[0], 1), c.add("Erf", c.lazy(eqn.invars[0])))


def is_finite(c: Context, eqn: Any) -> Value:
    """Neither infinite nor no number."""
    x = c.lazy(eqn.invars[0])
    return c.add("Not", c.add("Or", c.add("IsInf", x), c.add("IsNaN", x)))


def not_equal(c: Context, eqn: Any) -> Value:
    """Where operands differ."""
    return c.add("Not", c.add("Equal", *(c.lazy(var) for var in eqn.invars)))


def remainder(c: Context, eqn: Any) -> Value:
    """With the sign of the dividend."""
    return c.add("Mod", *(c.lazy(var) for var in eqn.invars), fmod=1)


def round_(c: Context, eqn: Any) -> Value:
    """To even, or away from zero."""
    x = c.lazy(eqn.invars[0])
    if int(eqn.params["rounding_method"]) == 1:
        return c.add("Round", x)
    half = c.add("Floor", c.add("Add", c.add("Abs", x), c.like(eqn.invars[0], 0.5)))
    return c.add("Mul", c.add("Sign", x), half)


def not_(c: Context, eqn: Any) -> Value:
    """The opposite, of each bit."""
    op_type = "Not" if eqn.invars[0].aval.dtype.kind == "b" else "BitwiseNot"
    return c.add(op_type, c.lazy(eqn.invars[0]))


def reduce_precision(c: Context, eqn: Any) -> Value:
    """Rounded as a shorter type would be."""
    sizes = eqn.params["exponent_bits"], eqn.params["mantissa_bits"]
    short = {(5, 10): "float16", (8, 7): "bfloat16", (8, 23): "float32"}.get(sizes)
    if short is None:
        raise refuse(eqn, f"{sizes[0]} bits of exponent and {sizes[1]} of mantissa")
    if short == "float32":
        return c.lazy(eqn.invars[0])
    import ml_dtypes

    inner = c.cast(c.lazy(eqn.invars[0]), ml_dtypes.bfloat16 if short == "bfloat16" else np.float16)
    return c.cast(inner, eqn.outvars[0].aval.dtype)


_SAME = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "log": "Log", "logistic": "Sigmoid", "neg": "Neg", "sign": "Sign", "sin": "Sin",
    "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
_SILENT = (
    "copy", "copy_p", "device_put", "optimization_barrier", "pvary", "sharding_constraint", "stop_gradient",
)  # fmt: skip
RULES: dict[str, Rule] = {
    **{name: unary(op_type) for name, op_type in _SAME.items()},
    **dict.fromkeys(_SILENT, identity),
    "add": binary("Add"),
    "add_any": binary("Add"),
    "and": binary("BitwiseAnd", "And"),
    "clamp": clamp,
    "convert_element_type": convert,
    "div": binary("Div"),
    "eq": binary("Equal"),
    "erfc": erfc,
    "exp2": exp2,
    "expm1": expm1,
    "ge": binary("GreaterOrEqual"),
    "gt": binary("Greater"),
    "integer_pow": integer_power,
    "is_finite": is_finite,
    "le": binary("LessOrEqual"),
    "log1p": log1p,
    "lt": binary("Less"),
    "max": maximum,
    "min": minimum,
    "mul": binary("Mul"),
    "ne": not_equal,
    "not": not_,
    "or": binary("BitwiseOr", "Or"),
    "pow": binary("Pow"),
    "reduce_precision": reduce_precision,
    "rem": remainder,
    "round": round_,
    "rsqrt": rsqrt,
    "select_n": select,
    "square": square,
    "sub": binary("Sub"),
    "xor": binary("BitwiseXor", "Xor"),
}
