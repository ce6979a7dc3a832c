"""Weights rounded to reproduce the outputs of layers, and mixtures of bits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.passes.test_to_integer import SHAPE, network
from tests.quantize.quantize_kit import make_graph, run, sqnr
from tvm_ipu.base.errors import ConfigError
from tvm_ipu.base.graph import Node
from tvm_ipu.base.quant_config import QuantConfig
from tvm_ipu.frontends.onnx.plain import load_graph
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.quantize.mixed import choose_mixture, recommended
from tvm_ipu.quantize.moments import Moments
from tvm_ipu.quantize.reconstruct import BLOCK, DAMPING, round_rows

GRAPH = load_graph(network())


def samples():
    random = np.random.default_rng(5)
    return iter([{"x": random.normal(size=SHAPE).astype(np.float32)} for _ in range(8)])


def error(level: str, config: QuantConfig) -> float:
    options = CalibrationOptions(level, config=config, sample_count=8)
    quantised, _ = calibrate(GRAPH, samples, run, options)
    test = {"x": np.random.default_rng(77).normal(size=SHAPE).astype(np.float32)}
    return sqnr(run(GRAPH)(test)["y"], run(quantised)(test)["y"])


def cost(change: np.ndarray, metric: np.ndarray) -> float:
    return float(change @ metric @ change)


def test_rounding_is_near_the_best_of_all():
    totals = np.zeros(3)
    for seed in range(12):
        random = np.random.default_rng(seed)
        inputs = random.normal(size=(200, 3)) @ random.normal(size=(3, 6)) + 0.1 * random.normal(
            size=(200, 6)
        )
        metric, row = np.cov(inputs.T), random.uniform(-6, 6, 6)
        found = round_rows(row[None, None], metric[None], 7, 40)[0, 0]
        assert np.array_equal(found, np.rint(found))
        assert np.abs(found).max() <= 7
        choices = itertools.product(
            *((np.floor(w) - 1, np.floor(w), np.ceil(w), np.ceil(w) + 1) for w in row)
        )
        best = min(cost(np.clip(choice, -7, 7) - row, metric) for choice in choices)
        totals += [best, cost(found - row, metric), cost(np.rint(row) - row, metric)]
    best, found, nearest = totals
    assert best <= found < 0.35 * nearest
    assert found < 3 * best


def one_by_one(row: np.ndarray, metric: np.ndarray, limit: int) -> np.ndarray:
    """The definition: each number is rounded where the sum is least with those to come free, then moved."""

    def rounded(number: float) -> float:
        return float(np.clip(np.rint(number), -limit, limit))

    steps = np.zeros_like(row)
    for k in range(len(row)):
        known = metric[k:, :k] @ (row - steps)[:k]
        steps[k] = rounded(row[k] + np.linalg.solve(metric[k:, k:], known)[0])
    plain = np.clip(np.rint(row), -limit, limit)
    steps = min(steps, plain, key=lambda one: cost(one - row, metric))
    while True:
        before = steps.copy()
        for k in range(len(row)):
            steps[k] = rounded(steps[k] + metric[k] @ (row - steps) / metric[k, k])
        if np.array_equal(before, steps):
            return steps


def test_columns_in_blocks_are_rounded_as_one_by_one():
    random, depth = np.random.default_rng(3), 2 * BLOCK + 37
    inputs = np.maximum(random.normal(size=(2, 400, depth)) @ random.normal(size=(2, depth, depth)), 0)
    metric = np.stack([np.cov(one.T) for one in inputs])
    rows = random.uniform(-9, 9, (2, 3, depth))
    found = round_rows(rows, metric, 7, 40)
    for group, of_group in enumerate(metric):
        damped = of_group + DAMPING * np.trace(of_group) / depth * np.eye(depth)
        for row, steps in zip(rows[group], found[group], strict=True):
            assert np.array_equal(steps, one_by_one(row, damped, 7))


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ({"pads": [1, 1, 1, 1]}, (4, 6, 3, 3)),
        ({"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (4, 6, 3, 3)),
        ({"dilations": [2, 1], "group": 3}, (6, 2, 3, 2)),
        ({"group": 6, "pads": [0, 1, 2, 1]}, (6, 1, 3, 3)),
    ],
)
def test_means_of_patches_give_the_mean_of_a_convolution(attributes: dict, shape: tuple[int, ...]):
    random = np.random.default_rng(0)
    weights = random.normal(size=shape).astype(np.float32)
    x = random.normal(size=(1, 6, 9, 8)).astype(np.float32) + 1
    moments = Moments(Node("n", "Conv", ("x", "w"), ("y",), attributes), shape, 10**6)
    for number in range(200):
        assert moments.observe(x, number)
    nodes = [("Conv", ("x", "w"), "conv", attributes), ("ReduceMean", ("conv", "axes"), "y", {"keepdims": 0})]
    constants = {"w": weights, "axes": np.array([0, 2, 3])}
    expected = run(make_graph(nodes, constants, {"x": x.shape}, {"y": (shape[0],)}))({"x": x})["y"]
    rows = weights.reshape(len(moments.mean), -1, moments.mean.shape[1])
    found = np.einsum("gok,gk->go", rows, moments.mean).reshape(-1)
    np.testing.assert_allclose(found, expected, atol=0.15)
    assert np.linalg.eigvalsh(moments.covariance).min() > -1e-3


@pytest.mark.parametrize("transposed", [0, 1])
def test_moments_of_a_product(transposed: int):
    x = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32) * [1, 2, 3] + [1000, -20, 0.5]
    moments = Moments(Node("n", "Gemm", ("x", "w"), ("y",), {"transA": transposed}), (3, 4), 5000)
    for number in range(20):
        assert moments.observe((x.T if transposed else x).astype(np.float32), number)
    np.testing.assert_allclose(moments.mean, x.mean(0)[None], atol=0.1)
    np.testing.assert_allclose(moments.covariance, np.cov(x.T)[None], atol=0.2)


def test_inputs_that_are_constant_have_no_covariance():
    moments = Moments(Node("n", "MatMul", ("x", "w"), ("y",), {}), (3, 4), 100)
    for number in range(9):
        assert moments.observe(np.array([[0.1, 1000.1, 77.7]], np.float32), number)
    steps = round_rows(np.array([[[1.4, -2.6, 3.2]]]), moments.covariance, 7, 10)
    np.testing.assert_array_equal(steps, [[[1, -3, 3]]])


def test_reconstruction_brings_four_bits_nearer():
    four = QuantConfig(mixed_precisions=(4, 8), mp_rate=0.25)
    assert error("Q23", four) > error("Q13", four) + 1


@pytest.mark.parametrize("batches", [(), (1,), (2,), (2, 1)])
def test_weights_for_each_batch_are_kept(batches: tuple[int, ...]):
    random = np.random.default_rng(0)
    weights = random.normal(size=(*batches, 5, 4)).astype(np.float32)
    x = random.normal(size=(8, 2, 2, 3, 5)).astype(np.float32)
    network = make_graph(
        [("MatMul", ("x", "w"), "y", {})], {"w": weights}, {"x": x.shape[1:]}, {"y": (2, 2, 3, 4)}
    )
    fixed, _ = calibrate(network, lambda: ({"x": one} for one in x), run, CalibrationOptions("Q21"))
    expected, found = (np.stack([run(one)({"x": part})["y"] for part in x]) for one in (network, fixed))
    assert sqnr(expected, found) > 35


def test_modes_of_reconstruction():
    config = QuantConfig()
    assert error("Q21", config) > error("Q11", config) - 1
    assert error("Q20", config) > 50


def test_a_mixture_takes_the_weights_that_cost_least():
    sizes, noise = {"a": 100, "b": 100, "c": 200}, {"a": 0.001, "b": 0.1, "c": 0.004}
    assert choose_mixture(sizes, noise, 1e-4, (4, 8), 0.4).narrow == ("a", "c")
    assert choose_mixture(sizes, noise, 1e-4, (4, 8), 0.25).narrow == ("a", "c", "b")
    free = choose_mixture(sizes, noise, 1e-4, (4, 8), None)
    assert free.narrow == ("a", "c")
    assert recommended(free) == 0.32
    assert choose_mixture(sizes, noise, 1e-4, (8, 16), 1.0).narrow == ()


def test_a_mixture_of_four_and_eight_bits():
    options = CalibrationOptions("Q13", config=QuantConfig(mp_rate=0.3))
    _, table = calibrate(GRAPH, samples, run, options)
    bits = {name: table.ranges[name].bits for name in table.ranges if name in GRAPH.constants}
    size = sum(GRAPH.constants[name].size * count for name, count in bits.items())
    assert set(bits.values()) == {4, 8}
    assert size / sum(GRAPH.constants[name].size * 16 for name in bits) <= 0.3
    assert table.facts["mp_rate"] <= 0.3
    wide = replace(options, config=QuantConfig(mixed_precisions=(8, 16), mp_rate=0.7))
    _, table = calibrate(GRAPH, samples, run, wide)
    assert {table.ranges[name].bits for name in bits} == {8, 16}
    wrong = replace(options, config=QuantConfig(mp_rate=0.7))
    with pytest.raises(ConfigError, match="does not go with"):
        calibrate(GRAPH, samples, run, wrong)
