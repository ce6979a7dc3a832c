"""Caffe: layers and real networks through the image equal to OpenCV's dnn module, or to numpy."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.frontends.caffe_kit import FACES, HYPERLPR, data, layer, run_opencv, write
from tests.frontends.run_kit import TOLERANCE, relative_error, run_image
from tests.models import zoo
from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.frontends.caffe.convert import to_onnx
from tvm_ipu.frontends.caffe.schema import NetParameter
from tvm_ipu.frontends.loaders import LoadOptions

RNG = np.random.default_rng(5)
CHANNELS, HEIGHT, WIDTH = 6, 13, 11
FEED = RNG.normal(0, 1, (1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 1.5, shape).astype(np.float32)


CONVOLUTIONS = {
    "conv": ("Convolution", "num_output: 4 kernel_size: 3 pad: 1 stride: 2", [(4, 6, 3, 3), (4,)]),
    "rect": (
        "Convolution",
        "num_output: 5 kernel_h: 1 kernel_w: 5 pad_h: 0 pad_w: 2 stride_h: 2 stride_w: 1 bias_term: false",
        [(5, 6, 1, 5)],
    ),
    "grouped": ("Convolution", "num_output: 9 group: 3 kernel_size: 3", [(9, 2, 3, 3), (9,)]),
    "dilated": ("Convolution", "num_output: 4 kernel_size: 3 pad: 2 dilation: 2", [(4, 6, 3, 3), (4,)]),
    "depthwise": ("Convolution", "num_output: 6 group: 6 kernel_size: 3 pad: 1", [(6, 1, 3, 3), (6,)]),
    "deconv": ("Deconvolution", "num_output: 4 kernel_size: 4 stride: 2 pad: 1", [(6, 4, 4, 4), (4,)]),
    "upsampling": (
        "Deconvolution",
        "num_output: 6 group: 6 kernel_size: 4 stride: 2 pad: 1 bias_term: false",
        [(6, 1, 4, 4)],
    ),
}
POOLINGS = {
    "ceil": "pool: MAX kernel_size: 3 stride: 2",
    "padded": "pool: MAX kernel_size: 3 stride: 2 pad: 1",
    "clipped": "pool: MAX kernel_size: 2 stride: 2 pad: 1",
    "floor": "pool: MAX kernel_size: 2 stride: 2 ceil_mode: false",
    "average": "pool: AVE kernel_size: 3 stride: 2",
    "average_padded": "pool: AVE kernel_size: 3 stride: 2 pad: 1",
    "rect_pool": "pool: MAX kernel_h: 1 kernel_w: 3 stride_h: 1 stride_w: 2",
    "global": "pool: AVE global_pooling: true",
    "global_max": "pool: MAX global_pooling: true",
}
ELEMENTWISE = {
    "relu": ("ReLU", "", []),
    "leaky": ("ReLU", "relu_param { negative_slope: 0.1 }", []),
    "prelu": ("PReLU", "", [(6,)]),
    "elu": ("ELU", "elu_param { alpha: 0.7 }", []),
    "sigmoid": ("Sigmoid", "", []),
    "tanh": ("TanH", "", []),
    "abs": ("AbsVal", "", []),
    "bnll": ("BNLL", "", []),
    "power": ("Power", "power_param { power: 2 scale: 0.5 shift: 1.5 }", []),
    "exp": ("Exp", "exp_param { base: 2 scale: 0.5 shift: 0.25 }", []),
    "dropout": ("Dropout", "", []),
    "lrn": ("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 }", []),
    "lrn_within": (
        "LRN",
        "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 norm_region: WITHIN_CHANNEL }",
        [],
    ),
    "mvn": ("MVN", "mvn_param { eps: 1e-5 }", []),
    "scale": ("Scale", "scale_param { bias_term: true }", [(6,), (6,)]),
    "normalize": ("Normalize", "norm_param { across_spatial: false channel_shared: false }", [(6,)]),
    "across": ("Normalize", "norm_param { across_spatial: true channel_shared: true }", [(1,)]),
    "softmax": ("Softmax", "", []),
    "columns": ("Softmax", "softmax_param { axis: 3 }", []),
    "dense": ("InnerProduct", "inner_product_param { num_output: 7 }", [(7, 858), (7,)]),
    "flat": ("Flatten", "", []),
    "tail": ("Flatten", "flatten_param { axis: 2 }", []),
    "permuted": ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", []),
    "shaped": ("Reshape", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 11 } }", []),
    "middle": ("Reshape", "reshape_param { shape { dim: 3 dim: 2 } axis: 1 num_axes: 1 }", []),
}


def check(tmp_path: Path, text: str, weights: dict[str, list[np.ndarray]], names: list[str]) -> None:
    """Every layer of a network on ``FEED`` beside OpenCV's."""
    prototxt = write(tmp_path, data(*FEED.shape) + text, weights)
    found = run_image(to_onnx(prototxt, LoadOptions(outputs=tuple(names))), {"data": FEED}, tmp_path)
    expected = run_opencv(prototxt, tmp_path / "net.caffemodel", FEED, names)
    errors = {
        name: relative_error(found[name].reshape(value.shape), value)
        for name, value in zip(names, expected, strict=True)
    }
    assert max(errors.values()) < TOLERANCE, {name: e for name, e in errors.items() if e >= TOLERANCE}


