"""Modules through torch.export, and exported programs as ONNX."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from onnx import ModelProto, NodeProto
from torch.utils import _pytree as pytree

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.extras import require
from tvm_ipu.frontends.torch import modules
from tvm_ipu.frontends.torch.calls import Call
from tvm_ipu.frontends.torch.names import rename, rename_outputs
from tvm_ipu.frontends.torch.translations import TABLE
from tvm_ipu.frontends.torch.unsupported import raise_unsupported

OPSET = 18
"""The opset that PyTorch's translations are written in."""


def capture(module: Any, call: Call) -> Any:
    """The module as an exported program, with open axes where the call has them.

    Raises:
        Exception: Whatever torch.export raises.
    """
    shapes = call.map(lambda name, leaf: _axes(call, name, leaf)) if call.open_axes else None
    arguments = (module, call.args, call.kwargs)
    try:
        return torch.export.export(*arguments, dynamic_shapes=shapes, strict=False)
    except Exception as err:  # whatever the module raises where it is traced
        try:
            return torch.export.export(*arguments, dynamic_shapes=shapes, strict=True)
        except Exception:  # the first way's reason is the one to tell
            raise err from None


def translate(program: Any, outputs: Sequence[str], weights: Mapping[str, str] | None = None) -> ModelProto:
    """An exported program as ONNX; names of nodes begin with the path of their module.

    Args:
        program: The program.
        outputs: Names of its outputs.
        weights: Names of weights by those that they have in the program, where it has lost them.

    Raises:
        ToolError: onnxscript is not installed.
        UnsupportedOperatorError: Operators have no translation.
        ModelError: The translation fails for another reason.
    """
    require("onnxscript", extra="torch")
    try:
        exported = torch.onnx.export(
            program, verbose=False, optimize=False, opset_version=OPSET, custom_translation_table=TABLE
        )
        model: ModelProto = exported.model_proto
    except Exception as err:  # the exporter raises errors of all kinds
        raise_unsupported(program, OPSET, err)
        cause = err.__cause__ or err
        raise ModelError(f"torch.onnx cannot translate the program: {_last_line(cause)}") from err
    rename(model.graph, weights or {})
    if len(outputs) == len(model.graph.output):
        rename_outputs(model.graph, outputs)
    _name_nodes(model)
    return model


def output_names(program: Any) -> list[str]:
    """Names for the outputs of a program, from the structure of what it returns."""
    spec = program.call_spec.out_spec
    return modules.output_names(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))


def _axes(call: Call, name: str, leaf: Any) -> dict[int, Any] | None:
    """What torch.export is told of the shape of an argument."""
    if not isinstance(leaf, torch.Tensor):
        return None
    return dict.fromkeys(call.open_axes.get(name, ()), torch.export.Dim.DYNAMIC)


def _name_nodes(model: ModelProto) -> None:
    """``layer1.0.conv1/conv2d`` for ``node_conv2d``: module and node; of several the last has just that."""
    weights = {one.name for one in model.graph.initializer}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        count: dict[str, int] = {}
        for node in reversed(nodes):
            name = _path(node, weights)
            if name:
                count[name] = count.get(name, 0) + 1
                node.name = name if count[name] == 1 else f"{name}/{node.op_type}_{count[name]}"
            del node.metadata_props[:]


def _path(node: NodeProto, weights: Collection[str]) -> str:
    """Module and node; the module is that of the node's weight where the program does not know it."""
    scopes = [prop.value for prop in node.metadata_props if prop.key == "pkg.torch.onnx.name_scopes"]
    if not scopes:
        return ""
    names = [name for name in ast.literal_eval(scopes[0]) if name][-2:]
    if len(names) < 2:
        owners = [name.rpartition(".")[0] for name in node.input if name in weights]
        names = [*[owner for owner in owners if owner][:1], *names]
    return "/".join(names)


def _last_line(err: BaseException) -> str:
    lines = str(err).strip().splitlines()
    return lines[-1] if lines else type(err).__name__
