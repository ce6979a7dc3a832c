"""Silero VAD through images: its ONNX files and its TorchScript find speech as onnxruntime does."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime
import pytest

from tests.models import speech
from tvm_ipu import CompileOptions, Session, compile_model
from tvm_ipu.frontends.loaders import LoadOptions

pytestmark = [pytest.mark.slow, pytest.mark.network]

SHAPES = {"input": (1, speech.CONTEXT + speech.FRAME), "state": (2, 1, 128)}
FILES = ("silero_vad.onnx", "silero_vad_16k_op15.onnx", "silero_vad_op18_ifless.onnx")
CONSTANTS = {"sr": speech.RATE}


@cache
def expected(name: str) -> np.ndarray:
    """Probabilities by onnxruntime."""
    session = onnxruntime.InferenceSession(speech.model(name), providers=["CPUExecutionProvider"])
    rate = np.array(speech.RATE)
    return speech.probabilities(lambda x, state: session.run(None, {"input": x, "state": state, "sr": rate}))


def found(name: str, folder, precision: str = "fp32") -> np.ndarray:
    """Probabilities by an image."""
    loading = LoadOptions(SHAPES, constants=CONSTANTS)
    options = CompileOptions(precision=precision)
    compile_model(speech.model(name), "host", folder / "vad.img", loading=loading, options=options)
    with Session(folder / "vad.img") as session:
        first, second = (spec.name for spec in session.outputs)

        def run(x, state):
            results = session.run({"input": x, "state": state})
            return results[first], results[second]

        return speech.probabilities(run)


def test_labels():
    assert speech.accuracy(expected("silero_vad.onnx")) == pytest.approx(0.787, abs=0.001)


@pytest.mark.parametrize("name", FILES)
def test_onnx_files(name, tmp_path):
    probabilities = found(name, tmp_path)
    np.testing.assert_allclose(probabilities, expected(name), rtol=0, atol=1e-4)
    assert speech.accuracy(probabilities) == speech.accuracy(expected(name))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sixteen_bits(precision, tmp_path):
    probabilities = found(FILES[0], tmp_path, precision)
    assert speech.accuracy(probabilities) == pytest.approx(speech.accuracy(expected(FILES[0])), abs=0.005)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_torchscript(tmp_path):
    """The network in the file over the whole recording, and the file itself for a first frame."""
    torch = pytest.importorskip("torch")
    script = torch.jit.load(speech.model("silero_vad.jit"))
    example = [torch.zeros(shape) for shape in SHAPES.values()]
    loading = LoadOptions(example_input=example)
    compile_model(script._model, "host", tmp_path / "vad.img", loading=loading)
    with Session(tmp_path / "vad.img") as session:
        assert [spec.name for spec in session.inputs] == ["x", "state"]

        def run(x, state):
            results = session.run({"x": x, "state": state})
            return results["output_0"], results["output_1"]

        probabilities = speech.probabilities(run)

    def run_script(x, state):
        with torch.no_grad():
            results = script._model(torch.from_numpy(x), torch.from_numpy(state))
        return tuple(result.numpy() for result in results)

    np.testing.assert_allclose(probabilities, speech.probabilities(run_script), rtol=0, atol=1e-4)
    assert speech.accuracy(probabilities) == speech.accuracy(expected(FILES[0]))
    frame = speech.frames()[100:101, speech.CONTEXT :]
    with torch.no_grad():
        expected_first = script(torch.from_numpy(frame), speech.RATE).numpy()
    loading = LoadOptions(example_input=[frame, speech.RATE])
    compile_model(speech.model("silero_vad.jit"), "host", tmp_path / "first.img", loading=loading)
    with Session(tmp_path / "first.img") as session:
        (first,) = session.run({"x": frame}).values()
    np.testing.assert_allclose(first, expected_first, rtol=1e-4)
