"""Indices and masks that the board feeds as whole numbers, with the scripts of the toolchain's text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.unit.frontend_kit import constant, make_model, node, value
from tvm_ipu.cli.main import main
from tvm_ipu.runtime import Session
from tvm_ipu.simulation import open_fixed

WORDS, ROWS = 6, 40000

INI = """[INPUT_CONFIG]
inputs=ids,mask;
training_input_formats={indices},RAWDATA_S16_NHWC;
input_formats={indices},RAWDATA_S16_NHWC;
quantizations=TRUE,TRUE;
[OUTPUT_CONFIG]
outputs=y;
dequantizations=TRUE;
"""
SCRIPT = """import numpy as np
def image_preprocess(img_path, norm=True):
    data = np.load(img_path)
    return data.astype(np.{float}) if norm else data.astype(np.{fixed})
"""


def embedding() -> onnx.ModelProto:
    """Rows of a table, those behind the text zeroed, times a matrix."""
    random = np.random.default_rng(0)
    weights = [
        constant("table", random.normal(0, 1, (ROWS, 16)), "float32"),
        constant("w", random.normal(0, 0.3, (16, 8)), "float32"),
        constant("axes", [-1]),
    ]
    nodes = [
        node("Gather", "table ids", "e"),
        node("Cast", "mask", "m", to=TensorProto.FLOAT),
        node("Unsqueeze", "m axes", "m3"),
        node("Mul", "e m3", "em"),
        node("MatMul", "em w", "y"),
    ]
    inputs = [value("ids", [1, WORDS], TensorProto.INT64), value("mask", [1, WORDS], TensorProto.BOOL)]
    return make_model(nodes, inputs, [value("y", [1, WORDS, 8])], weights)


@pytest.mark.parametrize(
    ("indices", "fixed", "highest"),
    [("RAWDATA_S16_NHWC", "int16", 32767), ("RAWDATA_U16_NHWC", "uint16", ROWS - 1)],
)
def test_indices_go_straight_into_an_embedding(
    indices: str, fixed: str, highest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(embedding(), "clip.onnx")
    Path("clip.ini").write_text(INI.format(indices=indices))
    Path("ids.py").write_text(SCRIPT.format(float="int32", fixed=fixed))
    Path("mask.py").write_text(SCRIPT.format(float="bool_", fixed="int16"))
    random, lines = np.random.default_rng(1), []
    for number in range(4):
        ids = random.integers(0, highest, (1, WORDS)).astype(np.int32)
        ids[0, 0] = highest
        np.save(f"ids{number}.npy", ids)
        np.save(f"mask{number}.npy", np.arange(WORDS)[None] < 3 + number)
        lines.append(f"ids{number}.npy,mask{number}.npy")
    Path("list.txt").write_text("\n".join(lines))
    words = (
        "convert onnx --model_file clip.onnx --input_config clip.ini -i list.txt -n ids.py,mask.py "
        "--output_file clip.img --export_models --soc_version ipu-ref --quant_level L1"
    )
    assert main(words.split()) == 0
    original = onnxruntime.InferenceSession("clip.onnx", providers=["CPUExecutionProvider"])
    simulator = open_fixed(Path("clip_fixed.sim"))
    with Session("clip.img") as session:
        assert [str(spec.dtype.label) for spec in session.inputs] == [fixed, "int16"]
        for number in range(4):
            ids, mask = np.load(f"ids{number}.npy"), np.load(f"mask{number}.npy")
            feeds = {"ids": ids.astype(fixed), "mask": mask.astype(np.int16)}
            found = session.run(feeds)["y"]
            assert simulator.run(feeds)["y"].tobytes() == found.tobytes()
            (expected,) = original.run(None, {"ids": ids.astype(np.int64), "mask": mask})
            np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
