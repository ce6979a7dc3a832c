"""What can be wrong with a source, in every format: the user is told, and nothing is left behind."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.frontends import caffe_kit, tflite_kit
from tests.unit.frontend_kit import make_model, network, node, value
from tvm_ipu.base.errors import OptionError, UnsupportedOperatorError
from tvm_ipu.cli.main import main
from tvm_ipu.conversion import convert_model
from tvm_ipu.frontends.loaders import PLATFORMS, LoadOptions, load_model, ready_platforms

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
READY = ready_platforms()
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        platform: Who reads it.
        make: Writes a model into a folder, and gives its path and the files that can be truncated.
        package: What the platform needs that ONNX does not; empty for none.
        words: What the command line needs beside the file.
    """

    platform: str
    make: Callable[[Path], tuple[Path, list[Path]]]
    package: str = ""
    words: str = ""


def make_onnx(folder: Path) -> tuple[Path, list[Path]]:
    onnx.save(network(), folder / "net.onnx")
    return folder / "net.onnx", [folder / "net.onnx"]


def make_caffe(folder: Path) -> tuple[Path, list[Path]]:
    fc = "inner_product_param { num_output: 2 }"
    text = caffe_kit.data(1, 3) + caffe_kit.layer("fc", "InnerProduct", "data", params=fc)
    path = caffe_kit.write(folder, text, {"fc": [RNG.normal(size=(2, 3)), RNG.normal(size=2)]})
    path.write_text(text.rstrip())  # a file without its last newline is whole
    return path, [path, path.with_suffix(".caffemodel")]


def make_tflite(folder: Path, code: str = "RELU") -> tuple[Path, list[Path]]:
    tensors = [tflite_kit.Tensor(name, shape=(1, 4)) for name in "xyz"]
    ops = [tflite_kit.Op("LOGISTIC", ["x"], ["y"]), tflite_kit.Op(code, ["y"], ["z"])]
    path = folder / "net.tflite"
    path.write_bytes(tflite_kit.build(tensors, ops, ["x"], ["z"]))
    return path, [path]


def module() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval()


def make_script(folder: Path) -> tuple[Path, list[Path]]:
    import torch

    path = folder / "net.pt"
    torch.jit.save(torch.jit.script(module()), path)
    return path, [path]


def make_program(folder: Path) -> tuple[Path, list[Path]]:
    import torch

    path = folder / "net.pt2"
    torch.export.save(torch.export.export(module(), (torch.zeros(1, 3),)), path)
    return path, [path]


def make_pickle(folder: Path) -> tuple[Path, list[Path]]:
    import torch

    path = folder / "net.pth"
    torch.save(module(), path)
    return path, [path]


def keras_model() -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, activation="relu")])


def make_keras(folder: Path, suffix: str = ".keras") -> tuple[Path, list[Path]]:
    path = folder / f"net{suffix}"
    keras_model().save(path)
    return path, [path]


def make_saved_model(folder: Path) -> tuple[Path, list[Path]]:
    keras_model().export(folder / "net", verbose=False)
    path = folder / "net"
    variables = path / "variables"
    return path, [path / "saved_model.pb", *variables.glob("variables.*")]


def make_graphdef(folder: Path) -> tuple[Path, list[Path]]:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (1, 3), "x")
        tf.nn.relu(tf.matmul(x, tf.constant(RNG.normal(size=(3, 4)).astype(np.float32))), "y")
    path = folder / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path, [path]


SHAPES = "--input-shapes 1,3"
FORMATS = {
    "onnx": Format("onnx", make_onnx, words="--input-shapes 1,3,5,5"),
    "caffe": Format("caffe", make_caffe),
    "tflite": Format("tflite", make_tflite, "tflite"),
    "pt": Format("pytorch", make_script, "torch", SHAPES),
    "pt2": Format("pytorch", make_program, "torch"),
    "pth": Format("pytorch", make_pickle, "torch", f"{SHAPES} --trust-pickle"),
    "keras": Format("keras", make_keras, "tensorflow", SHAPES),
    "h5": Format("keras", lambda folder: make_keras(folder, ".h5"), "tensorflow", SHAPES),
    "saved_model": Format("tensorflow", make_saved_model, "tensorflow", SHAPES),
    "graphdef": Format("tensorflow_graphdef", make_graphdef, "tensorflow"),
}
CASES = [name for name, one in FORMATS.items() if one.platform in READY]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[Path]]]:
    """A model of a format, which is written once."""
    known: dict[str, tuple[Path, list[Path]]] = {}

    def get(name: str) -> tuple[Path, list[Path]]:
        if name not in known:
            known[name] = FORMATS[name].make(tmp_path_factory.mktemp(name))
        return known[name]

    return get


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    return main(words), capsys.readouterr().err


