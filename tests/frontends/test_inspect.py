"""What ``inspect`` says of a model: its work, beside an independent counter, and where to cut it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.models import builders
from tests.unit.frontend_kit import constant, make_model, network, node, value
from tvm_ipu.base.errors import UnsupportedOperatorError
from tvm_ipu.cli.main import main
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.inspection import inspect_model

RNG = np.random.default_rng(0)
BERT = builders.BertSize(2, 64, 4, vocabulary=100, positions=32)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return constant(name, RNG.normal(0, 0.1, shape), "float32")


def separable() -> onnx.ModelProto:
    """A strided, a depthwise and a pointwise convolution, as MobileNets have them."""
    nodes = [
        node("Conv", "x a", "b", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("HardSwish", "b", "c"),
        node("Conv", "c d", "e", group=16, pads=[2, 2, 2, 2]),
        node("Conv", "e f", "y"),
    ]
    weights = [weight("a", 16, 3, 3, 3), weight("d", 16, 1, 5, 5), weight("f", 24, 16, 1, 1)]
    return make_model(nodes, [value("x", [1, 3, 32, 32])], [value("y", None)], weights)


def ids(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int64)


MODELS = {
    "separable": (separable, {"x": np.zeros((1, 3, 32, 32), np.float32)}),
    "resnet50": (
        lambda: builders.resnet50(builders.resnet50_weights()),
        {"input": np.zeros((2, 3, 64, 64), np.float32)},
    ),
    "bert": (
        lambda: builders.bert(builders.bert_weights(BERT), BERT, "bert"),
        {"input_ids": ids(2, 16), "attention_mask": ids(2, 16), "token_type_ids": ids(2, 16)},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_work_is_that_of_onnx_tool(name: str) -> None:
    """MACs by operator, and parameters, are equal; onnx-tool counts Gemm's bias as MACs, here it is FLOPs."""
    import onnx_tool

    make, feeds = MODELS[name]
    other = onnx_tool.Model(make(), {"verbose": False, "constant_folding": False}).graph
    other.shape_infer(dict(feeds))
    other.profile()
    counted: Counter[str] = Counter()
    for one in other.nodemap.values():
        counted[one.op_type] += int(sum(one.macs) if isinstance(one.macs, list | tuple) else one.macs)
    shapes = {name: array.shape for name, array in feeds.items()}
    summary = inspect_model(make(), loading=LoadOptions(input_shapes=shapes))
    found = {one.op_type: one for one in summary.operators}
    for kind in ("Conv", "MatMul"):
        assert (found[kind].macs if kind in found else 0) == counted[kind], kind
    if "Gemm" in found:
        gemm = found["Gemm"]
        assert gemm.macs is not None
        assert gemm.flops is not None
        assert gemm.macs + (gemm.flops - 2 * gemm.macs) == counted["Gemm"]
    scalars = {"bert": 12}.get(name, 0)  # of GELU, attention and mask, which are no weights
    assert summary.parameters == other.params - scalars


def detector(*, middle: bool = False) -> onnx.ModelProto:
    """Two heads behind a convolution, and NonMaxSuppression on both; with ``middle`` an unknown operator."""
    nodes = [
        *([node("Mystery", "x", "m")] if middle else []),
        node("Conv", f"{'m' if middle else 'x'} w", "f", pads=[1, 1, 1, 1]),
        node("Conv", "f wb", "b"),
        node("Conv", "f ws", "s"),
        node("Reshape", "b four", "b1"),
        node("Transpose", "b1", "boxes", perm=[0, 2, 1]),
        node("Reshape", "s five", "s1"),
        node("Sigmoid", "s1", "scores"),
        node("NonMaxSuppression", "boxes scores most iou least", "kept"),
        node("Gather", "scores zero", "best", axis=0),
        node("NonZero", "best", "places"),
    ]
    weights = [
        weight("w", 8, 3, 3, 3),
        weight("wb", 4, 8, 1, 1),
        weight("ws", 5, 8, 1, 1),
        constant("four", [1, 4, 64]),
        constant("five", [1, 5, 64]),
        constant("most", [10]),
        constant("iou", 0.5, "float32"),
        constant("least", 0.1, "float32"),
        constant("zero", 0),
    ]
    outputs = [value("kept", None, TensorProto.INT64), value("places", None, TensorProto.INT64)]
    return make_model(nodes, [value("x", [1, 3, 8, 8])], outputs, weights)


def test_a_cut_before_post_processing(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    summary = inspect_model(detector())
    assert {one.op_type for one in summary.unsupported} == {"NonMaxSuppression", "NonZero"}
    assert summary.cut == ("boxes", "scores", "best")
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(detector())
    assert caught.value.hint.endswith("--output-arrays boxes,scores,best")
    cut = LoadOptions(outputs=summary.cut)
    assert [spec.name for spec in load_model(detector(), cut).outputs] == ["boxes", "scores", "best"]
    assert inspect_model(detector(), loading=cut).cut == ()
    path = tmp_path / "detector.onnx"
    onnx.save(detector(), path)
    assert main(["inspect", str(path)]) == 0
    assert "--output-arrays boxes,scores,best" in capsys.readouterr().out


def test_no_cut_where_too_much_would_go() -> None:
    assert inspect_model(detector(middle=True)).cut == ()
    assert inspect_model(network(), loading=LoadOptions(batch=1)).cut == ()


def test_a_cut_is_at_tensors_that_the_model_names() -> None:
    """What a function computes inside is none of the model's tensors."""
    body = helper.make_function(
        "own",
        "Tail",
        ["a"],
        ["b"],
        [node("Sigmoid", "a", "s"), node("NonZero", "s", "b")],
        [helper.make_opsetid("", 17)],
    )
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Tail", "r", "y", domain="own")]
    made = make_model(
        nodes,
        [value("x", [1, 3, 8, 8])],
        [value("y", None, TensorProto.INT64)],
        [weight("w", 4, 3, 3, 3)],
        functions=[body],
        domains=["own"],
    )
    assert inspect_model(made).cut == ("r",)


def test_operators_of_a_source_that_onnx_lacks() -> None:
    """A converter leaves what it cannot convert in a domain of its own; it is named, and cut off."""
    nodes = [
        node("Conv", "x w", "c"),
        helper.make_node("DetectionOutput", ["c"], ["d"], "detection_out", domain="caffe"),
        helper.make_node("Other", ["d"], ["y"], "other", domain="caffe"),
    ]
    made = make_model(nodes, [value("x", [1, 3, 8, 8])], [value("y", None)], [weight("w", 4, 3, 3, 3)])
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(made)
    for text in ("caffe.DetectionOutput 'detection_out'", "caffe.Other 'other'"):
        assert text in caught.value.message
    assert inspect_model(made).cut == ("c",)
    assert load_model(made, LoadOptions(outputs=("c",))).outputs[0].shape == (1, 4, 6, 6)
