"""How far the integers of a model's inputs may go: numbers of words index tables of embeddings."""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from tvm_ipu.base.model import VIEW_OPS
from tvm_ipu.kernels.expressions import loads
from tvm_ipu.passes.rewrite import bindings, op_name

SAME_INTEGERS = frozenset({"relax.astype", *VIEW_OPS})
"""Operators whose result holds the integers of their operand."""


def index_ranges(module: tvm.ir.IRModule) -> dict[str, int]:
    """By input that indexes tensors: how many values it may take, in the smallest of them.

    Args:
        module: As it was imported: one function ``main``, and functions that compute single operators.
    """
    main = module["main"]
    origin: dict[relax.Var, str] = {param: param.name for param in main.params}
    found: dict[str, int] = {}
    for binding in bindings(main):
        value = binding.value
        if op_name(value) in SAME_INTEGERS and value.args[0] in origin:
            origin[binding.var] = origin[value.args[0]]
        if op_name(value) != "relax.call_tir":
            continue
        func = module[value.args[0]]
        for param, arg in zip(func.params, value.args[1].fields, strict=False):
            if isinstance(arg, relax.Var) and arg in origin:
                for size in _indexed(func, param):
                    name = origin[arg]
                    found[name] = min(size, found.get(name, size))
    return found


def _indexed(func: tirx.PrimFunc, indices: tirx.Buffer) -> list[int]:
    """Sizes of the dimensions that elements of ``indices`` index."""
    return [
        int(extent)
        for load in loads(func.body)
        for extent, index in zip(load.source.ty.shape, load.indices, strict=True)
        if any(inner.source.same_as(indices) for inner in loads(index))
    ]
