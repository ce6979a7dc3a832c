"""Which layers of a quantised model still compute in float, and why."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax

from tvm_ipu.passes.integer.moves import MOVES
from tvm_ipu.passes.rewrite import Rewriter, bindings, node_names, op_name

_CONVERSIONS = frozenset({"relax.quantize", "relax.dequantize"})


def float_layers(
    before: tvm.ir.IRModule, after: tvm.ir.IRModule, rewriter: Rewriter, reasons: Mapping[relax.Var, str]
) -> list[str]:
    """``name: reason`` of every layer with a float result, in order.

    Args:
        before: The module that was rewritten.
        after: What it became, without dead code.
        rewriter: What rewrote it.
        reasons: For the calls that were left as they are: why, or nothing.
    """
    alive = {b.var.name for b in bindings(after["main"])}
    nodes = node_names(before)
    found = []
    for binding in bindings(before["main"]):
        name = op_name(binding.value)
        if binding.var in reasons and name not in _CONVERSIONS and _is_float(binding.var):
            new = rewriter.replacement(binding.var)
            if isinstance(new, relax.Var) and new.name in alive:
                reason = reasons[binding.var] or _default(name)
                found.append(f"{nodes.get(binding.var.name, binding.var.name)}: {reason}")
    return list(dict.fromkeys(found))


def _default(operator: str) -> str:
    if operator in MOVES or operator == "relax.concat":
        return "it moves float numbers"
    return f"no integer form of '{operator.removeprefix('relax.')}' here"


def _is_float(var: relax.Var) -> bool:
    types = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
    return any("float" in str(getattr(t, "dtype", "")) for t in types)
