"""Some random graphs, and that the fuzzer sees what it is there for."""

from __future__ import annotations

import pickle
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from tests.fuzz import fuzz_graphs
from tests.fuzz.graph_maker import Maker, NotTaken, Tensor
from tests.fuzz.graph_modes import MODES, REFUSED, Case, difference, make
from tests.fuzz.graph_operators import Operator

GRAPHS = [(n, "") for n in range(6)] + [(n, mode) for n, mode in enumerate(MODES)]
ELSEWHERE = ("x86-64-v2", "x86-64-v3", "ipu-ref")
"""Modes that may refuse a graph: a machine may not run the image, an operator have no integer form."""


@pytest.mark.parametrize(("number", "only"), GRAPHS)
def test_graphs(number: int, only: str) -> None:
    case = make("tests", number, only)
    fault = fuzz_graphs.outcome(case)
    assert not fault or (fault.startswith(REFUSED) and case.mode.name in ELSEWHERE)


def sums_less_a_number(m: Maker) -> object:
    x = m.input(m.array((1, 4, 3, 5), "float32"))
    sums = m.node("Conv", x, m.constant(m.array((4, 4, 1, 1), "float32")), m.constant(np.ones(4, "float32")))
    return m.node("Add", m.node("Relu", x), m.node("Sub", sums, m.constant(np.float32(1.8))))


FOUND = [(sums_less_a_number, "ipu-ref", "L1"), (sums_less_a_number, "fixed", "L1")]


@pytest.mark.parametrize(("layers", "mode", "level"), FOUND)
def test_graphs_that_were_wrong_once(layers: Operator, mode: str, level: str) -> None:
    m = Maker(Random(0), 1e-6, ("float32",))
    layers(m)
    assert not fuzz_graphs.outcome(Case(MODES[mode], m.finish(), level))


def test_a_number_always_gives_the_same_graph() -> None:
    first, second = (make("tests", 3) for _ in range(2))
    assert first.graph.text() == second.graph.text()
    assert pickle.loads(pickle.dumps(first)).graph.model() == second.graph.model()
    assert first.graph.text() != make("other", 3).graph.text()


def chain() -> Case:
    """Four nodes; one of them is said to give something else than it does."""
    m = Maker(Random(0), 1e-6, ("float32",))
    x = m.input(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
    y = m.node("Add", m.node("Relu", m.node("Neg", x)), x)
    m.node("Mul", y, y)
    graph = m.finish()
    wrong = graph.tensors["y1"]
    m.tensors["y1"] = replace(wrong, values=tuple(one + 1 for one in wrong.values))
    return Case(MODES["host"], replace(graph, outputs=("y1", "y3")))


def test_a_wrong_result_is_found_and_cut_out() -> None:
    case = chain()
    fault = fuzz_graphs.outcome(case)
    assert "y1: 12 of 12 wrong" in fault
    less, fault = fuzz_graphs.smaller(case, fault)
    assert [node.op_type for node in less.graph.nodes] == ["Relu"]
    assert "y1: 12 of 12 wrong" in fault


def test_another_exception_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise IndexError("no")

    monkeypatch.setattr(fuzz_graphs, "check", fails)
    assert "IndexError: no" in fuzz_graphs.outcome(chain())


X = np.array([1.0, -2.0, np.inf, np.nan], np.float32)


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (X, ""),
        (X + np.float32(1e-6), ""),
        (X + np.float32(1e-3), "2 of 4 wrong"),
        (np.array([1, -2, -np.inf, np.nan], np.float32), "1 of 4 wrong"),
        (np.array([1, -2, np.inf, 0], np.float32), "1 of 4 wrong"),
        (X.astype(np.float64), "float64[4], expected float32[4]"),
    ],
)
def test_differences(found: np.ndarray, wrong: str) -> None:
    fault = difference(found, Tensor("y", (X, X)), 1e-6)
    assert wrong in fault if wrong else not fault


def test_nodes_whose_results_jump_are_not_taken() -> None:
    m = Maker(Random(0), 1e-6, ("float32",))
    half = m.node("Mul", m.input(np.full(9, 5, np.float32)), m.constant(np.float32(0.1)))
    with pytest.raises(NotTaken, match="jumps"):
        m.node("Round", half)
    m.node("Floor", half)
