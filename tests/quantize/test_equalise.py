"""Channels between convolutions scaled to use one range well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.quantize.quantize_kit import make_graph, run, sqnr
from tvm_ipu.accuracy import float_runner, measure, read_models
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import RangeTable
from tvm_ipu.fixed_point import export_parameters
from tvm_ipu.frontends.onnx.plain import graph_to_onnx
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, write_stage
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.quantize.collect import CollectOptions, collect
from tvm_ipu.quantize.equalise import HEADROOM, LARGEST, equalised, find_factors, find_pairs
from tvm_ipu.quantize.parameters import read_parameters

Array = np.ndarray
CHANNELS = 16
RANDOM = np.random.default_rng(11)
SAMPLES = [{"x": RANDOM.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(6)]


def network(bounds: tuple[float, float] | None = None, **more: Any) -> Graph:
    """Expand, depthwise, project, as in MobileNetV2; channels between them differ up to a hundredfold."""
    random = np.random.default_rng(3)
    spread = np.geomspace(0.03, 3, CHANNELS).astype(np.float32)
    constants: dict[str, Any] = {
        "expand": random.normal(size=(CHANNELS, 3, 1, 1)).astype(np.float32) * spread.reshape(-1, 1, 1, 1),
        "shift": random.normal(size=CHANNELS).astype(np.float32) * spread / 4,
        "depthwise": random.normal(size=(CHANNELS, 1, 3, 3)).astype(np.float32) / 2,
        "project": random.normal(size=(8, CHANNELS, 1, 1)).astype(np.float32) / spread.reshape(1, -1, 1, 1),
    }
    if bounds:
        constants |= {"low": np.float32(bounds[0]), "high": np.float32(bounds[1])}
    clip = ("Clip", ("low", "high")) if bounds else ("Relu", ())
    nodes = [
        ("Conv", ("x", "expand", "shift"), "a0"),
        (clip[0], ("a0", *clip[1]), "a"),
        ("Conv", ("a", "depthwise"), "b0", {"pads": [1] * 4, "group": CHANNELS}),
        (clip[0], ("b0", *clip[1]), "b"),
        ("Conv", ("b", "project"), "y"),
        *more.get("nodes", []),
    ]
    outputs = {"y": (1, 8, 8, 8), **more.get("outputs", {})}
    return make_graph(nodes, constants, {"x": (1, 3, 8, 8)}, outputs)


def factors(graph: Graph, kept: Sequence[str] = ()) -> dict[str, Array]:
    names = [pair.between for pair in find_pairs(graph)]
    options = CollectOptions(histograms=False, channels=frozenset(names))
    found = collect(graph, names, lambda: iter(SAMPLES), run, options)
    return find_factors(graph, {name: one.peaks for name, one in found.items()}, kept)


def peaks(graph: Graph, name: str) -> Array:
    function = run(graph.with_outputs([name]))
    return np.max([function(one)[name].max((0, 2, 3)) for one in SAMPLES], 0)


def test_the_network_stays_what_it_was() -> None:
    graph = network()
    assert [(pair.first.inputs[1], pair.second.inputs[1], pair.between) for pair in find_pairs(graph)] == [
        ("expand", "depthwise", "a"),
        ("depthwise", "project", "b"),
    ]
    scaled = equalised(graph, factors(graph))
    for feed in SAMPLES[:2]:
        assert sqnr(run(graph)(feed)["y"], run(scaled)(feed)["y"]) > 110


def test_channels_before_a_depthwise_convolution_reach_as_far_as_the_largest() -> None:
    graph = network()
    found = factors(graph)
    before, after = peaks(graph, "a"), peaks(equalised(graph, found), "a")
    np.testing.assert_allclose(found["a"], np.clip(before.max() / (before * HEADROOM), 1, LARGEST), rtol=1e-5)
    assert after.max() == pytest.approx(before.max(), rel=1e-5)
    assert before.max() / np.median(before) > 5
    assert after.max() / np.median(after) < 1.3


def test_elsewhere_both_share_the_gain() -> None:
    """Channels that large weights read gain most: those weights are the ones that become smaller."""
    graph = network()
    found = factors(graph)["b"]
    columns, peak = np.abs(graph.constants["project"]).max((0, 2, 3)), peaks(graph, "b")
    room = np.clip(peak.max() / (peak * HEADROOM), 1, LARGEST)
    np.testing.assert_allclose(found, np.clip(np.sqrt(columns / columns.max() * room), 1, room), rtol=1e-4)
    assert found.max() > 2


def test_a_clip_keeps_its_bounds() -> None:
    graph = network((0.0, 2.0))
    scaled = equalised(graph, factors(graph))
    assert peaks(scaled, "a").max() <= 2
    for feed in SAMPLES:
        assert sqnr(run(graph)(feed)["y"], run(scaled)(feed)["y"]) > 100


@pytest.mark.parametrize(
    ("graph", "pairs"),
    [
        (network((-1.0, 2.0)), []),
        (network(nodes=[("Sigmoid", ("b",), "z")], outputs={"z": (1, CHANNELS, 8, 8)}), ["a"]),
        (network(outputs={"a": (1, CHANNELS, 8, 8)}), ["b"]),
    ],
    ids=["a bound below zero", "another reader", "an output"],
)
def test_what_others_see_stays(graph: Graph, pairs: list[str]) -> None:
    assert [pair.between for pair in find_pairs(graph)] == pairs
    assert list(factors(graph)) == pairs


def test_weights_that_the_user_gives_stay() -> None:
    assert list(factors(network(), kept=["project"])) == ["a"]
    assert list(factors(network(), kept=["depthwise"])) == []


def quantised(level: str, **options: Any) -> tuple[Graph, RangeTable]:
    return calibrate(network(), lambda: iter(SAMPLES), run, CalibrationOptions(level, **options))


@pytest.mark.parametrize("level", ["L2", "Q1"])
def test_levels_with_min_max_ranges_gain(level: str) -> None:
    expected = np.stack([run(network())(one)["y"] for one in SAMPLES])
    errors = {
        name: sqnr(expected, np.stack([run(quantised(name)[0])(one)["y"] for one in SAMPLES]))
        for name in ("L1", level)
    }
    assert errors[level] > errors["L1"] + 6
    table = quantised(level)[1]
    assert set(table.facts["factors"]) == {"a", "b"}
    assert table.facts["scaled"] == ["depthwise", "expand", "project"]
    assert table.ranges["a"].high == quantised("L1")[1].ranges["a"].high


def test_imported_weights_stay_as_they_are() -> None:
    given = quantised("L1")[1].ranges["project"]
    table = quantised("L2", parameters=(given,))[1]
    assert set(table.facts["factors"]) == {"a"}
    assert table.ranges["project"].high == given.high


def test_the_report_compares_scaled_tensors_and_weights(tmp_path: Path) -> None:
    """And what is exported is about the model's own weights."""
    fixed, table = quantised("L2")
    stages = Stage(FLOAT, graph_to_onnx(network())), Stage(FIXED, graph_to_onnx(fixed), ranges=table)
    paths = [tmp_path / f"{stage.kind}.sim" for stage in stages]
    for stage, path in zip(stages, paths, strict=True):
        write_stage(stage, path)
    models = read_models(*paths)
    report = measure(models, float_runner(models), ((one, one) for one in SAMPLES), ["sample"] * len(SAMPLES))
    assert {one.name for one in report.weights} == {"expand", "depthwise", "project"}
    assert {"a", "b"} <= {one.name for one in report.activations}
    assert min(one.sqnr for one in (*report.weights, *report.activations)) > 30
    export_parameters(paths[1], tmp_path / "parameters.json", "JSON")
    names = {one.name for one in read_parameters(tmp_path / "parameters.json")}
    assert "a" in names
    assert not names & set(table.facts["scaled"])
