"""The models of the zoo are what they claim to be, and the frontend takes all of them."""

import numpy as np
import onnxruntime
import pytest

from tests.models import zoo
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.frontends.onnx.summary import summarize

pytestmark = [pytest.mark.network, pytest.mark.slow]

GIGAMACS = {"mobilenet_v2": 0.301, "resnet50": 4.09, "bert_base": 11.17, "yolov8n": 4.37}
"""Published sizes: torchvision's tables; 8.7 GFLOPs for YOLOv8n; 22.4 for BERT-base at 128 tokens."""


def run(name, feeds):
    return onnxruntime.InferenceSession(zoo.get(name)).run(None, feeds)


@pytest.mark.parametrize("name", zoo.names())
def test_loads(name):
    model = load_model(zoo.get(name), LoadOptions(zoo.shapes(name)))
    results = run(name, zoo.inputs(name))
    assert [spec.shape for spec in model.outputs] == [result.shape for result in results]
    assert {s.name: s.shape for s in model.inputs} == zoo.shapes(name)


@pytest.mark.parametrize("name", zoo.names())
def test_outputs_mean_something(name):
    """Finite, neither constant nor vanishing, and different for other inputs."""
    first, second = (run(name, zoo.inputs(name, seed)) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a).max() > 0.05
        assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()


@pytest.mark.parametrize("name", GIGAMACS)
def test_size(name):
    summary = summarize(zoo.get(name), LoadOptions(zoo.shapes(name)))
    assert summary.macs / 1e9 == pytest.approx(GIGAMACS[name], rel=5e-3)
    assert summary.unsupported == ()


def test_batches():
    feeds = zoo.inputs("mobilenet_v2", batch=3)
    assert feeds["input"].shape == (3, 3, 224, 224)
    singles = [run("mobilenet_v2", {"input": feeds["input"][i : i + 1]})[0] for i in range(3)]
    np.testing.assert_allclose(run("mobilenet_v2", feeds)[0], np.concatenate(singles), atol=1e-4)


def test_mobilenet_v2_classifies():
    images, labels = zoo.images()
    ranking = np.argsort(-run("mobilenet_v2", {"input": images})[0], axis=1)
    assert (ranking[:, 0] == labels).sum() == 18
    assert (ranking[:, :5] == labels[:, None]).any(axis=1).sum() == 20


def test_minilm_pads_without_effect():
    """Hidden states of real words do not depend on what stands behind the mask."""
    feeds = zoo.inputs("minilm_l6")
    changed = dict(feeds, input_ids=np.where(feeds["attention_mask"] == 1, feeds["input_ids"], 1234))
    words = feeds["attention_mask"][0] == 1
    assert 0 < words.sum() < 128
    a, b = (run("minilm_l6", f)[0][0, words] for f in (feeds, changed))
    np.testing.assert_allclose(a, b, atol=1e-5)
