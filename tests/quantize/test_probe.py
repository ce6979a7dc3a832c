"""The noise of single layers, and what is done about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.passes.test_to_integer import SHAPE, network
from tests.quantize.quantize_kit import make_graph, run, sqnr
from tests.quantize.test_insert import ranges
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.frontends.onnx.plain import load_graph
from tvm_ipu.quantize.bias import corrected, with_biases
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.quantize.insert import insert_quantizers
from tvm_ipu.quantize.places import find_places
from tvm_ipu.quantize.probe import Probe
from tvm_ipu.quantize.promote import choose_promotions, multiplications, sensitivities, tail
from tvm_ipu.simulation import compile_runner

GRAPH = load_graph(network())
PLACES = find_places(GRAPH)
FEED = {"x": np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)}
RANGES = ranges(GRAPH, PLACES, FEED)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return Probe(GRAPH, PLACES, RANGES, [FEED], run)


@pytest.mark.parametrize("some", [(), ("x", "w1"), ("relu6", "swish"), ("w3",), tuple(RANGES)])
def test_a_probe_measures_what_the_quantised_network_gives(probe: Probe, some: tuple[str, ...]):
    chosen = {n: r if n in some else replace(r, bits=32) for n, r in RANGES.items()}
    quantised = run(insert_quantizers(GRAPH, PLACES, chosen))(FEED)["y"]
    expected = sqnr(run(GRAPH)(FEED)["y"], quantised)
    found = probe.measure(chosen, [name for name in some if name in PLACES.weights]).decibels
    assert found == pytest.approx(expected, abs=0.3) or min(found, expected) > 100


def test_the_compiler_runs_a_probe(probe: Probe):
    compiled = Probe(GRAPH, PLACES, RANGES, [FEED], compile_runner)
    assert compiled.measure(RANGES).decibels == pytest.approx(probe.measure(RANGES).decibels, abs=0.5)


def test_a_coarse_layer_is_found_and_promoted(probe: Probe):
    coarse = {**RANGES, "relu6": TensorRange("relu6", (0.0,), (300.0,))}
    noise = sensitivities(PLACES, coarse, probe)
    assert max(noise, key=noise.__getitem__) == "relu6"
    assert set(noise) == {place for place, _ in PLACES.products.values()}
    chosen = choose_promotions(GRAPH, PLACES, coarse, probe, noise)
    cost = multiplications(GRAPH, PLACES)
    assert cost["x"] == 16 * 16 * 16 * 27
    assert chosen == [] or sum(cost.get(place, 0) for place in chosen) <= 0.25 * sum(cost.values())
    assert choose_promotions(GRAPH, PLACES, coarse, probe, noise, frozenset(PLACES.tensors)) == []


def _with_a_tail() -> Graph:
    """Two large convolutions, then scores and boxes, a hundred times as large, in one tensor."""
    random = np.random.default_rng(5)
    return make_graph(
        [
            ("Conv", ("x", "a"), "first"),
            ("Relu", ("first",), "inner"),
            ("Conv", ("inner", "b"), "second"),
            ("Relu", ("second",), "features"),
            ("Conv", ("features", "c"), "sums"),
            ("Sigmoid", ("sums",), "scores"),
            ("Mul", ("scores", "hundred"), "boxes"),
            ("Concat", ("boxes", "scores"), "y", {"axis": 1}),
        ],
        {
            "a": random.normal(size=(64, 3, 3, 3)).astype(np.float32) / 5,
            "b": random.normal(size=(64, 64, 3, 3)).astype(np.float32) / 24,
            "c": random.normal(size=(1, 64, 1, 1)).astype(np.float32) / 8,
            "hundred": np.float32(100),
        },
        {"x": (1, 3, 12, 12)},
        {"y": (1, 2, 12, 12)},
    )


def test_the_tail_gets_16_bits_first():
    graph = _with_a_tail()
    places = find_places(graph)
    found = tail(graph, places)
    assert {"scores", "y"} <= set(found)
    assert not {"x", "inner"} & set(found)
    feed = {"x": np.random.default_rng(6).normal(size=(1, 3, 12, 12)).astype(np.float32)}
    quantised, table = calibrate(graph, lambda: iter([feed]), run, CalibrationOptions("L4"))
    assert table.facts["promoted"][: len(found)] == found
    assert table.ranges["y"].bits == 16
    expected, result = (run(one)(feed)["y"] for one in (graph, quantised))
    assert sqnr(expected[:, 1], result[:, 1]) > 25


def test_outputs_are_not_narrowed():
    lonely = np.concatenate([np.random.default_rng(7).normal(size=9999), [40]]).reshape(1, 1, 100, 100)
    graph = make_graph(
        [("Conv", ("x", "w"), "y")],
        {"w": np.ones((1, 1, 1, 1), np.float32)},
        {"x": (1, 1, 100, 100)},
        {"y": (1, 1, 100, 100)},
    )
    for level, factor in (("L3", 1), ("Q10", 2)):
        options = CalibrationOptions(level)
        _, table = calibrate(graph, lambda: iter([{"x": lonely.astype(np.float32)}]), run, options)
        assert table.ranges["y"].high == (40.0 * factor,)
        assert (table.ranges["x"].high[0] < 40) == (level == "L3")


def test_corrected_biases_take_the_mean_error_away():
    random = np.random.default_rng(0)
    graph = with_biases(
        make_graph(
            [("Conv", ("x", "w"), "y")],
            {"w": random.normal(size=(8, 4, 1, 1)).astype(np.float32)},
            {"x": (1, 4, 8, 8)},
            {"y": (1, 8, 8, 8)},
        )
    )
    places = find_places(graph)
    feed = {"x": random.uniform(1, 2, (1, 4, 8, 8)).astype(np.float32)}
    table = ranges(graph, places, feed)
    table["w"] = replace(table["w"], bits=4)
    probe = Probe(graph, places, table, [feed], run)
    noise = probe.measure({})
    biases = corrected(graph, {"w": graph.nodes[0]}, noise.means)
    fixed = replace(graph, constants={**graph.constants, **biases})
    only = {"w": table["w"]}
    before, after = (run(insert_quantizers(one, places, only))(feed)["y"] for one in (graph, fixed))
    expected = run(graph)(feed)["y"]
    assert np.abs((before - expected).mean((0, 2, 3))).max() > 1e-2
    assert np.abs((after - expected).mean((0, 2, 3))).max() < 1e-5
    assert sqnr(expected, after) > sqnr(expected, before) + 3


def test_pictures_are_never_promoted_and_the_given_stays():
    options = CalibrationOptions("L5", parameters=(TensorRange("relu6", (0.0,), (6.0,), 8),))
    _, table = calibrate(GRAPH, lambda: iter([FEED]), run, options)
    assert table.ranges["relu6"].bits == 8
    assert table.facts["method"] in ("mse", "min_max", "entropy", "percentile")
    assert table.facts["decibels"] >= table.facts["decibels_8_bits"]
