"""Expressions of fused functions: substitution, 32-bit indices, cost, flat offsets and their strides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.tirx import Expr

CHEAP_CALLS = (
    "if_then_else",
    "likely",
    "reinterpret",
    "bitwise_and",
    "bitwise_or",
    "shift_left",
    "shift_right",
)
COSTS = {"sqrt": 8.0, "rsqrt": 12.0, "fabs": 1.0, "floor": 2.0, "ceil": 2.0, "round": 2.0, "trunc": 2.0}
CALL_COST = 25.0
"""Vector instructions of a mathematical function."""

_BINARY = (tirx.Add, tirx.Sub, tirx.Mul, tirx.FloorDiv, tirx.FloorMod, tirx.Div, tirx.Mod, tirx.Min, tirx.Max)
_COMPARE = (tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE)


def shape_of(buffer: tirx.Buffer) -> tuple[int, ...]:
    """Static shape of a buffer."""
    return tuple(int(dim) for dim in buffer.ty.shape)


def dtype_of(buffer: tirx.Buffer) -> str:
    """Element type of a buffer."""
    return str(buffer.ty.dtype.dtype)


def size_of(buffer: tirx.Buffer) -> int:
    """Number of elements of a buffer."""
    return math.prod(shape_of(buffer))


def strides_of(shape: Sequence[int]) -> list[int]:
    """Elements from one index to the next in each dimension of a dense tensor."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def i32(value: int) -> Expr:
    """An int32 constant."""
    return tirx.IntImm("int32", value)


def substitute(value: Expr, values: Mapping[tirx.Var, Expr]) -> Expr:
    """``value`` with variables replaced."""
    return tvm_ffi.structural_map(value, (ir.Var, lambda var: values.get(var, var))) if values else value


def replace_loads(value: Expr, replace: Callable[[ir.TensorLoad], Expr]) -> Expr:
    """``value`` with every load replaced; indices of a load are already rewritten when its turn comes."""
    return tvm_ffi.structural_map(value, (ir.TensorLoad, replace))


def loads(value: Expr) -> list[ir.TensorLoad]:
    """All loads in an expression, those in indices of others included."""
    found: list[ir.TensorLoad] = []
    tvm_ffi.structural_walk(value, (ir.TensorLoad, found.append))
    return found


def variables(value: Expr, inside_loads: bool = True) -> set[tirx.Var]:
    """Variables of an expression that are not buffers."""
    if not inside_loads:
        value = tvm_ffi.structural_map(value, (ir.TensorLoad, _zero_of), order="pre")
    found: set[tirx.Var] = set()

    def add(var: ir.Var) -> None:
        if isinstance(var.ty, ir.PrimType):
            found.add(var)

    tvm_ffi.structural_walk(value, (ir.Var, add))
    return found


def _zero_of(load: ir.TensorLoad) -> Expr:
    return tirx.const(0, str(load.ty))


def contains(
    value: Expr | tirx.Stmt, kinds: tuple[type, ...], test: Callable[[Expr], bool] = lambda node: True
) -> bool:
    """True when a node of one of the types, in an expression or a statement, satisfies the test."""
    found = False

    def check(node: Expr) -> None:
        nonlocal found
        found = found or test(node)

    tvm_ffi.structural_walk(value, (kinds, check))
    return found


def op_name(call: ir.Call) -> str:
    """Name of the function that is called, without its namespace; empty for what is no operator."""
    return call.op.name.rsplit(".", 1)[-1] if isinstance(call.op, ir.Op) else ""


def is_branch(node: Expr) -> bool:
    """True for ``if_then_else``."""
    return isinstance(node, ir.Call) and op_name(node) == "if_then_else"


def cost(value: Expr) -> float:
    """Vector instructions to evaluate an expression, addresses not counted."""
    total = 0.0

    def walk(node: Expr) -> object:
        nonlocal total
        if isinstance(node, ir.TensorLoad):
            total += 1
            return tvm_ffi.WalkResult.SKIP
        if isinstance(node, ir.Call):
            name = op_name(node)
            total += 1.0 if name in CHEAP_CALLS else COSTS.get(name, CALL_COST)
        elif isinstance(node, tirx.Div):
            total += 4
        elif not isinstance(node, ir.Var | tirx.IntImm | tirx.FloatImm | ir.StringImm):
            total += 1
        return None

    tvm_ffi.structural_walk(value, (tirx.Expr, walk), order="pre")
    return total


