"""Float graphs and their contracts: what does not fit is refused, and layouts are the contract's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from tests.unit.frontend_kit import constant, make_model, node, value
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import ConfigError, ModelError
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.input_config import read_input_config
from tvm_ipu.frontends.contract import apply_layouts, check_contract
from tvm_ipu.frontends.loaders import PLATFORMS, LoadOptions, Platform, load_platform
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph

RNG = np.random.default_rng(0)
POINTWISE = RNG.normal(0, 1, (4, 4, 1, 1)).astype(np.float32)
WEIGHT = RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)


def model():
    """A picture and a vector; a map of four dimensions that is an output and read again, and a vector."""
    nodes = [
        node("Conv", "picture w", "map", pads=[1, 1, 1, 1]),
        node("Relu", "map", "r"),
        node("Conv", "r v", "c"),
        node("ReduceMean", "c", "pooled", axes=[2, 3], keepdims=0),
        node("Add", "pooled vector", "y"),
    ]
    weights = [constant("w", WEIGHT), constant("v", POINTWISE)]
    inputs = [value("picture", [1, 3, 6, 5]), value("vector", [1, 4])]
    return make_model(nodes, inputs, [value("map", [1, 4, 6, 5]), value("y", [1, 4])], weights)


INI = """[INPUT_CONFIG]
inputs=picture,vector;
training_input_formats=RGB,RAWDATA_F32_NHWC;
input_formats=YUV_NV12,RAWDATA_F32_NHWC;
[OUTPUT_CONFIG]
outputs=map,y;
"""


def config(tmp_path: Path, text: str):
    path = tmp_path / "input_config.ini"
    path.write_text(text)
    return read_input_config(path)


def graph() -> Graph:
    return load_graph(model())


def run(graph: Graph, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph_to_onnx(graph), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def test_layouts_are_the_contracts(tmp_path: Path) -> None:
    contract, file = config(tmp_path, INI)
    check_contract(graph(), contract, file)
    turned = apply_layouts(graph(), contract)
    assert [spec.shape for spec in turned.inputs] == [(1, 6, 5, 3), (1, 4)]
    assert [spec.shape for spec in turned.outputs] == [(1, 6, 5, 4), (1, 4)]
    picture = RNG.normal(0, 1, (1, 3, 6, 5)).astype(np.float32)
    vector = RNG.normal(0, 1, (1, 4)).astype(np.float32)
    expected = run(graph(), {"picture": picture, "vector": vector})
    found = run(turned, {"picture": picture.transpose(0, 2, 3, 1), "vector": vector})
    np.testing.assert_allclose(found[0], expected[0].transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-6)


def test_layouts_of_the_model_change_nothing(tmp_path: Path) -> None:
    text = INI.replace("[OUTPUT", "input_layouts=NCHW,NHWC\n[OUTPUT") + "output_layouts=NCHW,NHWC\n"
    contract, file = config(tmp_path, text)
    check_contract(graph(), contract, file)
    same = apply_layouts(graph(), contract)
    assert graph_to_onnx(same) == graph_to_onnx(graph())


def test_picture_with_channels_behind(tmp_path: Path) -> None:
    """A model that TensorFlow made has its pictures and its maps as NHWC already."""
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Transpose", "t", "y", perm=[0, 2, 3, 1])]
    made = load_graph(make_model(nodes, [value("x", [1, 6, 5, 3])], [value("y", [1, 6, 5, 3])]))
    text = "[INPUT_CONFIG]\ninputs=x\ninput_formats=BGR\n[OUTPUT_CONFIG]\noutputs=y\n"
    contract, file = config(tmp_path, text)
    check_contract(made, contract, file)
    assert apply_layouts(made, contract).inputs == made.inputs
    assert apply_layouts(made, contract).outputs == made.outputs


def test_raw_data_of_four_dimensions(tmp_path: Path) -> None:
    made = load_graph(
        make_model([node("Relu", "x", "y")], [value("x", [1, 2, 6, 5])], [value("y", [1, 2, 6, 5])])
    )
    text = "[INPUT_CONFIG]\ninputs=x\ninput_formats=RAWDATA_F32_NHWC\n[OUTPUT_CONFIG]\noutputs=y\n"
    contract, file = config(tmp_path, text)
    check_contract(made, contract, file)
    assert [s.shape for s in apply_layouts(made, contract).inputs] == [(1, 6, 5, 2)]
    assert [s.shape for s in apply_layouts(made, contract, "NHWC").inputs] == [(1, 2, 6, 5)]


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("picture,", "pictures,", "the model has no input 'pictures'", "did you mean 'picture'"),
        ("=picture,vector", "=picture", "the model's input 'vector' is not named", "Names of"),
        ("outputs=map,y", "outputs=map,z", "the model has no output 'z'", "it has map, y"),
        ("outputs=map,y", "outputs=y,map", "the order is not the model's, map,y", "in its order"),
        ("=RGB,", "=GRAY,", r"'picture' has the shape \[1, 3, 6, 5\], which is no GRAY picture", "RAWDATA"),
        ("[OUTPUT", "input_layouts=NCHW,NCHW\n[OUTPUT", "'vector' has 2 dimensions and cannot be NCHW", ""),
        ("outputs=map,y", "outputs=map,y\noutput_layouts=NCHW,NCHW", "'y' has 2 dimensions", ""),
        (
            "outputs=map,y",
            "outputs=map,y\n[CONV_CONFIG]\ntensor_arrays=rr",
            "'rr' is not the first",
            "mean 'r'",
        ),
    ],
)
def test_what_does_not_fit(tmp_path: Path, old: str, new: str, message: str, hint: str) -> None:
    text = INI.replace(old, new)
    if new == "=picture":
        text = text.replace("RGB,RAWDATA_F32_NHWC", "RGB").replace("YUV_NV12,RAWDATA_F32_NHWC", "YUV_NV12")
    contract, file = config(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        check_contract(graph(), contract, file)
    assert hint in caught.value.hint
    assert "rule: " in caught.value.hint
    assert "input_config.ini:" in caught.value.message


def test_picture_of_two_dimensions(tmp_path: Path) -> None:
    text = INI.replace("picture,vector", "vector,picture").replace("YUV_NV12,RAW", "RGB,RAW")
    contract, file = config(tmp_path, text)
    with pytest.raises(ConfigError, match=r"'vector' has the shape \[1, 4\], which is no RGB picture"):
        check_contract(graph(), contract, file)


@pytest.mark.parametrize("through", ["Cast", ""])
def test_wide_indices_are_for_embeddings(tmp_path: Path, through: str) -> None:
    nodes = [node("Cast", "x", "i", to=TensorProto.INT64)] if through else []
    nodes.append(node("Gather", f"table {'i' if through else 'x'}", "y"))
    table = constant("table", RNG.normal(0, 1, (9, 2)), "float32")
    made = load_graph(make_model(nodes, [value("x", [3], TensorProto.INT32)], [value("y", [3, 2])], [table]))
    text = "[INPUT_CONFIG]\ninputs=x\ninput_formats=RAWDATA_U16_NHWC\n[OUTPUT_CONFIG]\noutputs=y\n"
    check_contract(made, *config(tmp_path, text))
    other = load_graph(make_model([node("Neg", "x", "y")], [value("x", [3])], [value("y", [3])]))
    with pytest.raises(ConfigError, match="'x' is RAWDATA_U16_NHWC, but it is not the index of an embedding"):
        check_contract(other, *config(tmp_path, text))


def test_platform_without_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLATFORMS, "toy", Platform("Toy", "NCHW", "tvm_ipu.frontends.toy.convert:to_onnx"))
    with pytest.raises(ModelError, match="no loader for Toy models yet") as caught:
        load_platform("toy", tmp_path / "x", LoadOptions(), Contract(), None, True)
    assert "onnx" in caught.value.hint
