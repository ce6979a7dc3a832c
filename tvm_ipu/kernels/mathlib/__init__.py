"""Mathematical functions as branch-free TIR arithmetic: vectors, no libm, the same code on every chip.

``lower_math`` replaces the calls; the other modules hold one family of functions each, over ``terms.Terms``.
Largest errors are in the docstring of tests/unit/test_mathlib.py.
"""

from tvm_ipu.kernels.mathlib.lower import LowerMath, lower_math

__all__ = ["LowerMath", "lower_math"]
