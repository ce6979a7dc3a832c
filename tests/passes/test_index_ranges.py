"""Inputs that index tensors, in the forms that exporters write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.unit.frontend_kit import FLOAT, INT64, constant, make_model, node, value
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.passes.index_ranges import index_ranges


def test_numbers_of_words_reach_over_their_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("Gather", "words ids", "a"),
        node("Cast", "types", "types32", to=onnx.TensorProto.INT32),
        node("Gather", "kinds types32", "b"),
        node("Unsqueeze", "mask axis", "mask1"),
        node("Cast", "mask1", "masked", to=FLOAT),
        node("Add", "a b", "sum"),
        node("Mul", "sum masked", "y"),
        node("Gather", "few ids", "c"),  # the same numbers in a smaller table
        node("Add", "y c", "z"),
    ]
    weights = [
        constant("words", rng.normal(size=(300, 8)), "float32"),
        constant("kinds", rng.normal(size=(3, 8)), "float32"),
        constant("few", rng.normal(size=(200, 8)), "float32"),
        constant("axis", [2], "int64"),
    ]
    inputs = [value(name, (1, 4), INT64) for name in ("ids", "types", "mask")]
    path = tmp_path / "words.onnx"
    onnx.save(make_model(nodes, inputs, [value("z", (1, 4, 8))], weights), path)
    assert index_ranges(load_model(path, LoadOptions()).module) == {"ids": 200, "types": 3}
