"""PyTorch sources: every kind becomes an ONNX model that gives what PyTorch gives; what is wrong is told."""

from __future__ import annotations

import io
import logging
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from tests.frontends import torch_zoo  # noqa: E402
from tests.frontends.run_kit import TOLERANCE, relative_error, run_image  # noqa: E402
from tests.frontends.torch_kit import ONE, by_onnxruntime, reference, shape_of  # noqa: E402
from tvm_ipu import Session, convert_model  # noqa: E402
from tvm_ipu.base.errors import ModelError, UnsupportedOperatorError  # noqa: E402
from tvm_ipu.cli.main import main  # noqa: E402
from tvm_ipu.frontends.loaders import LoadOptions  # noqa: E402
from tvm_ipu.frontends.torch.convert import to_onnx  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Net(nn.Module):
    """Convolution, BatchNormalization, dropout, a residual sum, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        x = self.stem(image)
        x = (x + self.block(x)).mean((2, 3))
        return self.head(self.drop(x))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    module = Net()
    torch_zoo.randomise(module)
    return module.train()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 9, 10, generator=torch.Generator().manual_seed(3))


def power_sum(x, y, n: int):
    total = x
    for i in range(n):
        total = total * y + i
    if n > 2:
        total = total.relu()
    return total


def source_of(kind: str, net: nn.Module, image: torch.Tensor, folder: Path):
    net = net.eval() if kind != "module" else net
    if kind == "module":
        return net
    if kind == "script":
        return torch.jit.script(net)
    if kind == "trace":
        return torch.jit.trace(net, image)
    program = torch.export.export(net, (image,))
    if kind == "program":
        return program
    path = folder / f"net.{kind.partition(' ')[0]}"
    if kind == "pt2":
        torch.export.save(program, path)
    elif kind == "pth pickled":
        torch.save(net, path)
    else:
        torch.jit.save(torch.jit.script(net), path)
    return path


@pytest.mark.parametrize("kind", ["module", "script", "trace", "program", "pt2", "pt", "jit", "pth pickled"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_kind_of_source(kind, net, image, tmp_path):
    source = source_of(kind, net, image, tmp_path)
    net.train()
    model = to_onnx(source, LoadOptions(example_input=image, trust_pickle=kind == "pth pickled"))
    assert [info.name for info in model.graph.input] == ["image"]
    assert [info.name for info in model.graph.output] == ["output"]
    found = run_image(model, {"image": image.numpy()}, tmp_path)
    assert relative_error(found["output"], reference(net, image).numpy()) < TOLERANCE


def test_a_script_function(tmp_path):
    x, y = torch.randn(3, 4), torch.randn(4)
    model = to_onnx(torch.jit.script(power_sum), LoadOptions(example_input=[x, y, 3]))
    assert [info.name for info in model.graph.input] == ["x", "y"]
    found = run_image(model, {"x": x.numpy(), "y": y.numpy()}, tmp_path)
    assert relative_error(found["output"], power_sum(x, y, 3).numpy()) < TOLERANCE


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 5, 6, 7), (4, 5, 6, 7)])
def test_convolutions_of_three_axes(shape, bias, caplog):
    """onnxscript gives them a bias of a wrong shape where they have none."""
    torch.manual_seed(0)
    module = nn.Conv3d(4, 6, (3, 2, 3), (1, 2, 1), (1, 0, 2), (2, 1, 1), groups=2, bias=bias)
    x = torch.randn(shape)
    with caplog.at_level(logging.INFO):
        model = to_onnx(module, LoadOptions(example_input=x))
    assert "fails" not in caplog.text  # the first way works
    (found,) = by_onnxruntime(model, {model.graph.input[0].name: x.numpy()}).values()
    np.testing.assert_allclose(found, reference(module, x).numpy(), rtol=1e-5, atol=1e-5)


class Counter(nn.Module):
    """TorchScript with a state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.last = torch.zeros(4)

    def forward(self, x):
        self.calls += 1
        self.last = self.last + x
        return self.last * self.calls


def test_the_state_of_torchscript_is_left_alone(tmp_path):
    counter, x = torch.jit.script(Counter()), torch.arange(4.0)
    model = to_onnx(counter, LoadOptions(example_input=x))
    assert counter.calls == 0
    assert not counter.last.any()
    np.testing.assert_array_equal(by_onnxruntime(model, {"x": x.numpy()})["output"], x.numpy())


