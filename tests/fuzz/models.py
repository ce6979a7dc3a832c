"""Models of every framework, and the code that reads them."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.fuzz.reader import COMPILE, Files, Read, Reader, collect, command, first, python_pickles


def load(folder: Path) -> None:
    """A model to Relax, without code generation."""
    from tvm_ipu.frontends.loaders import LoadOptions, load_model

    load_model(first(folder, ".onnx"), LoadOptions(batch=1))


def convert(suffix: str, shapes: str = "") -> Read:
    """A file of another framework's to ONNX in memory."""

    def read(folder: Path) -> None:
        from tvm_ipu.base.shapes import parse_input_shapes
        from tvm_ipu.conversion import convert_model
        from tvm_ipu.frontends.loaders import LoadOptions

        options = LoadOptions(input_shapes=parse_input_shapes([shapes] if shapes else []))
        convert_model(first(folder, suffix) if suffix else folder / "net", loading=options)

    return read


def onnx_seeds(folder: Path) -> Iterator[Files]:
    """Models with all kinds of weights, and every third of ONNX's own node cases."""
    import onnx
    from onnx.numpy_helper import from_array

    from scripts.node_suite import load_cases
    from tests.simulate import kit
    from tests.unit.frontend_kit import network

    yield {"net.onnx": kit.transformer()}
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    yield {"net.onnx": model.SerializeToString()}
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            onnx.external_data_helper.set_external_data(tensor, "w.bin", 0)
            data = tensor.raw_data
            tensor.ClearField("raw_data")
    yield {"net.onnx": model.SerializeToString(), "w.bin": data}
    model = network()
    values = from_array(np.ones(2, np.float32), "b")
    model.graph.sparse_initializer.add(values=values, indices=from_array(np.array([0, 3]), "i"), dims=[4])
    del model.graph.initializer[1]
    yield {"net.onnx": model.SerializeToString()}
    np.random.seed(0)
    for case in load_cases()[::3]:
        if case.model.ByteSize() < 8000:
            yield {"net.onnx": case.model.SerializeToString()}


@functools.cache
def onnx_words() -> tuple[str, ...]:
    """Names of operators and attributes, and of tensors in the examples."""
    from onnx import defs

    schemas = [schema for schema in defs.get_all_schemas() if not schema.domain]
    attributes = {name for schema in schemas for name in schema.attributes}
    return (*sorted({schema.name for schema in schemas}), *sorted(attributes), "x", "y", "w", "ai.onnx.ml")


def small_onnx_seeds(folder: Path) -> Iterator[Files]:
    """Three models that compile at once."""
    from onnx import TensorProto

    from tests.unit.frontend_kit import constant, make_model, node, value

    weights = [constant("w", np.ones((4, 2)), "float32"), constant("s", [2, 2])]
    nodes = [node("MatMul", "x w", "p"), node("Relu", "p", "r"), node("Reshape", "r s", "y")]
    model = make_model(nodes, [value("x", [2, 4])], [value("y", None)], weights)
    yield {"net.onnx": model.SerializeToString()}
    nodes = [node("Conv", "x k", "c", pads=[1] * 4), node("MaxPool", "c", "y", kernel_shape=[2, 2])]
    weights = [constant("k", np.ones((2, 3, 3, 3)), "float32")]
    model = make_model(nodes, [value("x", [1, 3, 4, 4])], [value("y", None)], weights)
    yield {"net.onnx": model.SerializeToString()}
    nodes = [node("Gather", "t i", "g", axis=0), node("Softmax", "g", "y", axis=-1)]
    weights = [constant("t", np.eye(5), "float32")]
    model = make_model(nodes, [value("i", [3], TensorProto.INT64)], [value("y", None)], weights)
    yield {"net.onnx": model.SerializeToString()}


