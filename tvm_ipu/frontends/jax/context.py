"""What rules know while a function's equations are converted, and how equations run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from onnx import helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.graph import Array
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder

Value: TypeAlias = "str | Array"
"""What a variable of a jaxpr is: a tensor of the model, or an array that is known already.

Either may have 1 where the variable has a larger dimension: broadcasts are left to the operators behind them.
"""

Rule: TypeAlias = "Callable[[Context, Any], Value | Sequence[Value]]"
"""Converts an equation; gives its results."""

MAX_FOLDED = 2**24
"""Elements up to which results of known arrays are computed at once."""


class Context:
    """The builder, and the values of the variables of one jaxpr.

    Attributes:
        b: Collects the nodes.
        rules: Rules by primitive.
        env: Values of variables.
    """

    def __init__(self, b: ModelBuilder, rules: dict[str, Rule]) -> None:
        self.b = b
        self.rules = rules
        self.env: dict[Any, Value] = {}

    def run(self, jaxpr: Any, consts: Sequence[Value], args: Sequence[Value]) -> list[Value]:
        """The results of a jaxpr.

        Args:
            jaxpr: An open ``Jaxpr``.
            consts: Values of its constants.
            args: Values of its arguments.
        """
        inner = Context(self.b, self.rules)
        inner.env.update(zip(jaxpr.constvars, consts, strict=True))
        inner.env.update(zip(jaxpr.invars, args, strict=True))
        for eqn in jaxpr.eqns:
            inner.convert(eqn)
        return [inner.lazy(var) for var in jaxpr.outvars]

    def convert(self, eqn: Any) -> None:
        """Add what one equation computes."""
        known = [self.known(var) for var in eqn.invars]
        location = self.b.location
        self.b.location = place(eqn, location)
        if all(value is not None for value in known) and _is_foldable(eqn):
            made: Any = _evaluate(eqn, known)
        elif eqn.primitive.name in self.rules and not _is_complex(eqn):
            made = self.rules[eqn.primitive.name](self, eqn)
        else:
            made = self._foreign(eqn)
        self.b.location = location
        made = list(made) if isinstance(made, list | tuple) else [made]
        self.env.update(zip(eqn.outvars, made, strict=True))

    def _foreign(self, eqn: Any) -> list[str]:
        """Nodes that the loader refuses, with the user's line in their names."""
        values = [self.lazy(var) for var in eqn.invars]
        names = [self.b.constant(v) if isinstance(v, np.ndarray) else v for v in values]
        results = [
            (int(helper.np_dtype_to_tensor_dtype(np.dtype(var.aval.dtype))), tuple(var.aval.shape))
            for var in eqn.outvars
        ]
        return self.b.foreign(eqn.primitive.name, names, results, "jax")

    def lazy(self, var: Any) -> Value:
        """The value of a variable or literal; it may have 1 where the variable has a larger dimension."""
        if hasattr(var, "val"):
            return np.asarray(var.val, var.aval.dtype)
        return self.env[var]

    def known(self, var: Any) -> Array | None:
        """The value of a variable as an array of its shape; None where it is computed when the model runs."""
        value = self.lazy(var)
        return np.broadcast_to(value, var.aval.shape) if isinstance(value, np.ndarray) else None

    def full(self, var: Any) -> Value:
        """The value of a variable in its shape."""
        value = self.lazy(var)
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(np.broadcast_to(value, var.aval.shape))
        shape = tuple(var.aval.shape)
        return (
            value if self.b.shape(value) == shape else self.b.add("Expand", value, np.array(shape, np.int64))
        )

    def add(self, op_type: str, *inputs: Value | None, **attributes: Any) -> str:
        """Append a node of one output."""
        return self.b.add(op_type, *inputs, **attributes)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """A value in another shape."""
        if isinstance(value, np.ndarray):
            return value.reshape(tuple(shape))
        if self.b.shape(value) == tuple(shape):
            return value
        return self.b.add("Reshape", value, np.array(shape, np.int64))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """A value with its axes in another order."""
        if list(perm) == list(range(len(perm))):
            return value
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value.transpose(perm))
        return self.b.add("Transpose", value, perm=[int(p) for p in perm])

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value."""
        return value.shape if isinstance(value, np.ndarray) else self.b.shape(value)

    def like(self, var: Any, value: Any) -> Array:
        """A constant of no dimensions with the element type of a variable."""
        return np.asarray(value, var.aval.dtype)

    def cast(self, value: Value, dtype: Any) -> Value:
        """A value in another element type."""
        if isinstance(value, np.ndarray):
            return value.astype(dtype)
        elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return value if self.b.elem_type(value) == elem_type else self.b.add("Cast", value, to=elem_type)


def _is_foldable(eqn: Any) -> bool:
    """Whether an equation of known operands is computed at once: calls are not, nor are broadcasts."""
    size = sum(math.prod(var.aval.shape) for var in eqn.outvars)
    widens = eqn.primitive.name == "broadcast_in_dim" and size > math.prod(eqn.invars[0].aval.shape)
    return size <= MAX_FOLDED and not widens and not _is_call(eqn)


def _is_call(eqn: Any) -> bool:
    """Whether it holds functions."""
    parts = [p for v in eqn.params.values() for p in (v if isinstance(v, list | tuple) else [v])]
    return any(hasattr(part, "eqns") or hasattr(part, "jaxpr") for part in parts)


def _is_complex(eqn: Any) -> bool:
    return not _is_call(eqn) and any(var.aval.dtype.kind == "c" for var in (*eqn.invars, *eqn.outvars))


def _evaluate(eqn: Any, values: list[Any]) -> list[Array]:
    """What an equation gives for known arrays, computed by JAX."""
    made = eqn.primitive.bind(*values, **eqn.params)
    made = made if eqn.primitive.multiple_results else [made]
    return [np.asarray(value) for value in made]


def place(eqn: Any, caller: str = "") -> str:
    """A name for the nodes of an equation: scopes, primitive, and the user's line.

    Args:
        eqn: The equation.
        caller: The place of the call that it is inside of, for the line of functions that JAX keeps without.
    """
    frame = _frame(eqn)
    scope = str(eqn.source_info.name_stack)
    name = f"{scope}/{eqn.primitive.name}" if scope else eqn.primitive.name
    outside = caller.rpartition("@")[2] if "@" in caller else ""
    line = f"{Path(frame.file_name).name}:{frame.start_line}" if frame else outside
    return f"{name}@{line}" if line else name


def source_line(eqn: Any) -> str:
    """Where in the user's source an equation comes from."""
    frame = _frame(eqn)
    return f"{frame.file_name}:{frame.start_line} ({frame.function_name})" if frame else "unknown place"


def _frame(eqn: Any) -> Any:
    from jax._src import source_info_util  # JAX has no public way to it

    return source_info_util.user_frame(eqn.source_info.traceback)


def refuse(eqn: Any, what: str) -> ModelError:
    """The error for a form of a primitive that cannot be converted."""
    return ModelError(f"primitive '{eqn.primitive.name}' at {source_line(eqn)}: {what} cannot be compiled")
