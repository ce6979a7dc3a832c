"""Which layers of a quantised model still compute in float, and why."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax

from tvm_ipu.passes.integer.moves import MOVES
from tvm_ipu.passes.rewrite import bindings, op_name

_CONVERSIONS = frozenset({"relax.quantize", "relax.dequantize"})


def float_layers(module: tvm.ir.IRModule, kept: Mapping[str, str], reasons: Mapping[str, str]) -> list[str]:
    """``name: reason`` of every layer with a float result, in order.

    Args:
        module: After the rewriting.
        kept: Operators of the layers that were left as they are, by name.
        reasons: Why, by name, where that is known.
    """
    found = []
    for binding in bindings(module["main"]):
        name = binding.var.name
        if name in kept and op_name(binding.value) not in _CONVERSIONS and _is_float(binding.var):
            operator = kept[name].removeprefix("relax.")
            default = "it moves floats" if kept[name] in MOVES else f"no integer form of '{operator}'"
            found.append(f"{name}: {reasons.get(name, default)}")
    return found


def _is_float(var: relax.Var) -> bool:
    types = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
    return any("float" in str(getattr(t, "dtype", "")) for t in types)
