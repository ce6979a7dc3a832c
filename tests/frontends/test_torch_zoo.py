"""Networks of torchvision and transformers give through an image what they give in PyTorch."""

from __future__ import annotations

import importlib.util

import pytest

torch = pytest.importorskip("torch")

from tests.frontends import torch_zoo  # noqa: E402
from tests.frontends.run_kit import TOLERANCE, relative_error, run_image  # noqa: E402
from tvm_ipu.frontends.loaders import LoadOptions  # noqa: E402
from tvm_ipu.frontends.torch import calls, modules  # noqa: E402
from tvm_ipu.frontends.torch.convert import to_onnx  # noqa: E402

FAST = ("lstm", "gru", "gpt2_step", "resnet18")
"""Cases for every run; the others take minutes together."""

needs_libraries = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torchvision", "transformers")),
    reason="needs torchvision and transformers",
)
cases = [
    pytest.param(name, marks=[pytest.mark.slow] if name in FAST else [pytest.mark.sweep])
    for name in torch_zoo.CASES
]


@needs_libraries
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", cases)
def test_equals_pytorch(name, tmp_path):
    module, example = torch_zoo.make(name)
    call = calls.make_call(module, LoadOptions(example_input=example))
    with torch.no_grad():
        outputs = module(*call.args, **call.kwargs)
    expected = dict(zip(modules.output_names(outputs), modules.tensors(outputs), strict=True))
    model = to_onnx(module, LoadOptions(example_input=example))
    feeds = {name: tensor.numpy() for name, tensor in call.inputs.items()}
    found = run_image(model, feeds, tmp_path)
    assert len(found) == len(expected)
    for output, (key, value) in zip(model.graph.output, expected.items(), strict=True):
        assert output.name.startswith(key)  # with a suffix where an input has that name
        assert value.abs().max() > 0
        assert relative_error(found[output.name], value.numpy()) < TOLERANCE, key
