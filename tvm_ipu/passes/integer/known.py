"""What forms of operators may ask of the float values that they read."""

from __future__ import annotations

from typing import Protocol

from tvm import relax

from tvm_ipu.passes.integer.requantize import Arithmetic, Result
from tvm_ipu.passes.integer.tensors import Array, NoInteger, Quantized, Sum
from tvm_ipu.passes.rewrite import Rewriter


class Known(Protocol):
    """What is known of float values.

    Attributes:
        rewriter: The rewriting that the forms are part of.
        arithmetic: The target's family of numerics.
        tables: For results of tables: the tensor that the table was applied to, and the table.
    """

    rewriter: Rewriter
    arithmetic: Arithmetic
    tables: dict[relax.Var, tuple[Quantized, Array]]

    def quantized(self, expr: relax.Expr) -> Quantized | None:
        """The 8- or 16-bit tensor that a value is made of by moves only, or None."""

    def total(self, expr: relax.Expr) -> Sum | None:
        """The sums that a value stands for, or None."""

    def integer_form(self, real: relax.Expr, result: Result) -> relax.Expr | None:
        """A value as integers of a result; None where it stays float."""


def operand(known: Known, expr: relax.Expr) -> Quantized:
    """The 8- or 16-bit tensor that an operand is made of by moves only.

    Raises:
        NoInteger: There is none.
    """
    found = known.quantized(expr)
    if found is None:
        raise not_quantised(expr)
    return found


def not_quantised(expr: relax.Expr) -> NoInteger:
    """Why there is no integer form of what reads a value."""
    return NoInteger(f"its operand '{getattr(expr, 'name', '') or 'a constant'}' is not quantised")
