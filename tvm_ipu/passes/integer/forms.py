"""Operators between ``dequantize`` and ``quantize`` in integers (docs/numerics.md, composites)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import relax

from tvm_ipu.passes.integer import products, requantize as rq, rows
from tvm_ipu.passes.integer.known import Known
from tvm_ipu.passes.integer.requantize import Result, Term
from tvm_ipu.passes.integer.resize import linear_resize
from tvm_ipu.passes.integer.tensors import ACCUMULATOR_LIMIT, Array, NoInteger, Quantized, Sum, real_constant
from tvm_ipu.passes.rewrite import Rewriter, op_name, shape_of

R = relax.op


Form = Callable[[Known, relax.Call, Result], relax.Expr]


INNER_STEPS = {8: 64, 16: 1}
"""Steps of a function that is an operand of an addition for one step of the result, by the result's bits."""


def _added(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """A chain of additions and subtractions."""
    return known.arithmetic.add(_terms(known, call, 1, result), result)


def _terms(known: Known, call: relax.Call, sign: int, result: Result) -> list[Term]:
    terms: list[Term] = []
    signs = (sign, -sign if op_name(call) == "relax.subtract" else sign)
    for arg, own in zip(call.args, signs, strict=True):
        number = real_constant(known.rewriter, arg)
        part = known.quantized(arg) or known.total(arg)
        inner = known.rewriter.value(arg)
        if number is not None:
            terms.append(own * number)
        elif part is not None:
            terms.append(part if own > 0 else part.times(own))
        elif op_name(inner) in ("relax.add", "relax.subtract"):
            terms += _terms(known, inner, own, result)
        else:
            terms.append(_inner(known, arg, result).times(own))
    return terms


def _inner(known: Known, arg: relax.Expr, result: Result) -> Quantized:
    """An operand of an addition that is computed from quantised tensors, but was not quantised itself."""
    steps = INNER_STEPS[16 if "16" in result.dtype else 8]
    wanted = Result.of("int16", result.single_scale / steps, 0)
    found = known.integer_form(arg, wanted)
    if found is None:
        raise NoInteger(f"its operand '{label_of(arg)}' is not quantised")
    return Quantized(known.rewriter.emit(found), "int16", wanted.single_scale, 0)


def _multiplied(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    a, b = call.args
    for q, other in ((a, b), (b, a)):
        factor = real_constant(known.rewriter, other)
        if factor is not None:
            return _times_constant(known, q, factor, result)
    return _product(known, call, result)


def _divided(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    divisor = real_constant(known.rewriter, call.args[1])
    if divisor is None:
        raise NoInteger("it divides by a tensor")
    if not divisor.all():
        raise NoInteger("it divides by zero")
    return _times_constant(known, call.args[0], 1 / divisor, result)


def _converted(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """Whole numbers, which are sums with a unit of 1."""
    x = call.args[0]
    dtype = str(x.ty.dtype)
    if "int" not in dtype and dtype != "bool":
        raise NoInteger(f"it converts from {dtype}")
    bits = 1 if dtype == "bool" else int(dtype.lstrip("uint"))
    if bits >= 32:
        low = 0 if dtype.startswith("u") else -ACCUMULATOR_LIMIT
        x = R.clip(x, low, ACCUMULATOR_LIMIT)
    reach = ACCUMULATOR_LIMIT if bits >= 32 else 2**bits
    return known.arithmetic.requantize(Sum(R.astype(x, "int32"), np.ones(()), reach), result)


def _times_constant(known: Known, arg: relax.Expr, factor: Array, result: Result) -> relax.Expr:
    """A tensor times numbers, which may differ between its elements: sums with a scale for each."""
    q = _quantized(known, arg)
    return known.arithmetic.requantize(Sum(rq.centred_int(q), np.asarray(q.scale * factor), q.reach), result)


def _product(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    a, b = (_quantized(known, arg) for arg in call.args)
    reach = a.reach * b.reach
    is_wide = reach > ACCUMULATOR_LIMIT
    left, right = (R.astype(rq.centred_int(q), "int64" if is_wide else "int32") for q in (a, b))
    scale = np.float64(a.scale) * np.float64(b.scale)
    product = Sum(R.multiply(left, right), np.asarray(scale), reach, is_wide=is_wide)
    return known.arithmetic.requantize(product, result)


def _concatenated(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    parts = [known.integer_form(field, result) for field in fields(known.rewriter, call)]
    if any(part is None for part in parts):
        raise NoInteger("an operand is not quantised")
    return R.concat([known.rewriter.emit(p) for p in parts], call.attrs.axis)


def _average_pool(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    x, attrs = _quantized(known, call.args[0]), call.attrs
    kernel, strides, padding, dilation = (
        [int(v) for v in values] for values in (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation)
    )
    if str(attrs.layout) != "NCHW":
        raise NoInteger(f"its layout is {attrs.layout}")
    total = products.window_sum(known.rewriter, x, kernel, strides, padding, dilation)
    counts = np.full((1, 1, 1, 1), np.prod(kernel))
    if any(padding) and not attrs.count_include_pad:
        counts = _window_counts(
            shape_of(call.args[0])[2:], shape_of(call)[2:], kernel, strides, padding, dilation
        )
    return known.arithmetic.requantize(total.times(1 / counts), result)


def _mean(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    x = _quantized(known, call.args[0])
    rank = len(shape_of(call.args[0]))
    axes = range(rank) if call.attrs.axis is None else sorted(int(a) % rank for a in call.attrs.axis)
    total = products.whole_sum(known.rewriter, x, list(axes), bool(call.attrs.keepdims))
    count = np.prod([shape_of(call.args[0])[a] for a in axes])
    return known.arithmetic.requantize(total.times(1 / count), result)


def _quantized(known: Known, expr: relax.Expr) -> Quantized:
    q = known.quantized(expr)
    if q is None:
        raise NoInteger(f"its operand '{label_of(expr)}' is not quantised")
    return q


FORMS: dict[str, Form] = {
    "relax.add": _added,
    "relax.subtract": _added,
    "relax.multiply": _multiplied,
    "relax.divide": _divided,
    "relax.concat": _concatenated,
    "relax.nn.avg_pool2d": _average_pool,
    "relax.mean": _mean,
    "relax.astype": _converted,
    "relax.image.resize2d": linear_resize,
    "relax.nn.softmax": rows.softmax,
    "relax.call_tir": rows.normalise,
}
"""By operator; each raises ``NoInteger`` where it does not apply."""


def _window_counts(
    extents: Sequence[int],
    outputs: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Array:
    """Elements of the image under each window, [1, 1, height, width]."""
    per_axis = []
    for axis, (extent, count) in enumerate(zip(extents, outputs, strict=True)):
        start = np.arange(count)[:, None] * strides[axis] - padding[axis]
        at = start + np.arange(kernel[axis]) * dilation[axis]
        per_axis.append(np.maximum(((at >= 0) & (at < extent)).sum(1), 1))
    return np.asarray(np.outer(*per_axis)[None, None])


def fields(rewriter: Rewriter, call: relax.Call) -> list[relax.Expr]:
    """Elements of the tuple that a call reads."""
    return list(rewriter.value(call.args[0]).fields)


def label_of(expr: relax.Expr) -> str:
    """Name of a value, for messages."""
    return str(getattr(expr, "name", "") or "a constant")
