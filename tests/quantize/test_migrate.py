"""Outliers moved from activations into weights, and float tensors beside rounded ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from scripts.node_suite import compile_image
from tests.quantize.quantize_kit import make_graph, run, sqnr
from tvm_ipu.base.errors import CalibrationError
from tvm_ipu.base.graph import Graph
from tvm_ipu.frontends.onnx.plain import graph_to_onnx
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.quantize.collect import CollectOptions
from tvm_ipu.quantize.migrate import find_divisors, migrated
from tvm_ipu.runtime.session import Session

WIDTH = 32
RANDOM = np.random.default_rng(5)
SAMPLES = [{"x": RANDOM.normal(size=(1, 16, WIDTH)).astype(np.float32)} for _ in range(8)]


def network() -> Graph:
    """A normalisation with one channel of a hundred times the others' range, a GELU, a residual addition."""
    random = np.random.default_rng(7)
    gamma = np.ones(WIDTH, np.float32)
    gamma[3] = 100
    constants: dict[str, Any] = {
        "gamma": gamma,
        "beta": random.normal(size=WIDTH).astype(np.float32),
        "w1": random.normal(size=(WIDTH, 64)).astype(np.float32) / 6,
        "b1": random.normal(size=64).astype(np.float32),
        "w2": random.normal(size=(64, WIDTH)).astype(np.float32) / 8,
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "half": np.float32(0.5),
    }
    constants["w1"][3] /= 100
    nodes = [
        ("LayerNormalization", ("x", "gamma", "beta"), "normal"),
        ("MatMul", ("normal", "w1"), "product"),
        ("Add", ("product", "b1"), "sum"),
        ("Div", ("sum", "root"), "divided"),
        ("Erf", ("divided",), "erf"),
        ("Add", ("erf", "one"), "raised"),
        ("Mul", ("sum", "raised"), "twice"),
        ("Mul", ("twice", "half"), "gelu"),
        ("MatMul", ("gelu", "w2"), "back"),
        ("Add", ("back", "normal"), "y"),
    ]
    return make_graph(nodes, constants, {"x": (1, 16, WIDTH)}, {"y": (1, 16, WIDTH)})


def divisors(graph: Graph) -> dict[str, np.ndarray]:
    return find_divisors(graph, lambda: iter(SAMPLES), run, CollectOptions(), 0.5)


def largest(graph: Graph, name: str) -> np.ndarray:
    function = run(graph.with_outputs([name]))
    return np.max([np.abs(function(one)[name]).max((0, 1)) for one in SAMPLES], 0)


def test_divisors_are_smoothquants():
    graph = network()
    found = divisors(graph)
    assert set(found) == {"normal"}
    expected = np.sqrt(largest(graph, "normal") / np.abs(graph.constants["w1"]).max(1))
    np.testing.assert_allclose(found["normal"], expected, rtol=1e-5)


def test_the_network_stays_what_it_was():
    graph = network()
    smooth = migrated(graph, divisors(graph))
    for feed in SAMPLES[:2]:
        assert sqnr(run(graph)(feed)["y"], run(smooth)(feed)["y"]) > 110
    peaks = largest(graph, "normal"), largest(smooth, "normal/smooth")
    assert peaks[0].max() / np.median(peaks[0]) > 50
    assert peaks[1].max() / np.median(peaks[1]) < 3


def test_weights_that_others_read_stay():
    graph = network()
    nodes = [(node.op_type, node.inputs, node.outputs[0], node.attributes) for node in graph.nodes]
    shape = {"x": (1, 16, WIDTH)}
    shared = make_graph(
        [*nodes, ("MatMul", ("x", "w1"), "z")], graph.constants, shape, {"y": shape["x"], "z": (1, 16, 64)}
    )
    assert divisors(shared) == {}


@pytest.mark.parametrize("level", ["L1", "L5"])
def test_outliers_cost_little(level: str):
    graph = network()
    fixed, table = calibrate(graph, lambda: iter(SAMPLES), run, CalibrationOptions(level))
    assert table.facts["transformer"]
    assert set(table.facts["divisors"]) == {"normal"}
    assert {name for name in table.ranges if name not in graph.constants} == {"normal/smooth", "gelu"}
    expected = np.stack([run(graph)(one)["y"] for one in SAMPLES])
    found = np.stack([run(fixed)(one)["y"] for one in SAMPLES])
    small = np.arange(WIDTH) != 3
    assert sqnr(expected[..., small], found[..., small]) > 35
    with Session(compile_image(onnx.load_from_string(graph_to_onnx(fixed)), {}, "host")) as session:
        assert sqnr(found[0], session.run(SAMPLES[0])["y"]) > 40


@pytest.mark.parametrize(
    ("sample", "message"), [({}, "no input 'x'"), ({"x": np.zeros((1, 2), np.float32)}, "has shape")]
)
def test_samples_are_checked(sample: dict[str, np.ndarray], message: str):
    with pytest.raises(CalibrationError, match=message):
        calibrate(network(), lambda: iter([sample]), run, CalibrationOptions("L1"))
