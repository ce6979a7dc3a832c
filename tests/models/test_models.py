"""Real networks end to end: the image's outputs beside onnxruntime's, and accuracy on labelled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.models import zoo
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.driver import compile_model
from tvm_ipu.runtime.session import Session

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 2e-2}
"""Largest error by the largest absolute value of an output."""

SAMPLES = range(7, 10)
"""Seeds: the precision of layers is chosen on other inputs than those of the test."""

CASES = [(name, 1, precision) for name in zoo.names() for precision in TOLERANCE]
LARGE = [(name, 16, precision) for name in ("resnet50", "bert_base") for precision in TOLERANCE]


def compile_for_host(name: str, folder: Path, precision: str = "fp32", batch: int = 1) -> Path:
    image, samples = folder / f"{name}.img", folder / "samples.npz"
    shapes = [format_input_shapes(zoo.shapes(name, batch))]
    feeds = [zoo.inputs(name, seed, batch) for seed in (SAMPLES if batch == 1 else SAMPLES[:1])]
    np.savez(samples, **{key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]})
    options = CompileOptions(precision=precision)
    compile_model(zoo.get(name), "host", image, input_shapes=shapes, samples=samples, options=options)
    return image


@pytest.mark.parametrize(
    ("name", "batch", "precision"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.sweep) for case in LARGE)],
)
def test_outputs_equal_those_of_onnxruntime(name: str, batch: int, precision: str, tmp_path: Path) -> None:
    inputs = zoo.inputs(name, batch=batch)
    reference = onnxruntime.InferenceSession(str(zoo.get(name)), providers=["CPUExecutionProvider"])
    expected = dict(zip([o.name for o in reference.get_outputs()], reference.run(None, inputs), strict=True))
    with Session(compile_for_host(name, tmp_path, precision, batch), threads=2) as session:
        found = session.run(inputs)
    assert set(found) == set(expected)
    for output, value in expected.items():
        assert found[output].dtype == value.dtype
        error = np.abs(found[output].astype(np.float64) - value).max() / np.abs(value).max()
        assert error < TOLERANCE[precision], f"{output}: {error:.2e}"


@pytest.mark.parametrize("precision", list(TOLERANCE))
def test_mobilenet_accuracy_on_labelled_images(precision: str, tmp_path: Path) -> None:
    images, labels = zoo.images()
    with Session(compile_for_host("mobilenet_v2", tmp_path, precision)) as session:
        (name,) = (spec.name for spec in session.inputs)
        scores = np.concatenate([next(iter(session.run({name: image[None]}).values())) for image in images])
    ranked = np.argsort(-scores, axis=1)
    assert (ranked[:, 0] == labels).sum() >= 18
    assert (ranked[:, :5] == labels[:, None]).any(axis=1).sum() == 20