def test_convolutions_equal_opencv(tmp_path: Path) -> None:
    text = "".join(
        layer(name, kind, "data", params=f"convolution_param {{ {params} }}")
        for name, (kind, params, _) in CONVOLUTIONS.items()
    )
    weights = {name: [draw(*shape) for shape in shapes] for name, (_, _, shapes) in CONVOLUTIONS.items()}
    check(tmp_path, text, weights, list(CONVOLUTIONS))


def test_pooling_rounds_up_as_caffe_does(tmp_path: Path) -> None:
    text = "".join(
        layer(name, "Pooling", "data", params=f"pooling_param {{ {params} }}")
        for name, params in POOLINGS.items()
    )
    check(tmp_path, text, {}, list(POOLINGS))


def test_other_layers_of_one_input_equal_opencv(tmp_path: Path) -> None:
    text = "".join(
        layer(name, kind, "data", params=params) for name, (kind, params, _) in ELEMENTWISE.items()
    )
    weights = {name: [draw(*shape) for shape in shapes] for name, (_, _, shapes) in ELEMENTWISE.items()}
    check(tmp_path, text, weights, list(ELEMENTWISE))


def test_layers_of_several_inputs_or_outputs_equal_opencv(tmp_path: Path) -> None:
    conv = "convolution_param { num_output: 6 kernel_size: 3 pad: 1 }"
    text = "".join(
        [
            layer("conv", "Convolution", "data", params=conv),
            layer("norm", "BatchNorm", "conv", "conv", "batch_norm_param { eps: 0.001 }"),
            layer("scaled", "Scale", "conv", "conv", "scale_param { bias_term: true }"),
            layer("active", "ReLU", "conv", "conv"),
            layer("sum", "Eltwise", "conv data", params="eltwise_param { coeff: 1 coeff: -0.5 }"),
            layer("product", "Eltwise", "conv data sum", params="eltwise_param { operation: PROD }"),
            layer("largest", "Eltwise", "conv data", params="eltwise_param { operation: MAX }"),
            layer("joined", "Concat", "sum product largest", params="concat_param { axis: 1 }"),
            layer(
                "cut", "Slice", "joined", "left middle right", "slice_param { slice_point: 5 slice_point: 9 }"
            ),
            layer("halves", "Slice", "data", "one two", "slice_param { axis: 1 }"),
            layer("smaller", "Pooling", "data", params="pooling_param { kernel_size: 5 stride: 1 }"),
            layer("window", "Crop", "right smaller", params="crop_param { axis: 2 offset: 1 offset: 3 }"),
            layer("again", "ReLU", "left"),
            layer("third", "ReLU", "middle"),
            layer("fourth", "Eltwise", "one two"),
        ]
    )
    weights = {
        "conv": [draw(6, 6, 3, 3), draw(6)],
        "norm": [draw(6), positive(6), np.float32([2])],
        "scaled": [positive(6), draw(6)],
    }
    names = ["conv", "sum", "product", "largest", "joined", "window", "again", "third", "fourth"]
    prototxt = write(tmp_path, data(*FEED.shape) + text, weights)
    found = run_image(to_onnx(prototxt, LoadOptions(outputs=tuple(names))), {"data": FEED}, tmp_path)
    layers = ["active", *names[1:]]
    for name, value in zip(
        names, run_opencv(prototxt, tmp_path / "net.caffemodel", FEED, layers), strict=True
    ):
        assert relative_error(found[name], value) < TOLERANCE, name


