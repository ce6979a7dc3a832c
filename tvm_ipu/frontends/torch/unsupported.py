"""All operators of a PyTorch model that have no form in ONNX, with the modules they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from tvm_ipu.base.errors import UnsupportedOperatorError


def raise_unsupported(program: Any, opset: int, cause: Exception) -> None:
    """Raise an error that lists the operators of an exported program without translation, if there are some.

    Raises:
        UnsupportedOperatorError: There are some.
    """
    _raise(_of_program(program, opset), cause)


def raise_unsupported_script(make_graph: Callable[[], Any], opset: int, cause: Exception) -> None:
    """The same for a graph of TorchScript."""
    _raise(_of_script(make_graph, opset), cause)


def _raise(found: Iterable[tuple[str, str]], cause: Exception) -> None:
    lines = [f"\n  {op}" + (f" '{place}'" if place else "") + ": no form in ONNX" for op, place in found]
    if lines:
        count = f"{len(lines)} operators" if len(lines) > 1 else "an operator"
        raise UnsupportedOperatorError(
            f"{count} of the model cannot be converted:{''.join(lines)}"
        ) from cause


def _of_program(program: Any, opset: int) -> list[tuple[str, str]]:
    """Operator and place of each node that PyTorch's registry of translations does not know."""
    try:  # these parts of PyTorch have no public name
        from torch.onnx._internal.exporter import _dispatching, _fx_passes, _registration

        registry = _registration.ONNXRegistry.from_torchlib(opset)
        decomposed = _fx_passes.decompose_with_registry(program, registry)
        nodes = [node for node in decomposed.graph.nodes if node.op == "call_function"]
        return [
            (str(node.target), _place(node))
            for node in nodes
            if isinstance(node.target, torch._ops.OpOverload)
            and _dispatching.dispatch(node, registry)[0] is None
        ]
    except Exception:  # then the exporter's own message has to do
        return []


def _place(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values() if name]
    return "/".join([*names[-1:], node.name])


def _of_script(make_graph: Callable[[], Any], opset: int) -> list[tuple[str, str]]:
    try:
        from torch.onnx._internal.torchscript_exporter import registration

        known = registration.registry.is_registered_op
        return [
            (node.kind().replace("::", "."), _scope(node))
            for node in _nodes(make_graph())
            if not node.kind().startswith(("onnx::", "prim::")) and not known(node.kind().rstrip("_"), opset)
        ]
    except Exception:  # as above
        return []


def _nodes(block: Any) -> Iterable[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _scope(node: Any) -> str:
    """Path of modules of a node, or the file and line that it comes from."""
    path = str(node.scopeName()).rpartition("/")[2].rpartition("::")[2]
    return path or str(node.sourceRange()).strip().partition("\n")[0]
