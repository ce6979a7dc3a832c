"""Published TensorFlow Lite models through images: accuracy, and how far from LiteRT they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from scripts.node_suite import compile_image
from tests.models import cifar, lite, music, zoo
from tests.ops.integer_kit import simulate
from tvm_ipu.base.errors import UnsupportedOperatorError
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.tflite.convert import to_onnx
from tvm_ipu.frontends.tflite.reader import read_file
from tvm_ipu.runtime.session import Session

pytestmark = [pytest.mark.network, pytest.mark.slow]
Array = np.ndarray


def run_litert(path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What LiteRT gives as it runs by default, with XNNPACK's kernels."""
    interpreter = Interpreter(str(path), num_threads=1)
    for one in interpreter.get_input_details():
        interpreter.resize_tensor_input(one["index"], feeds[one["name"]].shape)
    interpreter.allocate_tensors()
    for one in interpreter.get_input_details():
        interpreter.set_tensor(one["index"], feeds[one["name"]])
    interpreter.invoke()
    return {one["name"]: interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()}


def run_image(path: Path, feeds: Mapping[str, Array], options: LoadOptions | None = None) -> dict[str, Array]:
    """What an image of the model gives."""
    with Session(compile_image(to_onnx(path, options or LoadOptions()), {}, "host")) as session:
        return session.run(dict(feeds))


def test_cifar_classes_are_litert_s():
    path, batch = lite.tiny("image_classification"), 50
    images, labels = cifar.test_images()
    pixels = (images.astype(np.int16) - 128).astype(np.int8).reshape(-1, batch, 32, 32, 3)
    expected = np.concatenate([next(iter(run_litert(path, {"input_1_int8": x}).values())) for x in pixels])
    with Session(compile_image(to_onnx(path, LoadOptions(batch=batch)), {}, "host")) as session:
        got = np.concatenate([session.run({"input_1_int8": x})["Identity_int8"] for x in pixels])
    assert np.mean(got.argmax(1) == expected.argmax(1)) >= 0.995
    assert np.mean(got.argmax(1) == labels) >= np.mean(expected.argmax(1) == labels) - 0.002


def _seeded(path: Path, count: int) -> dict[str, Array]:
    """Noise over all of what the model's integers can be given, as float32."""
    graph = read_file(path)
    (place,) = graph.inputs
    name, shape = graph.tensors[place].name, graph.tensors[place].shape
    inner = graph.tensors[graph.operators[0].outputs[0]]
    noise = np.random.default_rng(0).integers(-128, 128, (count, *shape[1:]))
    return {name: ((noise - inner.zero) * inner.scale).astype(np.float32)}


@pytest.mark.parametrize(
    ("name", "steps", "share"),
    [("keyword_spotting", 1, 0.05), ("visual_wake_words", 2, 0.35), ("anomaly_detection", 1, 0.01)],
)
def test_mlperf_tiny_is_within_steps_of_litert(name, steps, share):
    path, count = lite.tiny(name), 32
    feeds = _seeded(path, count)
    ((output, expected),) = run_litert(path, feeds).items()
    got = run_image(path, feeds, LoadOptions(batch=count))[output]
    graph = read_file(path)
    step = graph.tensors[graph.operators[-1].inputs[0]].scale
    difference = np.rint(np.abs(got - expected) / step)
    assert difference.max() <= steps
    assert np.mean(difference > 0) <= share
    assert np.ptp(expected) > 10 * step


def test_integers_are_the_simulators():
    path = lite.tiny("keyword_spotting")
    feeds = _seeded(path, 1)
    (got,) = run_image(path, feeds).values()
    (fixed,) = simulate(to_onnx(path, LoadOptions()), "host", feeds).values()
    assert got.tobytes() == fixed.tobytes()


def test_mobilenet_v1_sees_what_it_should():
    pictures, labels = lite.pictures()
    with Session(
        compile_image(to_onnx(lite.example("mobilenet_v1_1.0_224"), LoadOptions()), {}, "host")
    ) as session:
        got = np.concatenate([next(iter(session.run({"input": x[None]}).values())) for x in pictures])
    found = np.argsort(-got, 1) - 1  # class 0 is the background
    assert np.sum(found[:, 0] == labels) == 17
    assert np.sum((found[:, :5] == labels[:, None]).any(1)) == 20


@pytest.mark.sweep
def test_basic_pitch_hears_what_its_authors_publish():
    """The network in TensorFlow Lite, its twin in ONNX, LiteRT, and the published result for a recording."""
    path, (windows, samples) = lite.basic_pitch(), music.windows()
    twin = onnxruntime.InferenceSession(str(zoo.get("basic_pitch")))
    (name,) = (one.name for one in twin.get_inputs())
    names = [one.name for one in twin.get_outputs()]
    with Session(compile_image(to_onnx(path, LoadOptions()), {}, "host")) as session:
        found = [session.run({name: window[None]}) for window in windows]
    for got, window in list(zip(found, windows, strict=True))[:2]:
        lite_rt = run_litert(path, {name: window[None]})
        onnx = dict(zip(names, twin.run(None, {name: window[None]}), strict=True))
        for output in names:
            for expected in (lite_rt[output], onnx[output]):
                assert np.abs(got[output] - expected).max() < 1e-4
    parts = {"note": 1, "onset": 2, "contour": 0}
    for key, expected in music.reference().items():
        got = music.joined([one[f"StatefulPartitionedCall:{parts[key]}"] for one in found], samples)
        assert np.abs(got - expected).max() < 1e-4, key  # the bound of the authors' own test


def test_detections_are_cut_off():
    path = lite.example("ssd_mobilenet")
    with pytest.raises(UnsupportedOperatorError, match="TFLite_Detection_PostProcess") as caught:
        to_onnx(path, LoadOptions())
    assert "--output-arrays Squeeze,convert_scores" in caught.value.hint


@pytest.mark.sweep
@pytest.mark.parametrize(
    "name", ["deeplabv3_257_mv_gpu", "posenet_mv1_075_float_from_checkpoints", "yolov2_tiny"]
)
def test_float_networks_are_litert_s(name):
    path = lite.example(name)
    graph = read_file(path)
    source = graph.tensors[graph.inputs[0]]
    feeds = {source.name: np.random.default_rng(0).uniform(-1, 1, source.shape).astype(np.float32)}
    got = run_image(path, feeds)
    for output, expected in run_litert(path, feeds).items():
        assert np.abs(got[output] - expected).max() < 1e-4 * np.abs(expected).max()