def narrow(value: Expr) -> Expr:
    """An index as an int32 expression: no tensor has 2^31 elements.

    Sums and products of numbers from data may be narrowed before they are made, clamps of them may not.
    """
    if str(value.ty) == "int32":
        return value
    if isinstance(value, tirx.IntImm):
        return i32(int(value))
    if isinstance(value, tirx.Cast):
        inner = value.value
        return inner if str(inner.ty) == "int32" else tirx.Cast("int32", inner)
    if isinstance(value, _BINARY):
        if not isinstance(value, (tirx.Add, tirx.Sub, tirx.Mul)) and any(
            _is_wide(load) for load in loads(value)
        ):
            return tirx.Cast("int32", value)
        return type(value)(narrow(value.a), narrow(value.b))
    if isinstance(value, tirx.Select):
        return tirx.Select(value.condition, narrow(value.true_value), narrow(value.false_value))
    if is_branch(value):
        condition, then, otherwise = value.args
        return tirx.if_then_else(condition, narrow(then), narrow(otherwise))
    return tirx.Cast("int32", value)


def _is_wide(load: ir.TensorLoad) -> bool:
    return str(load.ty) in ("int64", "uint64", "float32", "float64", "float16", "bfloat16")


def narrow_indices(value: Expr) -> Expr:
    """``value`` with the indices of loads, and comparisons and conversions of positions, in 32 bits."""

    def load(node: ir.TensorLoad) -> Expr:
        return tirx.BufferLoad(node.source, [narrow(at) for at in node.indices])

    def compare(node: Expr) -> Expr:
        if str(node.a.ty) == "int64" and _is_position(node.a) and _is_position(node.b):
            return type(node)(narrow(node.a), narrow(node.b))
        return node

    def convert(node: tirx.Cast) -> Expr:
        if str(node.value.ty) in ("int64", "uint64") and node.ty.dtype.is_float and _is_position(node.value):
            return tirx.Cast(node.ty.dtype, narrow(node.value))
        return node

    return tvm_ffi.structural_map(value, [(ir.TensorLoad, load), (_COMPARE, compare), (tirx.Cast, convert)])


def _is_position(value: Expr) -> bool:
    """True for arithmetic on loop variables that have been cast from int32."""
    if isinstance(value, tirx.IntImm):
        return abs(int(value)) < 2**31
    if isinstance(value, tirx.Cast):
        inner = value.value
        return (str(inner.ty) == "int32" and isinstance(inner, ir.Var)) or (
            str(inner.ty) in ("int64", "uint64") and _is_position(inner)
        )
    return isinstance(value, _BINARY) and _is_position(value.a) and _is_position(value.b)


def flat_offset(indices: Iterable[Expr], shape: Sequence[int]) -> Expr:
    """Position in a dense tensor."""
    offset: Expr = i32(0)
    for at, size, stride in zip(indices, shape, strides_of(shape), strict=True):
        if size > 1:
            offset = offset + at * i32(stride)
    return offset


def strides(offset: Expr, axes: Sequence[tirx.Var], analyzer: sym.Analyzer) -> list[int | None]:
    """How far ``offset`` moves with each variable; None where that is no constant."""
    linear = sym.detect_linear_equation(offset, list(axes))
    if linear and all(isinstance(c, tirx.IntImm) for c in linear[:-1]):
        rest = variables(linear[-1])
        return [None if axis in rest else int(c) for axis, c in zip(axes, linear[:-1], strict=True)]
    used = variables(offset)
    found: list[int | None] = []
    for axis in axes:
        step: Expr = i32(0)
        if axis in used:
            step = analyzer.simplify(substitute(offset, {axis: axis + i32(1)}) - offset)
        found.append(int(step) if isinstance(step, tirx.IntImm) else None)
    return found


def bind_range(analyzer: sym.Analyzer, var: tirx.Var, extent: int) -> None:
    """Tell the analyzer that ``0 <= var < extent``."""
    analyzer.bind(var, ir.Range(i32(0), i32(extent)))
