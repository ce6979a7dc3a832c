"""Caffe: whole networks, their old and damaged forms, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.frontends.caffe_kit import FACES, HYPERLPR, data, draw, layer, run_opencv, write
from tests.frontends.run_kit import TOLERANCE, relative_error, run_image
from tests.models import zoo
from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.frontends.caffe.convert import to_onnx
from tvm_ipu.frontends.caffe.schema import NetParameter
from tvm_ipu.frontends.loaders import LoadOptions


def faces() -> tuple[Path, Path]:
    return zoo.fetch(FACES, "**/deploy.prototxt.txt")[0], zoo.fetch(FACES, "**/*.caffemodel")[0]


@pytest.mark.network
@pytest.mark.parametrize(
    ("stem", "shape"),
    [
        ("HorizonalFinemapping", (1, 3, 16, 66)),
        ("refinenet", (1, 3, 48, 120)),
        ("SegmenationFree-Inception", (1, 3, 160, 40)),
        pytest.param("mininet_ssd_v1", (1, 3, 512, 512), marks=pytest.mark.sweep),
        ("faces", (1, 3, 300, 300)),
    ],
)
def test_real_networks_equal_opencv(stem: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    if stem == "faces":
        prototxt, caffemodel = faces()
    else:
        prototxt = zoo.fetch(HYPERLPR, f"**/{stem}.prototxt")[0]
        caffemodel = prototxt.with_suffix(".caffemodel")
    feed = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    model = to_onnx(prototxt, LoadOptions(weights=caffemodel))
    makers = {name: node.name for node in model.graph.node for name in node.output}
    outputs = [info.name for info in model.graph.output]
    found = run_image(model, {"data": feed}, tmp_path)
    expected = run_opencv(prototxt, caffemodel, feed, [makers[name] for name in outputs])
    for name, value in zip(outputs, expected, strict=True):
        assert relative_error(found[name], value) < TOLERANCE, name


@pytest.mark.network
def test_detection_is_cut_off_with_a_message(caplog: pytest.LogCaptureFixture) -> None:
    prototxt, caffemodel = faces()
    with caplog.at_level(logging.WARNING, "tvm_ipu"):
        model = to_onnx(prototxt, LoadOptions(weights=caffemodel))
    assert [info.name for info in model.graph.output] == ["mbox_loc", "mbox_conf_flatten"]
    assert (
        "layer 'detection_out' (DetectionOutput); the outputs are 'mbox_loc', 'mbox_conf_flatten'"
        in caplog.text
    )
    assert "layer 'fc7_mbox_priorbox' (PriorBox)" in caplog.text


DENSE = layer("fc", "InnerProduct", "data", params="inner_product_param { num_output: 2 }")


SMALL = data(1, 3) + DENSE


FC = {"fc": [draw(2, 3), draw(2)]}


def test_old_forms_of_inputs_and_layers(tmp_path: Path) -> None:
    old = (
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 1 input_dim: 1\n'
        'layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc"\n'
        "inner_product_param { num_output: 2 } }\n"
        'layers { name: "tanh" type: TANH bottom: "fc" top: "fc" }\n'
    )
    x = draw(1, 3, 1, 1)
    found = run_image(to_onnx(write(tmp_path, old, FC), LoadOptions()), {"data": x}, tmp_path)
    weight, bias = FC["fc"]
    assert relative_error(found["fc"], np.tanh(x.reshape(1, 3) @ weight.T + bias)) < TOLERANCE


def test_only_the_test_phase_is_converted(tmp_path: Path) -> None:
    text = (
        layer("d", "Data", "", "data label", "include { phase: TRAIN }")
        + layer("e", "Data", "", "data label", "include { phase: TEST }")
        + layer("noise", "Power", "data", "data", "exclude { phase: TEST }")
        + DENSE
        + layer("accuracy", "Accuracy", "fc label", params="include { phase: TEST stage: 'validate' }")
        + layer("loss", "SoftmaxWithLoss", "fc label")
    )
    prototxt = write(tmp_path, text, FC)
    with pytest.raises(ModelError, match="--input-shapes"):
        to_onnx(prototxt, LoadOptions())
    model = to_onnx(prototxt, LoadOptions(input_shapes={"data": (4, 3)}))
    assert [info.name for info in model.graph.input] == ["data"]
    assert [node.op_type for node in model.graph.node] == ["Gemm"]
    assert [info.name for info in model.graph.output] == ["fc"]


def test_names_of_layers_in_place_stay_unique(tmp_path: Path) -> None:
    text = data(1, 3) + layer("first", "ReLU", "data", "data") + layer("fc", "InnerProduct", "data", params=(
        "inner_product_param { num_output: 2 }"
    )) + layer("fc_relu", "ReLU", "fc", "fc") + layer("fc_tanh", "TanH", "fc", "fc")  # fmt: skip
    model = to_onnx(write(tmp_path, text, FC), LoadOptions())
    assert [list(node.output) for node in model.graph.node] == [
        ["data/first"],
        ["fc/fc"],
        ["fc/fc_relu"],
        ["fc"],
    ]
    assert [node.name for node in model.graph.node] == ["first", "fc", "fc_relu", "fc_tanh"]


def test_shapes_and_batch_are_the_users(tmp_path: Path) -> None:
    text = data(1, 3, 8, 8) + layer(
        "pool", "Pooling", "data", params="pooling_param { kernel_size: 3 stride: 2 }"
    )
    prototxt = write(tmp_path, text, {})

    def shape(options: LoadOptions) -> list[int]:
        return [d.dim_value for d in to_onnx(prototxt, options).graph.output[0].type.tensor_type.shape.dim]

    assert shape(LoadOptions()) == [1, 3, 4, 4]
    assert shape(LoadOptions(batch=5)) == [5, 3, 4, 4]
    assert shape(LoadOptions(input_shapes={"data": (2, 3, 12, 9)})) == [2, 3, 6, 4]
    assert shape(LoadOptions(input_shapes=[(-1, 3, 12, 9)])) == [1, 3, 6, 4]


def test_half_precision_weights(tmp_path: Path) -> None:
    prototxt = write(tmp_path, SMALL, FC)
    net = NetParameter()
    net.ParseFromString((tmp_path / "net.caffemodel").read_bytes())
    for blob, array in zip(net.layer[1].blobs, FC["fc"], strict=True):
        blob.ClearField("data")
        blob.raw_data_type, blob.raw_data = 2, array.astype(np.float16).tobytes()
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    model = to_onnx(prototxt, LoadOptions())
    x = draw(1, 3)
    weight, bias = (array.astype(np.float16).astype(np.float64) for array in FC["fc"])
    assert relative_error(run_image(model, {"data": x}, tmp_path)["fc"], x @ weight.T + bias) < TOLERANCE
    net.layer[1].blobs[1].raw_data = net.layer[1].blobs[1].raw_data[:-1]
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(ModelError, match=r"weight 1 in .* has 1\.5 values, its shape \[2\] has 2"):
        to_onnx(prototxt, LoadOptions())


def test_unsupported_layers_are_listed_together(tmp_path: Path) -> None:
    text = SMALL + layer("a", "Python", "fc") + layer("b", "PSROIPooling", "a")
    with pytest.raises(
        UnsupportedOperatorError, match=r"2 layers .*\n  layer 'a' \(Python\)\n  layer 'b' \(PSROIPooling\)"
    ):
        to_onnx(write(tmp_path, text, FC), LoadOptions())
    model = to_onnx(tmp_path / "net.prototxt", LoadOptions(outputs=("fc",)))
    assert [info.name for info in model.graph.output] == ["fc"]


@pytest.mark.parametrize(
    ("text", "weights", "message"),
    [
        ("layer { name: ", FC, "is not a prototxt, or it is truncated: line 1"),
        ("  ", FC, "is empty"),
        ('name: "x"', FC, "has no layers"),
        (SMALL, {"other": [draw(1)]}, r"layer 'fc' \(InnerProduct\): '.*' has no weights for it"),
        (SMALL, {"fc": [draw(2, 3)]}, "has 1 weights for it, 2 are expected"),
        (
            SMALL,
            {"fc": [draw(2, 4), draw(2)]},
            r"weight 0 in '.*' has the shape \[2, 4\], expected is \[2, 3\]",
        ),
        (DENSE, FC, "reads 'data', which no layer before it makes"),
        (SMALL + layer("p", "ROIPooling", "fc data"), FC, r"layer 'p' \(ROIPooling\): it needs features"),
        ('input: "data" input_dim: 1 ' + DENSE, FC, "1 inputs, but 1 dimensions"),
        (SMALL + layer("s", "Slice", "data", "a b"), FC, r"layer 's' \(Slice\): 3 values along axis 1"),
        (SMALL + layer("s", "Softmax", "fc", params="softmax_param { axis: 2 }"), FC, "has no axis 2"),
    ],
)
def test_damaged_networks_are_refused(text: str, weights: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        to_onnx(write(tmp_path, text, weights), LoadOptions())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    prototxt = write(tmp_path, SMALL, {"fc": [draw(2, 3), draw(2)], "more": [draw(64)]})
    caffemodel = tmp_path / "net.caffemodel"
    content = caffemodel.read_bytes()
    for size in range(len(content)):
        caffemodel.write_bytes(content[:size])
        try:
            to_onnx(prototxt, LoadOptions())
        except ModelError:
            continue
        assert content[size:].count(b"more"), f"{size} of {len(content)} bytes are no whole network"
    caffemodel.unlink()
    with pytest.raises(ModelError, match="--weight-file"):
        to_onnx(prototxt, LoadOptions())
    with pytest.raises(ModelError, match="does not exist"):
        to_onnx(prototxt, LoadOptions(weights=tmp_path / "none.caffemodel"))
    caffemodel.write_bytes(content)
    with pytest.raises(OptionError, match=r"no tensor 'fd'; the model has 'data', 'fc'"):
        to_onnx(prototxt, LoadOptions(outputs=("fd",)))