def test_the_module_is_left_as_it_was(net, image):
    net.stem.eval()  # a part may have a mode of its own
    before = {name: module.training for name, module in net.named_modules()}
    values = {name: value.clone() for name, value in net.state_dict().items()}
    to_onnx(net, LoadOptions(example_input=image))
    assert {name: module.training for name, module in net.named_modules()} == before
    assert all(torch.equal(value, values[name]) for name, value in net.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    assert torch.is_grad_enabled()
    net.train()


def test_names_are_those_of_modules_and_weights(net, image):
    model = to_onnx(net, LoadOptions(example_input=image))
    names = {node.op_type: node.name for node in model.graph.node}
    assert names["Conv"] == "block/conv2d_1"
    assert names["BatchNormalization"].startswith("stem.1/")
    assert names["Gemm"] == "head/linear"
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    assert {one.name for one in model.graph.initializer} >= {"stem.0.weight", "head.bias"}


def test_an_example_is_brought_to_the_shapes_that_are_given(image, net):
    model = to_onnx(net, LoadOptions({"image": (3, 3, 12, 7)}, example_input=image))
    assert shape_of(model.graph.input[0]) == [3, 3, 12, 7]


class Branch(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1


def test_what_cannot_be_exported_is_traced_and_told(caplog):
    with caplog.at_level(logging.INFO, "tvm_ipu"):
        model = to_onnx(Branch(), LoadOptions(example_input=torch.ones(3)))
    assert "torch.export fails: " in caplog.text
    assert "tracing keeps for all inputs what the example decides: " in caplog.text
    assert "test_torch.py" in caplog.text
    np.testing.assert_array_equal(by_onnxruntime(model, {"x": ONE[0]})["output"], ONE[0] * 2)


def test_from_python_and_from_the_command_line(net, image, tmp_path):
    model = convert_model(net, example_input=image)
    found = run_image(model, {"image": image.numpy()}, tmp_path)["output"]
    torch.jit.save(torch.jit.script(net.eval()), tmp_path / "net.pt")
    net.train()
    shapes = ["--input-shapes", "image:[1,3,9,10]"]
    assert main(["compile", str(tmp_path / "net.pt"), "-o", str(tmp_path / "net.img"), *shapes]) == 0
    with Session(tmp_path / "net.img") as session:
        again = session.run({"image": image.numpy()})["output"]
    assert relative_error(found, reference(net, image).numpy()) < TOLERANCE
    assert relative_error(again, found) < TOLERANCE


class Linalg(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x, full_matrices=False)[1]


class Unknown(nn.Module):
    """Two operators in two places that ONNX has no form for."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Linalg()
        self.second = nn.Sequential(nn.Linear(3, 3), Linalg())

    def forward(self, x):
        return self.first(x) + self.second(x)


def test_unsupported_operators_are_listed_with_their_modules():
    with pytest.raises(UnsupportedOperatorError) as caught:
        to_onnx(Unknown(), LoadOptions(example_input=torch.randn(3, 3)))
    assert "2 operators of the model cannot be converted:" in caught.value.message
    assert "svd" in caught.value.message
    assert "'first/" in caught.value.message
    assert "'second.1/" in caught.value.message


def test_unsupported_operators_of_torchscript():
    with pytest.raises(UnsupportedOperatorError, match="svd"):
        to_onnx(torch.jit.script(Unknown()), LoadOptions(example_input=torch.randn(3, 3)))
    shapes = LoadOptions({"x": (-1, 3)}, example_input=torch.randn(3, 3))
    with pytest.raises(UnsupportedOperatorError, match=r"svd"):
        to_onnx(torch.jit.script(Unknown()), shapes)


def test_no_model():
    with pytest.raises(ModelError, match="an object of type dict is no PyTorch model"):
        to_onnx({}, LoadOptions())


class Trap:
    """Does harm when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_not_opened_without_trust(net, tmp_path):
    sprung = tmp_path / "sprung"
    torch.save(Trap(sprung), tmp_path / "trap.pt")
    torch.save(Trap(sprung), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(net, tmp_path / "net.pth")
    for name in ("trap.pt", "old.pt", "net.pth"):
        with pytest.raises(ModelError, match=r"pickled Python object.*--trust-pickle"):
            to_onnx(tmp_path / name, LoadOptions())
    assert not sprung.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pickles_in_exported_programs_are_not_opened_without_trust(net, image, tmp_path):
    good, bad, sprung = tmp_path / "good.pt2", tmp_path / "bad.pt2", tmp_path / "sprung"
    torch.export.save(torch.export.export(net.eval(), (image,)), good)
    net.train()
    trap = io.BytesIO()
    torch.save(Trap(sprung), trap)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            inputs = "sample_inputs" in name
            target.writestr(name, trap.getvalue() if inputs else source.read(name))
    with pytest.raises(ModelError, match=r"pickled Python objects.*--trust-pickle"):
        to_onnx(bad, LoadOptions())
    assert not sprung.exists()


def test_files_with_weights_only(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    torch.save({"model": net, "epoch": 3}, tmp_path / "checkpoint.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ModelError, match=r"holds weights only .*load_state_dict"):
        to_onnx(tmp_path / "weights.pt", LoadOptions())
    with pytest.raises(ModelError, match="a checkpoint with a model under 'model'"):
        to_onnx(tmp_path / "checkpoint.pt", LoadOptions(trust_pickle=True))
    with pytest.raises(ModelError, match="holds a tensor, not a model"):
        to_onnx(tmp_path / "tensor.pt", LoadOptions())


def test_a_pickle_of_an_unknown_class(net, tmp_path):
    content = pickle.dumps(net, protocol=2).replace(b"Net\n", b"Nut\n")
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(ModelError):
        to_onnx(tmp_path / "net.pt", LoadOptions(trust_pickle=True))


@pytest.mark.parametrize("kind", ["pt2", "pt", "pth pickled"])
@pytest.mark.parametrize("part", [0, 0.02, 0.5, 0.98])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_truncated_files(kind, part, net, image, tmp_path):
    path = source_of(kind, net, image, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelError, match=r"is empty|truncated|damaged"):
        to_onnx(path, LoadOptions(example_input=image, trust_pickle=True))


def test_files_of_another_kind(tmp_path):
    (tmp_path / "text.pt").write_text("this is no archive")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "nothing")
    with pytest.raises(ModelError, match="is no PyTorch model"):
        to_onnx(tmp_path / "text.pt", LoadOptions())
    with pytest.raises(ModelError, match="is no file of PyTorch's"):
        to_onnx(tmp_path / "zip.pt", LoadOptions())
    with pytest.raises(ModelError, match="does not exist"):
        to_onnx(tmp_path / "missing.pt", LoadOptions())
