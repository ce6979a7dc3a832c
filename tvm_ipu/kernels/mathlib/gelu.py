"""GELU with the error function, for float32 at the cost of one short rational function.

``erf`` is accurate to its last place near zero and far from it; in ``x (1 + erf(x / sqrt(2))) / 2`` that is
lost in the sum with one. Here ``erf(x / sqrt(2)) / 2`` is within 2e-7, and so is the result by the size of x.
"""

from __future__ import annotations

import math

import tvm
from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.special import erf
from tvm_ipu.kernels.mathlib.terms import Terms

END = 5.55
"""From here on, the error function is one."""

# scripts/fit_gelu.py: erf(x / sqrt(2)) / 2 = x ABOVE(x^2) / BELOW(x^2) for |x| <= END, within 2^-25.7
ABOVE: tuple[float, ...] = (
    0.3989422619342804,
    0.03368904069066048,
    0.004664002452045679,
    0.00016669278556946665,
    6.2943399825599045e-06,
    2.2610565864056298e-08,
)
BELOW: tuple[float, ...] = (
    1.0,
    0.2511122524738312,
    0.028543746098876,
    0.0018727175192907453,
    7.273269147844985e-05,
    1.1891467011082568e-06,
)

for _attribute, _value in (
    ("TVectorizable", True),
    ("TCallEffectKind", 1),
    ("TScriptPrinterName", "gelu"),
):
    tvm.ir.register_op_attr("tirx.gelu", _attribute, _value)


def gelu_of(x: Expr) -> Expr:
    """A call of the function, as kernels contain it."""
    return tirx.call_intrin(str(x.ty), "tirx.gelu", x)


def gelu(t: Terms, x: Expr) -> Expr:
    """``x (1 + erf(x / sqrt(2))) / 2``."""
    x = t(x)
    if t.format.bits == 64:
        return x * t.const(0.5) * (t.const(1.0) + erf(t, t(x * t.const(math.sqrt(0.5)))))
    inside = t.clamp(x, -END, END)
    square = t(inside * inside)
    above, below = (t.polynomial({t.format.name: terms}, square) for terms in (ABOVE, BELOW))
    half = t.clamp(t(inside * above / below), -0.5, 0.5)
    return x * (half + t.const(0.5))