def tflite_seeds(folder: Path) -> Iterator[Files]:
    """Every operator of every family in a model of its own."""
    from tests.frontends import tflite_kit
    from tests.frontends.tflite_cases import FAMILIES

    for cases in FAMILIES.values():
        for case in cases:
            model = tflite_kit.build(case.tensors(), [case.op()], list(case.feeds()), case.output_names())
            if len(model) < 20_000:
                yield {"net.tflite": model}


def caffe_seeds(folder: Path) -> Iterator[Files]:
    """A network with weights, and one of most layers."""
    from tests.frontends import caffe_kit as kit

    rng = np.random.default_rng(0)
    text = kit.data(1, 3, 8, 8)
    conv = "convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 1 bias_term: true }"
    text += kit.layer("conv", "Convolution", "data", params=conv)
    text += kit.layer("norm", "BatchNorm", "conv", params="batch_norm_param { eps: 1e-4 }")
    text += kit.layer("scale", "Scale", "norm", params="scale_param { bias_term: true }")
    text += kit.layer("relu", "ReLU", "scale", params="relu_param { negative_slope: 0.1 }")
    text += kit.layer(
        "pool", "Pooling", "relu", params="pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    )
    text += kit.layer("lrn", "LRN", "pool", params="lrn_param { local_size: 3 alpha: 0.1 }")
    text += kit.layer("fc", "InnerProduct", "lrn", params="inner_product_param { num_output: 2 axis: 1 }")
    text += kit.layer("prob", "Softmax", "fc", params="softmax_param { axis: 1 }")
    weights = {
        "conv": [rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)],
        "norm": [rng.normal(size=4), rng.uniform(1, 2, 4), np.ones(1)],
        "scale": [rng.normal(size=4), rng.normal(size=4)],
        "fc": [rng.normal(size=(2, 64)), rng.normal(size=2)],
    }
    kit.write(folder, text, weights)
    yield collect(folder)
    text = kit.data(1, 4, 6, 6)
    for name, kind, bottoms, params in (
        ("slice", "Slice", "data", "slice_param { axis: 1 slice_point: 2 }"),
        ("sum", "Eltwise", "a b", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }"),
        ("cat", "Concat", "sum a", "concat_param { axis: 1 }"),
        ("flip", "Permute", "cat", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
        ("shape", "Reshape", "flip", "reshape_param { shape { dim: 0 dim: -1 } axis: 0 num_axes: -1 }"),
        ("power", "Power", "shape", "power_param { power: 2 scale: 0.5 shift: 1 }"),
        ("flat", "Flatten", "power", "flatten_param { axis: 1 }"),
        ("crop", "Crop", "data a", "crop_param { axis: 2 offset: 1 }"),
        ("prior", "PriorBox", "a data", "prior_box_param { min_size: 2 variance: 0.1 }"),
        ("up", "Deconvolution", "crop", "convolution_param { num_output: 4 kernel_size: 2 stride: 2 }"),
    ):
        text += kit.layer(name, kind, bottoms, "a b" if name == "slice" else "", params)
    kit.write(folder, text, {"up": [rng.normal(size=(4, 4, 2, 2)), rng.normal(size=4)]})
    yield collect(folder)


CAFFE_WORDS = (
    *("AbsVal", "ArgMax", "Axpy", "BN", "Bias", "BNLL", "Dropout", "ELU", "Embed", "Exp", "Input", "Interp"),
    *("MVN", "Normalize", "PReLU", "Reduction", "Reorg", "ROIPooling", "ShuffleChannel", "Silence", "SPP"),
    *("Upsample", "DetectionOutput", "name", "type", "bottom", "top", "param", "blobs", "axis", "data"),
    *("input", "input_dim", "layers", "include", "phase", "TEST", "Threshold", "Swish", "Split", "ReLU6"),
)


def paddle_seeds(folder: Path) -> Iterator[Files]:
    """Programs of both versions."""
    from tests.frontends import test_paddle as kit

    p = kit.Program()
    p.input("x", (-1, 3))
    p.parameter("w", np.arange(6, dtype=np.float32).reshape(3, 2))
    for name in ("y", "z", "s", "r"):
        p.variable(name, (-1, 2))
    p.op("matmul_v2", {"X": ["x"], "Y": ["w"]}, {"Out": ["y"]}, trans_x=False, trans_y=False)
    p.op("scale", {"X": ["y"]}, {"Out": ["z"]}, scale=3.0, bias=2.0, bias_after_scale=False)
    p.op("softmax", {"X": ["z"]}, {"Out": ["s"]}, axis=-1)
    p.op("slice", {"Input": ["s"]}, {"Out": ["r"]}, axes=[1], starts=[0], ends=[1], decrease_axis=[1])
    p.write(folder, ["r"])
    yield collect(folder)


def paddle3_seeds(folder: Path) -> Iterator[Files]:
    """The program of Paddle 3 that the tests have."""
    from tests.frontends import test_paddle as kit

    kit.unpack(folder)
    yield {name: content for name, content in collect(folder).items() if name.startswith("net.")}


def made(name: str) -> Callable[[Path], Iterator[Files]]:
    """The files of a format of the tests of bad input."""

    def seeds(folder: Path) -> Iterator[Files]:
        from tests.frontends import test_bad_input as kit

        kit.FORMATS[name].make(folder)
        yield collect(folder)

    return seeds


def graphdef_seeds(folder: Path) -> Iterator[Files]:
    """A graph of one product, and one of a picture."""
    import tensorflow as tf

    yield from made("graphdef")(folder)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (1, 8, 8, 3), "x")
        y = tf.nn.conv2d(x, tf.constant(np.ones((3, 3, 3, 2), np.float32)), 2, "SAME")
        tf.concat([tf.nn.max_pool2d(y, 2, 2, "VALID"), tf.nn.avg_pool2d(y, 2, 2, "VALID")], -1, "y")
    yield {"net.pb": graph.as_graph_def().SerializeToString()}


