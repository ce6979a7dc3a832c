"""Noise is measured before choices, which hide it."""

from __future__ import annotations

import pytest
from onnx import NodeProto

from tests.unit.frontend_kit import constant, make_model, node, value
from tvm_ipu.frontends.onnx.plain import load_graph
from tvm_ipu.quantize.ends import measured_tensors

TOP = [
    node("Relu", "x", "scores"),
    node("Exp", "x", "boxes"),
    node("TopK", "scores k", "best at", axis=1),
    node("GatherElements", "boxes at", "chosen", axis=1),
    node("Neg", "chosen", "y"),
]
CASES = {
    "an output": ([node("Relu", "x", "y")], "y", "y"),
    "of a concatenation its operands": (
        [node("Relu", "x", "a"), node("Exp", "x", "b"), node("Concat", "a b", "y", axis=1)],
        "y",
        "a b",
    ),
    "what is chosen from": (TOP, "y best", "boxes scores"),
    "beside an output of its own": ([*TOP, node("Neg", "boxes", "z")], "y z", "boxes scores z"),
    "before a class": ([node("Relu", "x", "s"), node("ArgMax", "s", "y", axis=1, keepdims=0)], "y", "s"),
    "and behind where products follow": ([*TOP, node("MatMul", "y w", "z")], "z", "z boxes scores"),
}


@pytest.mark.parametrize("name", CASES)
def test_measured(name: str) -> None:
    nodes, outputs, expected = CASES[name]
    assert sorted(_measured(nodes, outputs)) == sorted(expected.split())


def _measured(nodes: list[NodeProto], outputs: str) -> list[str]:
    weights = [constant("k", [3], "int64"), constant("w", [[1.0, 2.0]] * 3, "float32")]
    results = [
        value(name, None, 7 if "ArgMax" in {one.op_type for one in nodes} else 1) for name in outputs.split()
    ]
    return measured_tensors(load_graph(make_model(nodes, [value("x", [1, 8])], results, weights)))
