"""Recognise GELU as exporters write it.

lv0 = R.multiply(x, 0.7071)
lv1 = R.erf(lv0)
lv2 = R.add(lv1, 1)             ->    lv4 = R.nn.gelu(x)
lv3 = R.multiply(x, lv2)
lv4 = R.multiply(lv3, 0.5)

TensorFlow writes ``1 - erf(-x / sqrt(2))`` in place of the sum.
"""

from __future__ import annotations

import math

import tvm
from tvm import relax, te

from tvm_ipu.kernels.mathlib.gelu import gelu_of
from tvm_ipu.passes.lower_operators import ELEMENTWISE, call_te
from tvm_ipu.passes.rewrite import Rewriter, constant, op_name, rewrite


def fuse_gelu(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Replace products of x, one half and ``1 + erf(x / sqrt(2))``, in any order."""
    return rewrite(module, _fuse)


def lower_gelu(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Let the math library compute GELU of float32 tensors as one function."""

    def rule(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
        if op_name(call) != "relax.nn.gelu" or str(call.ty.dtype) != "float32":
            return None
        return call_te(
            rewriter,
            "gelu",
            lambda x: te.compute(x.shape, lambda *at: gelu_of(x(*at)), name="gelu"),
            [call.args[0]],
            ELEMENTWISE,
        )

    return rewrite(module, rule)


def _fuse(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) != "relax.multiply":
        return None
    factor, others = _factors(rewriter, call)
    if not math.isclose(factor, 0.5, rel_tol=1e-6) or len(others) != 2:
        return None
    for x, bracket in (others, others[::-1]):
        if _is_bracket(rewriter, bracket, x) and x.ty == call.ty:
            return relax.op.nn.gelu(x)
    return None


def _factors(rewriter: Rewriter, call: relax.Call) -> tuple[float, list[relax.Expr]]:
    """Product of the constants of one element and the other factors of a product of products."""
    factor, others = -1.0 if op_name(call) == "relax.negative" else 1.0, []
    for arg in call.args:
        inner, number = rewriter.value(arg), _number(arg)
        if number is not None:
            factor *= number
        elif op_name(inner) in ("relax.multiply", "relax.negative") and rewriter.single_use(arg):
            more, factors = _factors(rewriter, inner)
            factor *= more
            others += factors
        else:
            others.append(arg)
    return factor, others


def _is_bracket(rewriter: Rewriter, expr: relax.Expr, x: relax.Expr) -> bool:
    """Whether an expression is ``1 + erf(x / sqrt(2))``, or ``1 - erf(-x / sqrt(2))``."""
    total = rewriter.value(expr)
    if op_name(total) not in ("relax.add", "relax.subtract"):
        return False
    sign = 1.0 if op_name(total) == "relax.add" else -1.0
    for one, other in (total.args, list(total.args)[::-1])[: 2 if sign > 0 else 1]:
        erf = rewriter.value(other)
        if _number(one) == 1.0 and op_name(erf) == "relax.erf":
            scaled = rewriter.value(erf.args[0])
            if op_name(scaled) in ("relax.multiply", "relax.negative"):
                factor, others = _factors(rewriter, scaled)
                return math.isclose(factor, sign * math.sqrt(0.5), rel_tol=1e-6) and others == [x]
            if op_name(scaled) == "relax.divide":
                divisor = sign * (_number(scaled.args[1]) or 0.0)
                return math.isclose(divisor, math.sqrt(2), rel_tol=1e-6) and scaled.args[0] == x
    return False


def _number(expr: relax.Expr) -> float | None:
    value = constant(expr)
    return float(value.item()) if value is not None and value.size == 1 and value.dtype.kind == "f" else None
