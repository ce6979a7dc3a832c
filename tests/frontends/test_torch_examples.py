"""PyTorch sources: example inputs, shapes and types that are given, in all their forms."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from tests.frontends.run_kit import TOLERANCE, relative_error, run_image  # noqa: E402
from tests.frontends.torch_kit import ONE, TWO, by_onnxruntime, reference, shape_of  # noqa: E402
from tvm_ipu.base.errors import ModelError, OptionError  # noqa: E402
from tvm_ipu.frontends.loaders import LoadOptions  # noqa: E402
from tvm_ipu.frontends.torch.convert import to_onnx  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Sum(nn.Module):
    def forward(self, a, b=None, *, scale=1.0, extra=None):
        total = a if b is None else a + b
        for one in extra or []:
            total = total + one["x"]
        return {"total": total * scale, "parts": (a, total - a)}


@pytest.mark.parametrize(
    ("example", "names"),
    [
        (torch.tensor(ONE), ["a"]),
        (ONE, ["a"]),
        (2.5, ["a"]),
        (np.float32(2.5), ["a"]),
        ([ONE, TWO], ["a", "b"]),
        ((torch.tensor(ONE), TWO), ["a", "b"]),
        ({"b": TWO, "a": ONE}, ["a", "b"]),
        ({"a": ONE, "scale": 3.0}, ["a"]),
        ({"a": ONE, "extra": [{"x": TWO}, {"x": ONE}]}, ["a", "extra_0_x", "extra_1_x"]),
    ],
    ids=["tensor", "array", "number", "numpy number", "list", "tuple", "dict", "constant", "nested"],
)
def test_forms_of_example_inputs(example, names):
    model = to_onnx(Sum(), LoadOptions(example_input=example))
    assert sorted(info.name for info in model.graph.input) == names
    assert [info.name for info in model.graph.output] == ["total", "parts_0", "parts_1"]
    values = {"a": np.full((), 2.5, np.float32) if np.isscalar(example) else ONE}
    values |= {"b": TWO, "extra_0_x": TWO, "extra_1_x": ONE}
    feeds = {name: values[name] for name in names}
    scale = example.get("scale", 1.0) if isinstance(example, dict) else 1.0
    np.testing.assert_allclose(by_onnxruntime(model, feeds)["total"], sum(feeds.values()) * scale, rtol=1e-6)


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.lin = nn.Linear(6, 4)

    def forward(self, ids, gain):
        return self.lin(self.embed(ids)).flatten(1) * gain


def test_shapes_and_types_without_an_example():
    shapes = {"ids": (2, 3), "gain": (2, 1)}
    model = to_onnx(Rows(), LoadOptions(shapes, input_types={"ids": "int64"}))
    assert [shape_of(info) for info in model.graph.input] == [[2, 3], [2, 1]]
    again = to_onnx(Rows(), LoadOptions(list(shapes.values()), input_types=["int64", "float32"]))
    assert [info.type for info in again.graph.input] == [info.type for info in model.graph.input]


@pytest.mark.parametrize("script", [False, True], ids=["module", "script"])
def test_dimensions_stay_open(script, tmp_path):
    torch.manual_seed(0)
    module = Rows().eval()
    ids, gain = torch.randint(0, 10, (5, 3)), torch.randn(5, 1)
    options = LoadOptions({"ids": (-1, 3), "gain": (-1, 1)}, example_input=[ids[:1], gain[:1]])
    model = to_onnx(torch.jit.script(module) if script else module, options)
    assert [shape_of(info) for info in model.graph.input] == [[-1, 3], [-1, 1]]
    for batch in (1, 5):
        feeds = {"ids": ids[:batch].numpy(), "gain": gain[:batch].numpy()}
        found = run_image(model, feeds, tmp_path, f"ids:[{batch},3] gain:[{batch},1]")
        expected = reference(module, ids[:batch], gain[:batch]).numpy()
        assert relative_error(found["output"], expected) < TOLERANCE


def test_one_conversion_serves_all_batches():
    model = to_onnx(Rows(), LoadOptions({"ids": (1, 3), "gain": (1, 1)}, batch=4, input_types=["int64"]))
    assert [shape_of(info) for info in model.graph.input] == [[-1, 3], [-1, 1]]


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(4, -1) if x.shape[0] == 4 else x.reshape(1, -1)


def test_a_model_that_fixes_its_batch_is_exported_for_that():
    model = to_onnx(FixedBatch(), LoadOptions(example_input=torch.ones(1, 2, 3), batch=4))
    assert shape_of(model.graph.output[0]) == [4, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs an example_input, or shapes of its inputs ids, gain"),
        ({"example_input": ONE}, "example_input: missing a required argument: 'gain'"),
        ({"example_input": [ONE, TWO, TWO]}, "example_input: too many positional arguments"),
        ({"example_input": {"idx": ONE, "gain": TWO}}, "example_input: there is no input 'idx'"),
        ({"example_input": [ONE, TWO]}, r"the model fails with ids:float32\[1, 3\], gain:float32\[1, 3\]: "),
        ({"example_input": ["text", TWO]}, "the model fails with gain"),
        ({"input_shapes": {"ids": (1, 3)}}, "--input-shapes: missing a required argument: 'gain'"),
        ({"input_shapes": {"ids": (1, 3), "gian": (1, 3)}}, "there is no input 'gian'"),
        ({"input_shapes": [(1, 3)] * 3}, "3 shapes are given"),
        (
            {"example_input": [np.ones((1, 3), np.int64), ONE], "input_shapes": {"ids": (3,)}},
            "input 'ids' has 2 dimensions, 1 are given",
        ),
        (
            {"example_input": [np.ones((1, 3), np.int64), ONE], "input_shapes": {"x": (1, 3)}},
            "there is no input 'x'",
        ),
    ],
)
@pytest.mark.parametrize("script", [False, True], ids=["module", "script"])
def test_wrong_examples_and_shapes(options, message, script):
    module = torch.jit.script(Rows()) if script else Rows()
    with pytest.raises(OptionError, match=message):
        to_onnx(module, LoadOptions(**options))


def test_a_model_without_weights():
    with torch.device("meta"):
        module = Rows()
    with pytest.raises(ModelError, match=r"'embed\.weight' is on the device 'meta'"):
        to_onnx(module, LoadOptions(example_input=ONE))
