"""TorchScript as an exported program: its operators as they run, with all loops and branches decided.

TorchScript is run once by its own interpreter, and every operator that it calls is recorded. Branches that
depend on the inputs' values are refused; ``script`` keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from onnx import ModelProto
from torch.fx.experimental.proxy_tensor import make_fx

from tvm_ipu.frontends.torch import modules, program
from tvm_ipu.frontends.torch.calls import Call


def export(source: Any, call: Call, outputs: Sequence[str]) -> ModelProto:
    """A ScriptModule or ScriptFunction as ONNX, for inputs of the call's shapes.

    Args:
        source: The model.
        call: What to run it with; what is no tensor in it becomes a constant.
        outputs: Names of its outputs.

    Raises:
        Exception: It cannot be followed.
        UnsupportedOperatorError: Operators have no translation.
        ModelError: The translation fails for another reason.
    """
    model = modules.copy_of(source)

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bound = call.with_tensors(tensors)
        return tuple(modules.tensors(model(*bound.args, **bound.kwargs)))

    with torch.jit.optimized_execution(False):  # the optimiser compares weights, which would be recorded
        graph = make_fx(run, tracing_mode="real", pre_dispatch=True)(*call.inputs.values())
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders, call.inputs, strict=True):
        node.target = name
    graph.recompile()
    exported = torch.export.export(graph, tuple(call.inputs.values()), strict=False)
    weights = _weights(graph, model)
    return program.translate(exported, outputs, weights)


def _weights(graph: Any, model: Any) -> dict[str, str]:
    """Names of the model's weights by the names that they have in a recorded graph."""
    if isinstance(model, torch.jit.ScriptFunction):
        return {}
    names = {_place(value): name for name, value in [*model.named_parameters(), *model.named_buffers()]}
    found = {
        name: names.get(_place(value)) for name, value in [*graph.named_parameters(), *graph.named_buffers()]
    }
    return {name: weight for name, weight in found.items() if weight}


def _place(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """What two views of the same memory have in common only if they are equal."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
