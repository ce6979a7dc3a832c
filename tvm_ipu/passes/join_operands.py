"""Make one function of an operator on several quantised tensors, so that what kernels exchange stays narrow.

    lv0 = R.multiply(R.astype(a, "float32"), ra)
    lv1 = R.multiply(R.astype(b, "float32"), rb)      ->      y = R.call_tir(join, (a, b))
    y = R.astype(R.round(R.add(lv0, lv1)), "uint8")

Fusion would let the kernel of ``a`` go on to ``lv0`` and write that: four bytes an element, not one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, te, tirx

from tvm_ipu.passes.rewrite import Rewriter, constant, op_name, rewrite, shape_of

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "relax.add": lambda a, b: a + b,
    "relax.subtract": lambda a, b: a - b,
    "relax.multiply": lambda a, b: a * b,
    "relax.maximum": tirx.max,
    "relax.minimum": tirx.min,
    "relax.right_shift": lambda a, b: a >> b,
}
_UNARY = ("relax.astype", "relax.round", "relax.clip")
_NARROW = ("int8", "uint8")


def join_operands(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Join what ends in a cast to 8 bits and starts from two or more tensors, one of them of 8 bits."""
    return rewrite(module, _join)


def _join(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) != "relax.astype" or str(call.ty.dtype) not in _NARROW:
        return None
    leaves: list[relax.Expr] = []
    _collect(rewriter, call, leaves)
    tensors = list(dict.fromkeys(leaf for leaf in leaves if constant(leaf) is None))
    dtypes = [str(t.ty.dtype) for t in tensors]
    if len(tensors) < 2 or not any(d in _NARROW for d in dtypes) or "float32" in dtypes:
        return None
    operands = [*tensors, *dict.fromkeys(v for v in leaves if constant(v) is not None and shape_of(v))]
    shape = shape_of(call)

    def compute(*placeholders: te.Tensor) -> te.Tensor:
        read = dict(zip(operands, placeholders, strict=True))
        return te.compute(shape, lambda *at: _element(rewriter, call, read, at, shape), name="join")

    return rewriter.builder.call_te(compute, *operands, primfunc_name_hint="join")


def _inner(rewriter: Rewriter, expr: relax.Expr) -> relax.Call | None:
    """The call to go on with behind a value; None where the value is a leaf."""
    call = rewriter.value(expr)
    known = isinstance(call, relax.Call) and (op_name(call) in _BINARY or op_name(call) in _UNARY)
    narrow = isinstance(expr.ty, relax.TensorType) and str(expr.ty.dtype) in _NARROW
    return call if known and not narrow and rewriter.single_use(expr) else None


def _collect(rewriter: Rewriter, call: relax.Call, leaves: list[relax.Expr]) -> None:
    for arg in call.args:
        if isinstance(arg.ty, relax.TensorType):
            inner = _inner(rewriter, arg)
            if inner is None:
                leaves.append(arg)
            else:
                _collect(rewriter, inner, leaves)


def _element(
    rewriter: Rewriter, call: relax.Call, read: dict[relax.Expr, te.Tensor], at: Any, shape: tuple[int, ...]
) -> Any:
    """The call's element at a position of the result, from elements of the leaves."""

    def value(arg: relax.Expr) -> Any:
        inner = _inner(rewriter, arg)
        if inner is not None:
            return _element(rewriter, inner, read, at, shape)
        if arg not in read:
            number = constant(arg)
            assert number is not None
            return tirx.const(number.item(), str(number.dtype))
        tensor = read[arg]
        rank = len(tensor.shape)
        places = zip(at[len(at) - rank :], shape[len(at) - rank :], tensor.shape, strict=True)
        return tensor(*(i if size == int(d) else 0 for i, size, d in places))

    operands = [value(arg) for arg in call.args if isinstance(arg.ty, relax.TensorType)]
    match op_name(call):
        case "relax.astype":
            return operands[0].astype(str(call.attrs.dtype))
        case "relax.round":
            return tirx.round(operands[0])
        case "relax.clip":
            dtype = str(operands[0].ty.dtype)
            low, high = (tirx.const(bound.value, dtype) for bound in call.args[1:])
            return tirx.max(tirx.min(operands[0], high), low)
    return _BINARY[op_name(call)](*operands)