@pytest.mark.parametrize("name", CASES)
def test_truncated_files(name: str, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a file ends too early it is named; the whole file compiles."""
    path, files = made(name)
    words = FORMATS[name].words.split()
    image = tmp_path / "net.img"
    code, err = run(["compile", str(path), "-o", str(image), *words], capsys)
    assert code == 0, err
    image.unlink()
    for file in files:
        content = file.read_bytes()
        try:
            for length in sorted({1, len(content) - 1, *(len(content) * i // 5 for i in range(5))}):
                file.write_bytes(content[:length])
                code, err = run(["compile", str(path), "-o", str(image), *words], capsys)
                what = f"{file.name}, {length} of {len(content)} bytes: {err}"
                assert code == 1, what
                assert err.startswith("error: "), what
                assert "internal error" not in err, what
                assert file.stem in err or str(path) in err, what
                assert not image.exists(), what
        finally:
            file.write_bytes(content)


@pytest.mark.parametrize("name", [name for name in CASES if FORMATS[name].package])
def test_missing_packages(
    name: str, made: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = made(name)
    package = FORMATS[name].package
    for loaded in [one for one in sys.modules if one.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    code, err = run(["inspect", str(path), *FORMATS[name].words.split()], capsys)
    assert code == 1
    assert f"needs the package '{package}', which is not installed" in err
    assert "pip install 'tvm_ipu[" in err


@pytest.mark.parametrize("name", sorted(PLATFORMS))
def test_missing_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    option = "--graph-def-file" if name == "tensorflow_graphdef" else "--model-file"
    also = ["--weight-file", "none.caffemodel"] if name == "caffe" else []
    words = ["convert", name, option, str(tmp_path / "none.bin"), *also, "-o", str(tmp_path / "x.sim")]
    code, err = run(words, capsys)
    assert code == 1
    if name in READY:
        assert "none.bin' does not exist" in err
    else:
        assert "there is no loader for" in err


def unsupported(name: str, folder: Path) -> tuple[Any, LoadOptions, list[str]]:
    """A model with two operators that cannot be compiled, and what tells them."""
    if name == "onnx":
        nodes = [node("Mystery", "x", "m"), node("Relu", "m", "r"), node("Riddle", "r", "y")]
        made = make_model(nodes, [value("x", [1, 4])], [value("y", None)])
        return made, LoadOptions(), ["Mystery:m", "Riddle:y"]
    if name == "caffe":
        text = caffe_kit.data(1, 3) + caffe_kit.layer("first", "Python", "data")
        text += caffe_kit.layer("second", "PSROIPooling", "first")
        path = caffe_kit.write(folder, text, {})
        return path, LoadOptions(), ["'first' (Python)", "'second' (PSROIPooling)"]
    if name == "tflite":
        tensors = [tflite_kit.Tensor(name, shape=(1, 4)) for name in "xyz"]
        ops = [tflite_kit.Op("Mystery", ["x"], ["y"]), tflite_kit.Op("Riddle", ["y"], ["z"])]
        path = folder / "net.tflite"
        path.write_bytes(tflite_kit.build(tensors, ops, ["x"], ["z"]))
        return path, LoadOptions(), ["Mystery", "Riddle", "y", "z"]
    if name == "pytorch":
        return *torch_unsupported(), ["first", "second", "airy_ai", "bessel_j0"]
    if name == "tensorflow_graphdef":
        return tensorflow_unsupported(folder), LoadOptions(), ["first", "second", "Betainc", "Digamma"]
    raise AssertionError(name)


def torch_unsupported() -> tuple[Any, LoadOptions]:
    import torch

    class First(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.airy_ai(x)

    class Second(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.special.bessel_j0(x)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = First(), Second()

        def forward(self, x: Any) -> Any:
            return self.second(torch.relu(self.first(x)))

    return Net(), LoadOptions(example_input=torch.zeros(1, 4))


def tensorflow_unsupported(folder: Path) -> Path:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (1, 3), "x")
        tf.math.digamma(tf.math.betainc(x, x, x, name="first"), name="second")
    path = folder / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.parametrize(
    "name", [n for n in ("onnx", "caffe", "tflite", "pytorch", "tensorflow_graphdef") if n in READY]
)
def test_unsupported_operators_are_listed_together(name: str, tmp_path: Path) -> None:
    source, options, texts = unsupported(name, tmp_path)
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(source, options)
    for text in texts:
        assert text in caught.value.message


EXAMPLES = {
    "wrong rank": np.zeros((1, 2, 3, 4), np.float32),
    "wrong size": np.zeros((1, 7), np.float32),
    "wrong type": np.zeros((1, 3), np.complex64),
    "integers": np.zeros((1, 3), np.int64),
    "wrong key": {"nothing": np.zeros((1, 3), np.float32)},
    "too many": [np.zeros((1, 3), np.float32)] * 2,
    "text": "zeros",
}


@pytest.mark.skipif("pytorch" not in READY, reason="PyTorch has no loader yet")
@pytest.mark.parametrize("name", EXAMPLES)
def test_wrong_examples_for_pytorch(name: str) -> None:
    """The message names the option and what the model takes, whatever the exporter would say."""

    class Net(type(module())):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return super().forward(x)

    with pytest.raises(OptionError, match="example_input"):
        convert_model(Net(*module()).eval(), example_input=EXAMPLES[name])


@pytest.mark.skipif("pytorch" not in READY, reason="PyTorch has no loader yet")
def test_no_example_for_pytorch() -> None:
    with pytest.raises(OptionError, match="example_input, or shapes of its inputs"):
        convert_model(module())


def test_wrong_example_files(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = made("onnx")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("missing.npz", "cut.npz", "objects.npy"):
        code, err = run(["inspect", str(path), "--example-input", str(tmp_path / name)], capsys)
        assert code == 1
        assert f"--example-input: cannot read '{tmp_path / name}'" in err


def test_archives_that_python_does_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An archive that says it needs a newer version of its format."""
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"x")
    content = path.read_bytes()
    at = content.index(b"PK\1\2")
    path.write_bytes(content[: at + 6] + b"\xff" + content[at + 7 :])
    code, err = run(["inspect", str(path)], capsys)
    assert code == 1
    assert f"'{path}' is no PyTorch model" in err


@pytest.mark.skipif("keras" not in READY, reason="Keras has no loader yet")
def test_hdf5_that_its_library_does_not_survive(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size of a block in the heap of strings is 0: the library looks for the next block for ever."""
    content = bytearray(made("h5")[0].read_bytes())
    at = content.index(b"GCOL") + 16
    content[at : at + 16] = bytes(16)
    path = tmp_path / "net.h5"
    path.write_bytes(content)
    code, err = run(["inspect", str(path)], capsys)
    assert code == 1
    assert f"'{path}' is not a Keras model, or it is truncated: " in err


@pytest.mark.parametrize("words", ["a=int64,float32", "x=quaternion"])
def test_wrong_input_types(words: str, made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run(["inspect", str(made("onnx")[0]), "--input-types", words], capsys)
    assert code == 1
    assert "--input-types" in err


@pytest.mark.parametrize("name", [name for name in CASES if "--trust-pickle" in FORMATS[name].words])
def test_pickles_need_trust(name: str, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the flag nothing of the file runs."""
    path, _ = made(name)
    copy = shutil.copy(path, tmp_path)
    code, err = run(["inspect", str(copy), *SHAPES.split()], capsys)
    assert code == 1
    assert "can run any code" in err
    assert "--trust-pickle" in err