def test_layers_that_opencv_lacks_equal_numpy(tmp_path: Path) -> None:
    x = FEED.astype(np.float64)
    vector, plane, table = draw(6), draw(13, 11), draw(858, 5)
    text = "".join(
        [
            layer("bias", "Bias", "data"),
            layer("planes", "Scale", "data", params="scale_param { axis: 2 num_axes: 2 }"),
            layer("two", "Scale", "data bias"),
            layer("log", "Log", "data_abs", params="log_param { base: 10 shift: 2 scale: 3 }"),
            layer("best", "ArgMax", "data", params="argmax_param { axis: 1 }"),
            layer("best_all", "ArgMax", "data", params="argmax_param { out_max_val: true }"),
            layer("mean", "Reduction", "data", params="reduction_param { operation: MEAN axis: 2 coeff: 3 }"),
            layer("magnitude", "Reduction", "data", params="reduction_param { operation: ASUM axis: 1 }"),
            layer("squares", "Reduction", "data", params="reduction_param { operation: SUMSQ axis: -1 }"),
            layer("tiled", "Tile", "data", params="tile_param { axis: 2 tiles: 2 }"),
            layer("above", "Threshold", "data", params="threshold_param { threshold: 0.3 }"),
            layer(
                "turned",
                "InnerProduct",
                "data",
                params="inner_product_param { num_output: 5 transpose: true }",
            ),
            layer("nearest", "Upsample", "data", params="upsample_param { scale: 2 }"),
            layer("corners", "Interp", "data", params="interp_param { zoom_factor: 3 }"),
            layer("shuffled", "ShuffleChannel", "data", params="shuffle_channel_param { group: 3 }"),
            layer("clipped", "ReLU6", "data"),
            layer("lrn", "LRN", "data", params="lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }"),
        ]
    )
    text = layer("data_abs", "AbsVal", "data") + text
    weights = {"bias": [vector], "planes": [plane], "turned": [table, draw(5)]}
    column = vector.reshape(6, 1, 1).astype(np.float64)
    y = x.reshape(1, 6, 13, 11)
    rows = (np.arange(37) / 3, np.arange(31) / 3)
    low = [np.minimum(r.astype(int), n - 2) for r, n in zip(rows, (13, 11), strict=True)]
    parts = [r - i for r, i in zip(rows, low, strict=True)]
    down = y[:, :, low[0]] * (1 - parts[0][:, None]) + y[:, :, low[0] + 1] * parts[0][:, None]
    expected = {
        "bias": x + column,
        "planes": x * plane,
        "two": x * (x + column),
        "log": np.log10(2 + 3 * np.abs(x)),
        "best": x.argmax(1, keepdims=True),
        "best_all": np.array([x.argmax(), x.max()]).reshape(1, 2, 1, 1),
        "mean": 3 * x.mean((2, 3)),
        "magnitude": np.abs(x).sum((1, 2, 3)),
        "squares": (x * x).sum(3),
        "tiled": np.concatenate([x, x], 2),
        "above": x > np.float32(0.3),
        "turned": x.reshape(1, -1) @ table + weights["turned"][1],
        "nearest": x.repeat(2, 2).repeat(2, 3),
        "corners": down[:, :, :, low[1]] * (1 - parts[1]) + down[:, :, :, low[1] + 1] * parts[1],
        "shuffled": x.reshape(1, 3, 2, 13, 11).transpose(0, 2, 1, 3, 4).reshape(x.shape),
        "clipped": np.clip(x, 0, 6),
        "lrn": x
        / (2 + 0.5 / 3 * sum(np.pad(x * x, ((0, 0), (i, 2 - i), (0, 0), (0, 0))) for i in range(3))[:, 1:7])
        ** 0.6,
    }
    prototxt = write(tmp_path, data(*FEED.shape) + text, weights)
    found = run_image(to_onnx(prototxt, LoadOptions(outputs=tuple(expected))), {"data": FEED}, tmp_path)
    for name, value in expected.items():
        assert relative_error(found[name], np.asarray(value)) < TOLERANCE, name


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
    text = SMALL + layer("a", "Python", "fc") + layer("b", "ROIPooling", "a")
    with pytest.raises(
        UnsupportedOperatorError, match=r"2 layers .*\n  layer 'a' \(Python\)\n  layer 'b' \(ROIPooling\)"
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
