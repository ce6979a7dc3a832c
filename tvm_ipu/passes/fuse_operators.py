"""Fuse operators, and remember which of the model's nodes each fused call computes.

    conv1 = R.call_tir(conv2d, (x, w))                lv = fused_conv2d_relu(x, w)
    relu1 = R.call_tir(relu, (conv1,))        ->      module attribute ["conv1+relu1"]

FuseOps renames variables and shares one function among equal groups, so the names are found again by
following the data: a call inside a group is the one whose operator and operands are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from tvm_ipu.base.model import LAYERS_ATTR
from tvm_ipu.passes.rewrite import bindings, is_helper, node_names, used_vars

Key = tuple[Any, ...]


def fuse_operators(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Group operators into functions; an attribute of the module names the nodes of each call of ``main``."""
    module = relax.transform.DeadCodeElimination()(module)
    fused = relax.transform.FuseOps()(module)
    return fused.with_attr(LAYERS_ATTR, _layers(module, fused))


def _layers(module: tvm.ir.IRModule, fused: tvm.ir.IRModule) -> list[str]:
    names = {_key(b.value, {}): b.var for b in bindings(module["main"]) if isinstance(b.value, relax.Call)}
    origin: dict[Any, Any] = dict(zip(fused["main"].params, module["main"].params, strict=True))
    nodes = node_names(module)
    layers = []
    for binding in bindings(fused["main"]):
        value = binding.value
        callee = value.op if isinstance(value, relax.Call) else None
        if isinstance(callee, relax.GlobalVar):
            group = fused[callee]
            inner = dict(zip(group.params, (_origin(arg, origin) for arg in value.args), strict=True))
            found = [_follow(b, inner, names) for b in bindings(group)]
            origin[binding.var] = inner.get(group.body.body)
            named = [node for node in (nodes.get(name, name) for name in found) if not is_helper(node)]
            layers.append("+".join(dict.fromkeys(filter(None, named))) or _source(value, nodes))
        else:
            name = _follow(binding, origin, names)
            if isinstance(value, relax.Call):
                node = nodes.get(name, name)
                layers.append(_source(value, nodes) if is_helper(node) else node)
    return layers


def _source(call: relax.Call, nodes: Mapping[str, str]) -> str:
    """What a layer that no node gave its name reads first: an input, for its conversion to NHWC."""
    read = next((str(var.name) for var in used_vars(call)), "")
    return nodes.get(read, read)


def _follow(binding: relax.VarBinding, origin: dict[Any, Any], names: dict[Key, relax.Var]) -> str:
    """Name of the binding that a binding was made from; also records that in ``origin``."""
    if not isinstance(binding.value, relax.Call):
        origin[binding.var] = _origin(binding.value, origin)
        return ""
    old = names.get(_key(binding.value, origin))
    origin[binding.var] = old
    return old.name if old is not None else ""


def _key(call: relax.Call, origin: dict[Any, Any]) -> Key:
    """Operator and operands of a call, in terms of the module before fusion."""
    return (call.op, *(_origin(arg, origin) for arg in call.args))


def _origin(expr: Any, origin: dict[Any, Any]) -> Any:
    if isinstance(expr, relax.Tuple):
        return tuple(_origin(field, origin) for field in expr.fields)
    if isinstance(expr, relax.TupleGetItem):
        return ("item", _origin(expr.tuple_value, origin), expr.index)
    return origin.get(expr, expr)
