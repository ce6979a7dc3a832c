"""GELU with the error function, for float32 at the cost of one short rational function, or of a polynomial.

``erf`` is accurate to its last place near zero and far from it; in ``x (1 + erf(x / sqrt(2))) / 2`` that is
lost in the sum with one. Here ``erf(x / sqrt(2)) / 2`` is within 2e-7, and so is the result by the size of x.
Where a target looks numbers up in a register, it takes the polynomial for the interval in which x lies: that
saves the division.
"""

from __future__ import annotations

import math

import tvm
from tvm import tirx
from tvm.ir import Expr

from tvm_ipu.kernels.mathlib.piecewise import piecewise
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

WIDTH = 23 / 64
"""Distance of the points around which ``TAIL`` has its polynomials."""

# scripts/fit_gelu.py: erfc(x / sqrt(2)) / 2 = P(x - i WIDTH) for x >= 0, within 2^-23; by power and point
TAIL: tuple[tuple[float, ...], ...] = (
    (
        0.5,
        0.35965728759765625,
        0.23614747822284698,
        0.14048898220062256,
        0.07528798282146454,
        0.036177732050418854,
        0.015532074496150017,
        0.005941076669842005,
        0.002020137384533882,
        0.000609546375926584,
        0.0001629762991797179,
        3.8568556192331016e-05,
        8.070944204519037e-06,
        1.4923128901500604e-06,
        2.4364612727367785e-07,
        0.0,
    ),
    (
        -0.3989412784576416,
        -0.3739924132823944,
        -0.3081280589103699,
        -0.2231060117483139,
        -0.1419716626405716,
        -0.07939639687538147,
        -0.03902173042297363,
        -0.01685451529920101,
        -0.00639774464070797,
        -0.0021341985557228327,
        -0.0006256563938222826,
        -0.00016118527855724096,
        -3.6492037907009944e-05,
        -7.2601942520122975e-06,
        -1.2693146800302202e-06,
        0.0,
    ),
    (
        -4.455696398508735e-05,
        0.06720133870840073,
        0.11073257029056549,
        0.12026672065258026,
        0.1020408421754837,
        0.07133199274539948,
        0.04207029938697815,
        0.021200265735387802,
        0.009197292849421501,
        0.0034518027678132057,
        0.001124455244280398,
        0.0003186965186614543,
        7.872458809288219e-05,
        1.697138031886425e-05,
        3.196278385075857e-06,
        0.0,
    ),
    (
        0.067186139523983,
        0.054001111537218094,
        0.024807101115584373,
        -0.005841210018843412,
        -0.02498885616660118,
        -0.02933344431221485,
        -0.023690860718488693,
        -0.014996498823165894,
        -0.007794306613504887,
        -0.0034014275297522545,
        -0.001262229518033564,
        -0.0004014698206447065,
        -0.00011003234976669773,
        -2.6084351702593267e-05,
        -5.3633875722880475e-06,
        0.0,
    ),
    (
        -0.004442800767719746,
        -0.015974268317222595,
        -0.02279130555689335,
        -0.018353722989559174,
        -0.007954457774758339,
        0.0013051592977717519,
        0.005736056715250015,
        0.00586053729057312,
        0.00403641490265727,
        0.0021538850851356983,
        0.0009357591043226421,
        0.0003390677156858146,
        0.00010389187082182616,
        2.7155116185895167e-05,
        6.090960141591495e-06,
        0.0,
    ),
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
    if t.has_table:
        return _from_table(t, x)
    inside = t.clamp(x, -END, END)
    square = t(inside * inside)
    above, below = (t.polynomial({t.format.name: terms}, square) for terms in (ABOVE, BELOW))
    half = t.clamp(t(inside * above / below), -0.5, 0.5)
    return x * (half + t.const(0.5))


def _from_table(t: Terms, x: tirx.Var) -> Expr:
    """``max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2``, the polynomial for ``erfc`` looked up."""
    size = t(t.abs(x))
    last = t.const((len(TAIL[0]) - 1) * WIDTH)
    size = t(t.select(size > last, last, size))
    tail = piecewise(t, size, WIDTH, TAIL)
    return t.select(x < t.const(0.0), t.const(0.0), x) - size * tail
