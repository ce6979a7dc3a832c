"""Places of networks, and quantisers there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from scripts.node_suite import compile_image
from tests.passes.test_to_integer import SHAPE, network
from tests.quantize.quantize_kit import make_graph, run, sqnr
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.quantize.grid import activation_grid, weight_grid
from tvm_ipu.quantize.insert import insert_quantizers
from tvm_ipu.quantize.places import TRANSFORMER_FLOAT, Places, find_places
from tvm_ipu.runtime.session import Session


def ranges(
    graph: Graph, places: Places, feed: dict[str, np.ndarray], bits: int = 8
) -> dict[str, TensorRange]:
    """Least and largest numbers of one sample."""
    values = {**feed, **graph.constants}
    values |= run(graph.with_outputs([t for t in places.tensors if t not in values]))(feed)
    found = {
        t: TensorRange(t, (float(values[t].min()),), (float(values[t].max()),), bits) for t in places.tensors
    }
    for name, axis in places.weights.items():
        weights = np.abs(graph.constants[name])
        high = weights.max(tuple(a for a in range(weights.ndim) if a != axis)).reshape(-1)
        found[name] = TensorRange(name, tuple(-high), tuple(high), bits)
    return found


def test_a_network_with_quantisers_is_near_the_float_one_and_has_no_float_layer():
    graph = load_graph(network())
    places = find_places(graph)
    assert places.tensors == ("x", "relu", "relu6", "residual", "swish", "concat", "average", "mean", "y")
    assert places.follows == {"pool": "relu", "flat": "mean"}
    assert places.joins == {"concat": ("swish", "residual")}
    assert places.weights == {"w1": 0, "w2": 0, "w3": 0, "w4": 0, "w5": 0}
    feed = {"x": np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)}
    quantised = insert_quantizers(graph, places, ranges(graph, places, feed))
    model = onnx.load_from_string(graph_to_onnx(quantised))
    onnx.checker.check_model(model, full_check=True)
    expected, found = run(graph)(feed)["y"], run(quantised)(feed)["y"]
    assert sqnr(expected, found) > 30
    with Session(compile_image(model, {}, "host")) as session:
        assert session.metadata["float_layers"] == []
        assert sqnr(found, session.run(feed)["y"]) > 30


@pytest.mark.parametrize(("bits", "least"), [(4, 8), (8, 35), (16, 75)])
def test_more_bits_are_nearer(bits: int, least: float):
    graph = load_graph(network())
    places = find_places(graph)
    feed = {"x": np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)}
    table = ranges(graph, places, feed, 16)
    table |= {
        n: TensorRange(n, r.low, r.high, bits) for n, r in table.items() if n in places.weights or bits > 4
    }
    quantised = insert_quantizers(graph, places, table)
    assert sqnr(run(graph)(feed)["y"], run(quantised)(feed)["y"]) > least


def test_what_only_float_operators_read_stays_float():
    random = np.random.default_rng(0)
    graph = make_graph(
        [
            ("MatMul", ("x", "w"), "product"),
            ("Add", ("product", "b"), "biased"),
            ("Add", ("biased", "x"), "residual"),
            ("LayerNormalization", ("residual", "one", "zero"), "normal"),
            ("MatMul", ("normal", "w"), "y"),
        ],
        {
            "w": random.normal(size=(8, 8)).astype(np.float32),
            "b": random.normal(size=8).astype(np.float32),
            "one": np.ones(8, np.float32),
            "zero": np.zeros(8, np.float32),
        },
        {"x": (4, 8)},
        {"y": (4, 8)},
    )
    places = find_places(graph, TRANSFORMER_FLOAT, outputs=False)
    assert places.tensors == ("x", "normal")
    assert places.weights == {"w": 1}
    assert find_places(graph).tensors == ("x", "residual", "normal", "y")


def test_regions_keep_their_places():
    """Of a map of 1000 pixels, 8 bits would tell every fourth."""
    graph = make_graph(
        [
            ("Conv", ("x", "w"), "c"),
            ("MaxRoiPool", ("c", "regions"), "pooled", {"pooled_shape": [2, 2]}),
        ],
        {"w": np.ones((2, 2, 1, 1), np.float32)},
        {"x": (1, 2, 8, 8), "regions": (3, 5)},
        {"pooled": (3, 2, 2, 2)},
    )
    assert find_places(graph).tensors == ("x", "c", "pooled")


def test_an_output_that_was_moved_is_an_integer_tensor_too():
    graph = make_graph([("Transpose", ("x",), "y", {"perm": [1, 0]})], {}, {"x": (2, 3)}, {"y": (3, 2)})
    places = find_places(graph)
    quantised = insert_quantizers(graph, places, {"x": TensorRange("x", (-1.0,), (1.0,))})
    assert [node.op_type for node in quantised.nodes] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "Transpose",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    assert np.abs(run(quantised)({"x": x})["y"] - x.T).max() <= 1.01 / 255


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-3.0, 5.0), (2.0, 3.0), (-3.0, -2.0), (0.0, 0.0), (0.0, 1e-40)]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_grids_express_zero_and_their_ends(low: float, high: float, bits: int):
    grid = activation_grid(low, high, bits)
    ends = np.array([low, 0.0, high], np.float32)
    rounded = grid.rounded(ends)
    assert rounded[1] == 0
    assert np.abs(rounded - ends).max() <= 0.51 * float(grid.scale)


def test_channels_of_next_to_nothing_get_a_scale_that_biases_survive():
    grid = weight_grid(np.array([1.0, 1e-30, 0.0]), 8)
    assert grid.scale.min() > 1e-7
    assert grid.integers(np.array([[1.0], [1e-30], [0.0]]), 0).tolist() == [[127], [0], [0]]
