"""What the operator converters share: attributes, constants, axes, element-wise kernels and loop nests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx
from tvm.script.ir_builder import IRBuilder, tirx as T

from tvm_ipu.base.model import ELEMENTWISE_ATTR
from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode

HALF_TYPES = ("float16", "bfloat16")
FLOAT_TYPES = (*HALF_TYPES, "float32", "float64")
_OPAQUE_PATTERN = 8
"""TVM's operator pattern of a function that is never fused with another."""


def is_float(dtype: str) -> bool:
    """True for the floating-point types."""
    return dtype in FLOAT_TYPES


def is_signed(dtype: str) -> bool:
    """True for signed integers."""
    return dtype.startswith("int")


def required(node: Node, index: int, what: str) -> relax.Expr:
    """Input ``index`` of ``node``, called ``what`` in the specification.

    Raises:
        UnsupportedNode: It is missing.
    """
    value = node.input(index)
    if value is None:
        raise UnsupportedNode(f"input '{what}' is missing")
    return value


def attr_text(node: Node, name: str, default: str, allowed: Sequence[str]) -> str:
    """Text attribute ``name``, checked against ``allowed``."""
    value = str(node.attrs.get(name, default))
    if value not in allowed:
        raise UnsupportedNode(f"attribute '{name}' is '{value}'; allowed are {', '.join(allowed)}")
    return value


def attr_bool(node: Node, name: str) -> bool:
    """Integer attribute ``name`` as a flag; false where it is missing."""
    return bool(node.attrs.get(name, 0))


