"""What every TensorFlow source becomes first: a graph without variables, with named inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tvm_ipu.base.errors import ModelError, UnsupportedOperatorError


@dataclass(frozen=True)
class Frozen:
    """A GraphDef whose weights are constants.

    Attributes:
        graph: The ``GraphDef``.
        inputs: Tensor (``node:0``) of each input, by the name that the user sees.
        outputs: Tensor of each output, by the name that the user sees.
        label: What to call the model in messages.
        others: Tensors inside that have names of their own: the outputs of Keras layers.
    """

    graph: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    label: str
    others: Mapping[str, str] = field(default_factory=dict)


def canonical(reference: str) -> str:
    """A tensor as TensorFlow's own API names it: ``x`` -> ``x:0``, ``split:1`` as it is."""
    return reference if ":" in reference else f"{reference}:0"


def node_of(reference: str) -> str:
    """The node that makes a tensor, or that a control edge comes from."""
    return reference.removeprefix("^").partition(":")[0]


def data_inputs(node: Any) -> list[str]:
    """The tensors that a node reads."""
    return [canonical(name) for name in node.input if not name.startswith("^")]


def live_nodes(graph: Any, wanted: list[str], stops: set[str]) -> list[Any]:
    """The nodes that ``wanted`` tensors are computed by from the tensors in ``stops`` on, in order."""
    nodes = {node.name: node for node in graph.node}
    live, waiting = set[str](), [name for name in wanted if name not in stops]
    while waiting:
        name = node_of(waiting.pop())
        if name not in live and name in nodes:
            live.add(name)
            waiting += [reference for reference in data_inputs(nodes[name]) if reference not in stops]
    return [node for node in graph.node if node.name in live]


def check(graph: Any, nodes: list[Any], label: str, stops: set[str]) -> None:
    """See that a graph is whole, frozen, and of constants and operators that TensorFlow knows.

    Args:
        graph: The ``GraphDef``.
        nodes: Those of its nodes that matter.
        label: What to call the model.
        stops: Tensors that need no node.

    Raises:
        ModelError: Nodes are missing or damaged, or weights are variables outside the graph.
        UnsupportedOperatorError: This TensorFlow does not know some of the operators; all are listed.
    """
    names = {node.name for node in graph.node}
    for node in nodes:
        missing = [name for name in data_inputs(node) if name not in stops and node_of(name) not in names]
        if missing:
            raise ModelError(
                f"{label} is truncated: node '{node.name}' reads '{missing[0]}', which is missing"
            )
    variables = [node.name for node in nodes if node.op in _VARIABLES]
    if variables:
        raise ModelError(
            f"{label} is not frozen: '{variables[0]}' is a variable, its values are in a checkpoint",
            "freeze the graph, or give the SavedModel folder",
        )
    check_nodes(graph, nodes, label)


def check_nodes(graph: Any, nodes: Iterable[Any], label: str) -> None:
    """See that TensorFlow knows the operators and constants of a graph's functions and of some of its nodes.

    Raises:
        UnsupportedOperatorError: It does not know some operators; all are listed.
        ModelError: A constant is not of its type. TensorFlow would end the process.
    """
    from tensorflow.python.framework import op_def_registry

    functions = {function.signature.name for function in graph.library.function}
    inner = [node for function in graph.library.function for node in function.node_def]
    every = (*nodes, *inner)
    unknown = [n for n in every if n.op not in functions and op_def_registry.get(n.op) is None]
    if unknown:
        raise unsupported(label, [(node.name, node.op) for node in unknown])
    for node in every:
        if node.op == "Const" and node.attr["dtype"].type != node.attr["value"].tensor.dtype:
            raise ModelError(f"{label} is damaged: constant '{node.name}' is not of its own type")


def unsupported(label: str, nodes: list[tuple[str, str]]) -> UnsupportedOperatorError:
    """The error for nodes, given by name and operator, that cannot be converted."""
    listed = "".join(f"\n  {op}: {name}" for name, op in dict.fromkeys(nodes))
    return UnsupportedOperatorError(
        f"{label} has {len(nodes)} operators that cannot be converted to ONNX:{listed}",
        "cut the model before them with --output-arrays, or behind them with --input-arrays",
    )


_VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable")
