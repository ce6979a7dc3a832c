"""Modules by tracing, and TorchScript, as ONNX."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import onnx
import torch
from onnx import GraphProto, ModelProto

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.graph import subgraphs
from tvm_ipu.frontends.torch import modules
from tvm_ipu.frontends.torch.calls import Call
from tvm_ipu.frontends.torch.names import rename, rename_outputs
from tvm_ipu.frontends.torch.unsupported import raise_unsupported_script

_log = logging.getLogger(__name__)

OPSET = 18
"""The opset that is exported, as by ``program``."""


def compile_module(module: Any) -> Any:
    """A module as TorchScript, compiled from its source.

    Raises:
        Exception: Whatever PyTorch raises.
    """
    return torch.jit.script(module)


def export(source: Any, call: Call, outputs: Sequence[str]) -> ModelProto:
    """A module, traced, or TorchScript as ONNX.

    Args:
        source: Module, ScriptModule or ScriptFunction.
        call: What to trace it with; what is no tensor in it becomes a constant.
        outputs: Names of its outputs.

    Raises:
        UnsupportedOperatorError: Operators have no form in ONNX.
        ModelError: The export fails for another reason.
    """
    flat: Any = _Flat(modules.copy_of(source), call)
    inputs = tuple(call.inputs.values())
    file = io.BytesIO()
    try:
        with _fixed_values() as fixed:
            if modules.is_script(source):
                flat = torch.jit.trace(flat, inputs, check_trace=False, strict=False)
            torch.onnx.export(
                flat,
                inputs,
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(call.inputs),
                dynamic_axes={
                    name: {axis: f"{name}_{axis}" for axis in axes} for name, axes in call.open_axes.items()
                },
            )
    except Exception as err:  # the exporter raises errors of all kinds
        raise_unsupported_script(lambda: _graph(flat, inputs), OPSET, err)
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise ModelError(f"torch.onnx cannot translate {modules.title(source)}: {lines[0]}") from err
    for place in dict.fromkeys(fixed):
        _log.warning("tracing keeps for all inputs what the example decides: %s", place)
    model = onnx.load_from_string(file.getvalue())
    _strip(model)
    rename_outputs(model.graph, outputs)
    return model


@contextmanager
def _fixed_values() -> Iterator[list[str]]:
    """Notes the lines of a model that PyTorch's tracer takes for constant though they depend on inputs."""
    places: list[str] = []

    def note(message: Any, category: type[Warning], filename: str, line: int, *_: Any) -> None:
        if issubclass(category, torch.jit.TracerWarning):
            places.append(f"{filename}:{line}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", torch.jit.TracerWarning)
        with mock.patch.object(warnings, "showwarning", note):
            yield places


class _Flat(torch.nn.Module):  # type: ignore[misc]  # PyTorch is untyped where it is not installed
    """A model that takes tensors only, each as an argument of its own, and gives a tuple of tensors."""

    def __init__(self, source: Any, call: Call) -> None:
        super().__init__()
        self.model = source
        self._call = call
        self.train(False)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bound = self._call.with_tensors(tensors)
        return tuple(modules.tensors(self.model(*bound.args, **bound.kwargs)))


def _graph(flat: Any, inputs: tuple[torch.Tensor, ...]) -> Any:
    """The graph with calls inlined, before any translation."""
    if isinstance(flat, torch.jit.ScriptModule):
        return flat.inlined_graph
    graph, _ = torch.jit._get_trace_graph(flat, inputs)
    torch._C._jit_pass_inline(graph)
    return graph


def _strip(model: ModelProto) -> None:
    """Names as they would be without ``_Flat``: ``/conv/Conv`` for ``/model/conv/Conv``."""
    names = [one.name for one in model.graph.initializer]
    weights = {name: name.removeprefix("model.") for name in names if name.startswith("model.")}
    rename(model.graph, weights)
    _strip_nodes(model.graph)


def _strip_nodes(graph: GraphProto) -> None:
    for node in graph.node:
        if node.name.startswith("/model/"):
            node.name = node.name.removeprefix("/model")
        for inner in subgraphs(node):
            _strip_nodes(inner)