def attr_ints(node: Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    """List attribute ``name`` as a tuple of ``len(default)`` integers."""
    value = tuple(int(v) for v in node.attrs.get(name, default))
    if len(value) != len(default):
        raise UnsupportedNode(f"attribute '{name}' has {len(value)} values; {len(default)} are needed")
    return value


def normal_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front.

    Raises:
        UnsupportedNode: It is outside ``[-rank, rank)``.
    """
    if not -rank <= axis < max(rank, 1):
        raise UnsupportedNode(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank if rank else 0


def scalar(ctx: Context, value: Any, dtype: str) -> relax.Expr:
    """A constant of rank 0."""
    return ctx.const(np.array(value, dtype=numpy_dtype(dtype)))


def full(ctx: Context, shape: Sequence[int], value: Any, dtype: str) -> relax.Expr:
    """A tensor of equal elements that is made when the model runs, not stored."""
    return ctx.te(lambda: te.compute(tuple(shape), lambda *_: number(value, dtype), name="full"), name="full")


def cast(ctx: Context, expr: relax.Expr, dtype: str) -> relax.Expr:
    """``expr`` in another type, for conversions that cannot overflow (``cast.convert`` does the others)."""
    return expr if ctx.dtype(expr) == dtype else ctx.emit(relax.op.astype(expr, dtype))


def in_float32(ctx: Context, fn: Callable[..., relax.Expr], *exprs: relax.Expr) -> relax.Expr:
    """Apply ``fn`` in float32 where the first of ``exprs`` is of half precision, and round its result."""
    dtype = ctx.dtype(exprs[0])
    if dtype not in HALF_TYPES:
        return ctx.emit(fn(*exprs))
    wide = [cast(ctx, e, "float32") if ctx.dtype(e) in HALF_TYPES else e for e in exprs]
    return cast(ctx, ctx.emit(fn(*wide)), dtype)


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Shape that numpy's broadcasting gives.

    Raises:
        UnsupportedNode: The shapes do not fit together.
    """
    try:
        return np.broadcast_shapes(*(tuple(s) for s in shapes))
    except ValueError as err:
        raise UnsupportedNode(f"shapes {', '.join(map(str, shapes))} do not broadcast") from err


def broadcast_index(index: Sequence[Any], shape: Sequence[Any]) -> list[Any]:
    """Where an element of the broadcast result lies in an operand of ``shape``."""
    tail = index[len(index) - len(shape) :]
    return [0 if int(extent) == 1 else i for i, extent in zip(tail, shape, strict=True)]


def elementwise(
    ctx: Context,
    name: str,
    fn: Callable[..., Any],
    *exprs: relax.Expr,
    dtype: str | None = None,
    widen: bool = True,
    function: str = "",
) -> relax.Expr:
    """One kernel for a formula over elements, with numpy's broadcasting.

    Args:
        name: Name of the kernel.
        fn: Gets one scalar expression an operand and returns the element of the result.
        dtype: Type of the result; that of the first operand where not given.
        widen: Give half-precision operands to ``fn`` as float32.
        function: What ``base.model.ELEMENTWISE_ATTR`` calls the formula, if anything.
    """
    out_dtype = dtype or ctx.dtype(exprs[0])
    shape = broadcast_shape(*(ctx.shape(e) for e in exprs))

    def compute(*tensors: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            loads = [t(*broadcast_index(index, t.shape)) for t in tensors]
            wide = [v.astype("float32") if widen and kind(v) in HALF_TYPES else v for v in loads]
            return fn(*wide).astype(out_dtype)

        return te.compute(shape, element, name=name)

    return ctx.te(compute, *exprs, name=name, attrs={ELEMENTWISE_ATTR: function} if function else None)


def fold(
    ctx: Context, name: str, fn: Callable[[Any, Any], Any], exprs: Sequence[relax.Expr], function: str = ""
) -> relax.Expr:
    """``fn`` over all of ``exprs`` from left to right, in one kernel."""
    if len(exprs) == 1:
        return exprs[0]
    return elementwise(ctx, name, lambda *values: functools.reduce(fn, values), *exprs, function=function)


def kind(value: Any) -> str:
    """Type of a scalar expression of a kernel, in TVM's spelling."""
    return str(value.ty.dtype)


def number(value: float, dtype: str) -> tirx.Expr:
    """A constant of a kernel."""
    return tirx.const(value, dtype)


def choose(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``, for sides that only clamps in them make safe.

    ``Select`` computes both sides, but TVM simplifies each under its condition, and so drops clamps. The
    condition of this one says nothing to the simplifier.
    """
    bit = tirx.bitwise_and(condition.astype("int32"), tirx.const(1, "int32"))
    return tirx.Select(tirx.NE(bit, tirx.const(0, "int32")), a, b)


def wrap_index(index: Any, extent: int) -> Any:
    """An index from data as int32 in ``[0, extent)``: negative ones count from the end, all are clamped."""
    wide = kind(index) if kind(index) in ("int64", "int32") else "int64"
    low, high = number(-extent, wide), number(extent - 1, wide)
    safe = tirx.max(tirx.min(index.astype(wide), high), low).astype("int32")
    return tirx.Select(safe < 0, safe + number(extent, "int32"), safe)


def loops(
    ctx: Context,
    name: str,
    inputs: Sequence[relax.Expr],
    outputs: Sequence[tuple[Sequence[int], str]],
    body: Callable[..., None],
) -> list[relax.Expr]:
    """A kernel written as loops, for operators whose steps depend on each other.

    Args:
        name: Name of the kernel.
        inputs: Operands.
        outputs: Shape and type of each result.
        body: Builds the loops with TVM's IR builder (``T.parallel``, ``T.serial`` ...); it gets a buffer for
            each operand and each result. One outermost ``T.parallel`` loop lets threads share the work.

    Returns:
        The results.
    """
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "op_pattern": _OPAQUE_PATTERN})
        ins = [T.arg(f"x{i}", T.Buffer(ctx.shape(e), ctx.dtype(e))) for i, e in enumerate(inputs)]
        outs = [T.arg(f"y{i}", T.Buffer(tuple(s), d)) for i, (s, d) in enumerate(outputs)]
        with T.sblock("root"):
            body(*(T.buffer_proxy(b) for b in (*ins, *outs)))
    func = ctx.bb.add_func(builder.get(), name)
    types = [relax.TensorType(tuple(s), d) for s, d in outputs]
    result = ctx.emit(relax.call_tir(func, list(inputs), types if len(types) > 1 else types[0]))
    if len(types) == 1:
        return [result]
    return [ctx.emit(relax.TupleGetItem(result, i)) for i in range(len(types))]


def local(dtype: str, *extents: int) -> Any:
    """A buffer private to the surrounding loop iteration, for ``loops``; of one element by default."""
    return T.buffer_proxy(T.alloc_buffer(extents or (1,), dtype, scope="local"))


LANES = 16
"""Elements of the vectors in ``loops``; LLVM splits them into registers."""


def vector_loop(extent: int, body: Callable[[Any], None]) -> None:
    """A loop over independent elements inside ``loops``, in vectors as far as they go."""
    whole, rest = divmod(extent, LANES)
    if whole:
        with T.serial(whole) as outer, T.vectorized(LANES) as inner:
            body(outer * LANES + inner)
    if rest:
        with T.serial(rest) as i:
            body(i + whole * LANES)


def value_limits(dtype: str) -> tuple[Any, Any]:
    """Lowest and highest value of a type (infinities for floating-point types)."""
    if is_float(dtype):
        return -float("inf"), float("inf")
    if dtype == "bool":
        return 0, 1
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def ints(array: NDArray[Any]) -> list[int]:
    """The elements of a constant as Python integers, flattened."""
    return [int(v) for v in np.asarray(array).ravel()]