def torch_seeds(name: str) -> Callable[[Path], Iterator[Files]]:
    """The file of the tests, and those that would run code."""

    def seeds(folder: Path) -> Iterator[Files]:
        import torch

        from tests.fuzz.canary import Canary

        yield from made(name)(folder)
        if name == "pth":
            yield from python_pickles("net.pth")
            for old in (False, True):
                out = io.BytesIO()
                torch.save({"a": torch.ones(2), "b": Canary()}, out, _use_new_zipfile_serialization=not old)
                yield {"net.pth": out.getvalue()}

    return seeds


MODELS: dict[str, Reader] = {
    "onnx": Reader(onnx_seeds, load, onnx_words),
    "onnx-inspect": Reader(onnx_seeds, command("inspect net.onnx"), onnx_words),
    "onnx-convert": Reader(onnx_seeds, command("convert net.onnx -o out.onnx"), onnx_words),
    "onnx-compile": Reader(small_onnx_seeds, command(f"compile net.onnx {COMPILE}"), onnx_words, True),
    "tflite": Reader(tflite_seeds, convert(".tflite")),
    "caffe": Reader(caffe_seeds, convert(".prototxt"), lambda: CAFFE_WORDS),
    "paddle": Reader(paddle_seeds, convert(".pdmodel")),
    "paddle3": Reader(paddle3_seeds, convert(".json")),
    "graphdef": Reader(graphdef_seeds, convert(".pb")),
    "saved-model": Reader(made("saved_model"), convert("", "1,3")),
    "keras": Reader(made("keras"), convert(".keras", "1,3"), programs=True),
    "h5": Reader(made("h5"), convert(".h5", "1,3"), programs=True),
    "torchscript": Reader(torch_seeds("pt"), convert(".pt", "1,3")),
    "exported-program": Reader(torch_seeds("pt2"), convert(".pt2")),
    "torch-pickle": Reader(torch_seeds("pth"), convert(".pth", "1,3"), refuses=True),
}
