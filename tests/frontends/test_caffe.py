"""Caffe: layers through the image equal to OpenCV's dnn module, or to numpy."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.frontends.caffe_kit import RNG, data, draw, layer, run_opencv, write
from tests.frontends.run_kit import TOLERANCE, relative_error, run_image
from tvm_ipu.frontends.caffe.convert import to_onnx
from tvm_ipu.frontends.loaders import LoadOptions

CHANNELS, HEIGHT, WIDTH = 6, 13, 11
FEED = RNG.normal(0, 1, (1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)


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


def test_regions_are_pooled_as_opencv_does(tmp_path: Path) -> None:
    declared = "input_param { shape { dim: 4 dim: 5 } }"
    text = data(*FEED.shape) + layer("rois", "Input", "", params=declared)
    pooling = "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 }"
    text += layer("pooled", "ROIPooling", "data rois", params=pooling)
    prototxt = write(tmp_path, text, {})
    rois = np.float32([[0, 0, 0, 43, 51], [0, 9, 3, 30, 21], [0, 17, 40, 18, 41], [0, 20, 12, 40, 50]])
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(tmp_path / "net.caffemodel"))
    net.setInput(FEED, "data")
    net.setInput(rois, "rois")
    found = run_image(to_onnx(prototxt, LoadOptions()), {"data": FEED, "rois": rois}, tmp_path)["pooled"]
    assert found.shape == (4, CHANNELS, 3, 2)
    assert relative_error(found, net.forward("pooled")) == 0
