"""JAX functions in Python files, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tvm_ipu.cli.main import main
from tvm_ipu.runtime import Session

SCRIPT = """import jax
import jax.numpy as jnp

weight = jnp.arange(12.0).reshape(3, 4)


@jax.jit
def predict(x):
    return jnp.tanh(x @ weight)


def double(x):
    return 2 * x
"""
X = np.random.default_rng(0).normal(0, 0.1, (2, 3)).astype(np.float32)
EXPECTED = np.tanh(X @ np.arange(12, dtype=np.float32).reshape(3, 4))


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.py"
    path.write_text(SCRIPT)
    return path


def test_the_jitted_function_of_a_file(script: Path) -> None:
    np.save("x.npy", X)
    assert (
        main(["convert", "jax", "--model-file", "net.py", "--example-input", "x.npy", "-o", "net.onnx"]) == 0
    )
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": X})[0], EXPECTED, rtol=1e-5)
    script.write_text(SCRIPT + "\n\nexample_input = jnp.zeros((2, 3))\n")
    assert main(["compile", "net.py"]) == 0
    with Session("net.img") as session:
        (found,) = session.run({"x": X}).values()
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-4)


def test_a_function_by_name(script: Path) -> None:
    words = "convert net.py --signature double --input-shape x=2,3 --output-model double.onnx"
    assert main(words.split()) == 0
    assert {node.op_type for node in onnx.load("double.onnx").graph.node} >= {"Mul"}


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (SCRIPT, "--signature other", "--signature: '{path}' has no function 'other'"),
        (SCRIPT + "second = jax.jit(double)\n", "", "not one jitted function but several or none"),
        ("x = 1\n", "", "decorate the function with jax.jit"),
        ("raise ValueError('no weights')\n", "", "'{path}' fails: ValueError: no weights"),
        (SCRIPT[:40], "", "'{path}' fails: "),
    ],
)
def test_mistakes(
    text: str, words: str, message: str, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.write_text(text)
    assert main(["inspect", str(script), "--input-shapes", "2,3", *words.split()]) == 1
    assert message.format(path=script) in capsys.readouterr().err
