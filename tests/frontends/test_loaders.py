"""A source of another framework is found by suffix, folder or type, converted, and loaded as ONNX."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from tests.unit.frontend_kit import network
from tvm_ipu.base.errors import ModelError, ToolError
from tvm_ipu.cli.main import main
from tvm_ipu.driver import compile_model
from tvm_ipu.frontends import extras, loaders
from tvm_ipu.frontends.loaders import PLATFORMS, LoadOptions, Platform, as_onnx, find_platform
from tvm_ipu.inspection import inspect_file
from tvm_ipu.runtime import Session


class Module:
    """Stands for a framework's base class."""


class Net(Module):
    pass


Module.__module__, Module.__qualname__ = "torch.nn.modules.module", "Module"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, LoadOptions]]:
    """A platform whose converter notes its arguments; in its list."""
    calls: list[tuple[object, LoadOptions]] = []

    def to_onnx(source: object, options: LoadOptions) -> onnx.ModelProto:
        calls.append((source, options))
        return network()

    package, module = ModuleType("toy_frontend"), ModuleType("toy_frontend.convert")
    for one in (package, module):
        one.__spec__ = ModuleSpec(one.__name__, None)
        monkeypatch.setitem(sys.modules, one.__name__, one)
    module.to_onnx = to_onnx  # type: ignore[attr-defined]
    monkeypatch.setitem(PLATFORMS, "pytorch", Platform("Toy", "NCHW", "toy_frontend.convert:to_onnx"))
    monkeypatch.setitem(loaders.SUFFIXES, ".toy", "pytorch")
    return calls


@pytest.mark.parametrize("suffix", sorted(loaders.SUFFIXES))
def test_every_suffix_has_a_platform(suffix: str) -> None:
    assert find_platform(Path(f"net{suffix.upper()}")) in PLATFORMS


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder without a model"):
        find_platform(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    assert find_platform(tmp_path) == "tensorflow"


def test_an_object_is_known_by_its_bases() -> None:
    assert find_platform(Net()) == "pytorch"


def test_one_conversion_for_all_batches(tmp_path: Path, toy: list[tuple[object, LoadOptions]]) -> None:
    path = tmp_path / "net.toy"
    path.touch()
    report = compile_model(
        path, "host", tmp_path / "net.img", input_shapes=["x:[1,3,5,5]"], batches=[2, 3], outputs=["y"]
    )
    ((source, options),) = toy
    assert (source, options.outputs, options.input_shapes) == (path, ("y",), {"x": (1, 3, 5, 5)})
    assert report.program.metadata["format"] == "pytorch"
    x = np.random.default_rng(0).normal(0, 1, (3, 3, 5, 5)).astype(np.float32)
    with Session(tmp_path / "net.img", plan=1) as session:
        assert session.run({"x": x})["y"].shape[0] == 3


def test_inspect_and_convert(
    tmp_path: Path, toy: list[tuple[object, LoadOptions]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.toy").touch()
    summary = inspect_file(Path("net.toy"), input_shapes=["1,3,5,5"])
    assert summary.facts["format"] == "pytorch"  # type: ignore[union-attr]
    words = "convert net.toy --output-model out.onnx --input-shape x=1,3,5,5"
    assert main(words.split()) == 0
    assert onnx.load("out.onnx").graph.input[0].name == "x"
    words = "convert pytorch --model-file net.toy --output-file out.sim --input-shapes 1,3,5,5"
    assert main(words.split()) == 0
    assert len(toy) == 3


def test_missing_file(tmp_path: Path, toy: list[tuple[object, LoadOptions]]) -> None:
    with pytest.raises(ModelError, match=r"no\.toy' does not exist"):
        as_onnx(tmp_path / "no.toy")


def test_missing_package() -> None:
    with pytest.raises(ToolError, match="needs the package 'no_such_framework', which is not") as caught:
        extras.require("no_such_framework.part", "torch")
    assert "pip install 'tvm_ipu[torch]'" in caught.value.hint


def test_broken_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_framework.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ToolError, match="cannot import 'broken_framework': No module named 'no_such_depend"):
        extras.require("broken_framework", "jax")


def test_pickles_need_trust(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds a pickled module, which can run any code") as caught:
        extras.require_trust(tmp_path / "net.pth", "a pickled module", LoadOptions())
    assert "--trust-pickle" in caught.value.hint
    extras.require_trust(tmp_path / "net.pth", "a pickled module", LoadOptions(trust_pickle=True))
