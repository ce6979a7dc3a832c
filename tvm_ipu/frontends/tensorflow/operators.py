"""Operators of Keras's own functions that tf2onnx lacks, as functions of its graph, a node and its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """``erfc(x) -> 1 - erf(x)``, of which GELU is made."""
    _replace(graph, node, name, lambda inner, one: ("Sub", [one, inner("Erf")]))


def expm1(graph: Any, node: Any, name: str, _: Any) -> None:
    """``expm1(x) -> exp(x) - 1``, with the rounding of exp."""
    _replace(graph, node, name, lambda inner, one: ("Sub", [inner("Exp"), one]))


Parts = Callable[[Callable[[str], str], str], tuple[str, list[str]]]
"""From a function that applies an operator to the node's input, and the constant 1, to the last node."""


def _replace(graph: Any, node: Any, name: str, parts: Parts) -> None:
    from tf2onnx import utils

    source, results = node.input[0], list(node.output)
    shape, dtype = graph.get_shape(results[0]), graph.get_dtype(results[0])
    one = np.array(1, utils.map_onnx_to_numpy_type(dtype))
    graph.remove_node(name)

    def inner(operator: str) -> str:
        made = graph.make_node(operator, [source], shapes=[shape], dtypes=[dtype], name=f"{name}/{operator}")
        result: str = made.output[0]
        return result

    operator, inputs = parts(inner, graph.make_const(f"{name}/one", one).output[0])
    graph.make_node(operator, inputs, name=name, outputs=results, shapes=[shape], dtypes=[dtype])


HANDLERS = {"Erfc": erfc, "Expm1": expm1}
"""TensorFlow's operator -> what converts its nodes."""
