"""Remember which of the model's nodes each fused function computes, for profiles and messages.

    fused_conv2d_add_relu(...)      ->      module attribute {"fused_conv2d_add_relu": "conv1+bn1+relu1"}

FuseOps renames variables and keeps the spans of calls: a name travels through it as a span.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import SourceName, Span

from tvm_ipu.base.model import LAYERS_ATTR
from tvm_ipu.passes.rewrite import bindings


def mark_layers(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Put the name of each binding of ``main`` on its call, as a span (before FuseOps)."""
    names = {binding.var: binding.var.name for binding in bindings(module["main"])}

    @relax.expr_functor.mutator
    class Marker(relax.PyExprMutator):  # type: ignore[misc]
        def visit_var_binding_(self, binding: relax.VarBinding) -> None:
            call = binding.value
            if isinstance(call, relax.Call):
                span = Span(SourceName(names[binding.var]), 0, 0, 0, 0)
                marked = relax.Call(call.op, call.args, call.attrs, call.ty_args, span)
                binding = relax.VarBinding(binding.var, marked)
            super().visit_var_binding_(binding)

    marker = Marker(module)
    module["main"] = marker.visit_expr(module["main"])
    return module


def name_layers(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Record the names of the calls inside each fused function (after FuseOps, before FuseTIR)."""
    layers: dict[str, str] = {}
    for var, func in module.functions.items():
        if isinstance(func, relax.Function) and var.name_hint != "main":
            spans = [b.value.span for b in bindings(func) if isinstance(b.value, relax.Call)]
            names = [str(span.source_name.name) for span in spans if span is not None]
            layers[var.name_hint] = "+".join(dict.fromkeys(names))
    return module.with_attr(LAYERS_ATTR, layers)
