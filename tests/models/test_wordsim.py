"""MiniLM in fixed point judges the similarity of words as it does in float."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models import wordsim, zoo
from tests.quantize.quantize_kit import sqnr
from tvm_ipu import Session, compile_model
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, write_stage
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.simulation import compile_runner

SHAPES = parse_input_shapes(
    [f"{name}:[1,{wordsim.LENGTH}]" for name in ("input_ids", "attention_mask", "token_type_ids")]
)


def similarity(stage, folder):
    """The correlation by an image, and the hidden states of the tokens of twelve pairs."""
    path = folder / f"{stage.kind}.sim"
    write_stage(stage, path)
    compile_model(path, "host", path.with_suffix(".img"))
    with Session(path.with_suffix(".img")) as session:
        correlation = wordsim.correlation(lambda feeds: session.run(feeds)["last_hidden_state"])
        feeds = [wordsim.tokens(f"{first} {second}") for first, second, _ in wordsim.pairs()[:12]]
        states = [session.run(one)["last_hidden_state"][one["attention_mask"] > 0] for one in feeds]
        return correlation, np.concatenate(states)


@pytest.mark.slow
@pytest.mark.network
def test_similarity_of_words(tmp_path):
    graph = load_graph(zoo.get("minilm_l6"), LoadOptions(SHAPES, outputs=("last_hidden_state",)))
    samples = [wordsim.tokens(text) for text in wordsim.sentences(24)]
    fixed, _ = calibrate(
        graph,
        lambda: iter(samples),
        lambda part: compile_runner(part, 1),
        CalibrationOptions(level="L1"),
        Contract(),
    )
    plain, expected = similarity(Stage(FLOAT, graph_to_onnx(graph)), tmp_path)
    assert plain == pytest.approx(0.7289, abs=0.001)  # what onnxruntime gives
    found, states = similarity(Stage(FIXED, graph_to_onnx(fixed)), tmp_path)
    assert found == pytest.approx(plain, abs=0.01)
    assert (
        sqnr(expected, states) > 18
    )  # 19.9; 14.3 with outliers left in the activations and residuals rounded


def test_ranks_are_spearmans():
    """On five pairs with ties, worked out by hand."""
    a = np.array([1.0, 2.0, 2.0, 4.0, 5.0])
    b = np.array([2.0, 1.0, 3.0, 3.0, 5.0])
    ranks_a, ranks_b = np.array([1, 2.5, 2.5, 4, 5]), np.array([2, 1, 3.5, 3.5, 5])
    assert wordsim._spearman(a, b) == pytest.approx(np.corrcoef(ranks_a, ranks_b)[0, 1])
