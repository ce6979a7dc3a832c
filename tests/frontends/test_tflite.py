"""TensorFlow Lite models through images, compared with LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.node_suite import compile_image
from tests.frontends import tflite_kit as kit
from tests.frontends.tflite_cases import FAMILIES
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.tflite.convert import to_onnx
from tvm_ipu.runtime.session import Session

Array = np.ndarray


def run_image(model: bytes, feeds: dict[str, Array], options: LoadOptions | None = None) -> dict[str, Array]:
    """Outputs of the image of a model."""
    proto = to_onnx(model, options or LoadOptions())
    with Session(compile_image(proto, {}, "host")) as session:
        return session.run({info.name: feeds[info.name] for info in proto.graph.input})


def assert_close(name: str, got: Array, expected: Array, tolerance: float = 1e-5) -> None:
    """Compare with an error measured by the largest element; what is not float must be equal."""
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected, name)
        return
    scale = max(1e-30, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_operators(family):
    cases = FAMILIES[family]
    feeds = {name: x for case in cases for name, x in case.feeds().items()}
    model = kit.build(
        [tensor for case in cases for tensor in case.tensors()],
        [case.op() for case in cases],
        list(feeds),
        [name for case in cases for name in case.output_names()],
    )
    expected = kit.run_litert(model, feeds)
    got = run_image(model, feeds)
    for name, want in expected.items():
        assert_close(name, got[name], want)
