"""Operators between ``dequantize`` and ``quantize`` in integers (docs/numerics.md, composites)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from tvm import relax

from tvm_ipu.base.model import ELEMENTWISE_ATTR, INTERPOLATION_ATTR
from tvm_ipu.kernels import fixed_functions as fixed
from tvm_ipu.passes.integer import products, requantize as rq, rows
from tvm_ipu.passes.integer.choices import chosen, extremum, in_steps
from tvm_ipu.passes.integer.interpolation import interpolated
from tvm_ipu.passes.integer.known import Known, not_quantised, operand
from tvm_ipu.passes.integer.requantize import Result, Term
from tvm_ipu.passes.integer.resize import linear_resize
from tvm_ipu.passes.integer.tensors import (
    ACCUMULATOR_LIMIT,
    NARROW_LIMIT,
    WIDE_LIMIT,
    Array,
    NoInteger,
    Quantized,
    Sum,
    real_constant,
)
from tvm_ipu.passes.lower_operators import ELEMENTWISE, call_te
from tvm_ipu.passes.rewrite import Rewriter, op_name, shape_of

R = relax.op


Form = Callable[[Known, relax.Call, Result], relax.Expr]


QUOTIENT_BITS = 45
"""Significant bits of a ratio of steps: 17 more fit int64."""

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
            terms.append(np.asarray(own * number))
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
        raise not_quantised(arg)
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
        return _quotient(known, call, result)
    if not divisor.all():
        raise NoInteger("it divides by zero")
    return _times_constant(known, call.args[0], 1 / divisor, result)


def _quotient(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """One tensor by another."""
    a, b = (operand(known, arg) for arg in call.args)
    ratio = a.scale / b.scale / result.single_scale
    shift = min(60, QUOTIENT_BITS - math.frexp(ratio)[1])
    if shift < 8:
        raise NoInteger(f"a step of its result is {result.single_scale:g}")
    plan = fixed.Quotient((a.zero, b.zero), round(ratio * 2.0**shift), result.steps(shift))
    compute = partial(fixed.quotient, plan=plan)
    return call_te(known.rewriter, "fixed_quotient", compute, [a.expr, b.expr], ELEMENTWISE)


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
    q = known.quantized(arg)
    if q is None and factor.size == 1 and factor > 0 and not isinstance(result.scale, np.ndarray):
        found = known.integer_form(arg, replace(result, scale=result.scale / float(factor.flat[0])))
        if found is not None:
            return found
    if q is None:
        raise not_quantised(arg)
    return known.arithmetic.requantize(Sum(rq.centred_int(q), np.asarray(q.scale * factor), q.reach), result)


def _product(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    a, b = (operand(known, arg) for arg in call.args)
    reach = a.reach * b.reach
    is_wide = reach > ACCUMULATOR_LIMIT
    left, right = (R.astype(rq.centred_int(q), "int64" if is_wide else "int32") for q in (a, b))
    scale = np.float64(a.scale) * np.float64(b.scale)
    product = Sum(R.multiply(left, right), np.asarray(scale), reach, is_wide=is_wide)
    return known.arithmetic.requantize(product, result)


def _concatenated(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    return R.concat(in_steps(known, fields(known.rewriter, call), result), call.attrs.axis)


def _average_pool(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    x, attrs = operand(known, call.args[0]), call.attrs
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
    x = operand(known, call.args[0])
    rank = len(shape_of(call.args[0]))
    axes = range(rank) if call.attrs.axis is None else sorted(int(a) % rank for a in call.attrs.axis)
    total = products.whole_sum(known.rewriter, x, list(axes), bool(call.attrs.keepdims))
    count = np.prod([shape_of(call.args[0])[a] for a in axes])
    return known.arithmetic.requantize(total.times(1 / count), result)


def _summed(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """Sums of a tensor, of its absolute values or of its squares."""
    inner = known.rewriter.value(call.args[0])
    rank = len(shape_of(call.args[0]))
    axes = range(rank) if call.attrs.axis is None else sorted(int(a) % rank for a in call.attrs.axis)
    keepdims = bool(call.attrs.keepdims)
    is_square = op_name(inner) == "relax.multiply" and inner.args[0].same_as(inner.args[1])
    if not is_square and op_name(inner) != "relax.abs":
        x = operand(known, call.args[0])
        total = products.whole_sum(known.rewriter, x, list(axes), keepdims)
        return known.arithmetic.requantize(total, result)
    x = operand(known, inner.args[0])
    power = 2 if is_square else 1
    reach = math.prod(shape_of(call.args[0])[a] for a in axes) * x.reach**power
    if reach >= WIDE_LIMIT:
        raise NoInteger("sums may overflow 53 bits")
    is_wide = reach >= NARROW_LIMIT
    centred = R.astype(rq.centred_int(x), "int64" if is_wide else "int32")
    number = known.rewriter.emit(R.multiply(centred, centred) if is_square else R.abs(centred))
    total = Sum(R.sum(number, list(axes), keepdims), np.asarray(x.scale**power), reach, is_wide=is_wide)
    return known.arithmetic.requantize(total, result)


def _function(known: Known, call: relax.Call, result: Result) -> relax.Expr:
    """A function that a frontend wrote and marked."""
    if known.rewriter.attribute(call, ELEMENTWISE_ATTR) in ("maximum", "minimum"):
        return extremum(known, call, result)
    if known.rewriter.attribute(call, INTERPOLATION_ATTR):
        return interpolated(known, call, result)
    return rows.normalise(known, call, result)


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
    "relax.nn.log_softmax": rows.log_softmax,
    "relax.maximum": extremum,
    "relax.minimum": extremum,
    "relax.where": chosen,
    "relax.sum": _summed,
    "relax.call_tir": _function,
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
