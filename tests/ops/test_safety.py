"""Inputs that no model should get: no trap, no memory that is not the image's own, a defined result."""

import numpy as np
import pytest

from tests.ops.op_kit import Case, Const, const, ints, rand, run_image

WILD = np.array([0, 5, -6, 2**31, -(2**31), 2**62, -(2**63), 2**63 - 1, 99, -99])
X = rand(6, 4)


def clamped(indices, extent):
    return np.clip(np.where(indices < 0, np.maximum(indices, -extent) + extent, indices), 0, extent - 1)


def test_gather_clamps_indices():
    (got,) = run_image(Case("wild", "Gather", [X, WILD]))
    np.testing.assert_array_equal(got, X[clamped(WILD, 6)])


def test_gather_elements_clamps_indices():
    indices = np.repeat(WILD[:, None], 4, 1)
    (got,) = run_image(Case("wild", "GatherElements", [X, indices]))
    np.testing.assert_array_equal(got, np.take_along_axis(X, clamped(indices, 6), 0))


def test_gather_nd_clamps_indices():
    (got,) = run_image(Case("wild", "GatherND", [X, np.stack([WILD, WILD[::-1]], 1)]))
    np.testing.assert_array_equal(got, X[clamped(WILD, 6), clamped(WILD[::-1], 4)])


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_scatter_clamps_indices(op):
    indices = np.repeat(WILD[:, None], 4, 1) if op == "ScatterElements" else WILD[:, None]
    updates = rand(10, 4, seed=1)
    (got,) = run_image(Case("wild", op, [X, indices, updates], opset=18))
    expected = X.copy()
    for at, row in zip(clamped(WILD, 6), updates, strict=True):
        expected[at] = row
    np.testing.assert_array_equal(got, expected)


def test_lookup_whose_mask_says_the_same_as_its_clamp():
    from onnx import TensorProto, helper, numpy_helper

    from scripts.node_suite import compile_image
    from tvm_ipu.runtime.session import Session

    table = rand(1000, 16)
    nodes = [
        helper.make_node("GreaterOrEqual", ["i", "zero"], ["known"]),
        helper.make_node("Unsqueeze", ["known", "last"], ["mask"]),
        helper.make_node("Gather", ["table", "i"], ["rows"]),
        helper.make_node("Where", ["mask", "rows", "nothing"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(a, n)
        for n, a in {
            "zero": np.array(0), "last": np.array([-1]), "table": table, "nothing": np.array(0, "float32")
        }.items()
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "masked",
        [helper.make_tensor_value_info("i", TensorProto.INT64, [32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [32, 16])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    index = np.where(np.arange(32) % 2, np.arange(32), -(2**40))
    with Session(compile_image(model, {}, "host")) as session:
        got = session.run({"i": index})["y"]
    np.testing.assert_array_equal(got, np.where(index[:, None] >= 0, table[np.maximum(index, 0)], 0))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_integer_division_never_traps(op, dtype):
    low = np.iinfo(dtype).min
    a = np.array([7, low, low, 5, 0] * 16, dtype)
    b = np.array([0, 0, -1 if low else 1, 2, 3] * 16).astype(dtype)
    (got,) = run_image(Case("zero", op, [a, b], opset=18))
    with np.errstate(all="ignore"):
        safe = np.where(b == 0, 1, b)
        quotient = np.where(
            b == 0, 0, (a.astype("float64") / safe).astype("int64") if dtype != "int64" else a // safe
        )
        expected = (
            quotient.astype(dtype) if op == "Div" else np.where(b == 0, 0, np.mod(a, safe)).astype(dtype)
        )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_floats_saturate_to_integers(dtype):
    x = np.array([0.9, -0.9, 300.5, -300.5, 1e30, -1e30, np.inf, -np.inf, np.nan] * 5, "float32")
    (got,) = run_image(
        Case("wild", "Cast", [x], {"to": {"int8": 3, "uint8": 2, "int16": 5, "int32": 6, "int64": 7}[dtype]})
    )
    info = np.iinfo(dtype)
    expected = [info.min if v != v else min(max(int(np.clip(v, -1e25, 1e25)), info.min), info.max) for v in x]
    np.testing.assert_array_equal(got, np.array(expected, dtype))


def test_grid_sample_far_outside():
    grid = np.array([1e30, -1e30, np.inf, -np.inf, np.nan, 0.0, 7.5, -7.5], "float32")
    field = np.stack(np.meshgrid(grid, grid), -1)[None]
    for mode in ("linear", "nearest", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            attrs = {"mode": mode, "padding_mode": padding}
            (got,) = run_image(Case("wild", "GridSample", [rand(1, 2, 5, 6), field], attrs))
            assert got.shape == (1, 2, 8, 8)


def test_region_pools_of_wild_regions():
    rois = np.array(
        [[1e30, -1e30, np.nan, 5], [-np.inf, 0, np.inf, 3], [2, 2, 1, 1], [0, 0, 4, 4]], "float32"
    )
    batches = np.array([99, -1, 0, 2**40])
    (got,) = run_image(
        Case("wild", "RoiAlign", [rand(2, 3, 5, 6), rois, batches], {"output_height": 2, "output_width": 3})
    )
    assert got.shape == (4, 3, 2, 3)


def test_recurrent_lengths_outside_the_sequence():
    lengths = np.array([-5, 99, 2], "int32")
    inputs = [
        rand(4, 3, 5),
        const(rand(1, 24, 5), "float32"),
        const(rand(1, 24, 6), "float32"),
        None,
        lengths,
    ]
    (y, _, _) = run_image(
        Case("wild", "LSTM", inputs, {"hidden_size": 6, "direction": "reverse"}, opset=14, outputs=3)
    )
    assert (y[:, 0, 0] == 0).all()
    assert (y[2:, 0, 2] == 0).all()


def test_rotary_positions_outside_the_cache():
    cache = Const(rand(10, 4))
    positions = ints(1, 3, low=-(2**40), high=2**40)
    (got,) = run_image(Case("wild", "RotaryEmbedding", [rand(1, 2, 3, 8), cache, cache, positions], opset=23))
    assert got.shape == (1, 2, 3, 8)
