"""input_config.ini: the examples of the field, every rule broken once, and files that come out of nowhere."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.config_kit import FULL, MIXED, SECOND_SEGMENT
from tvm_ipu.base.contract import IMAGE_FORMATS, RAW_FORMATS, Contract, ConvConfig
from tvm_ipu.base.errors import ConfigError
from tvm_ipu.base.input_config import KEYS, MAX_NAMES, read_input_config


def read(tmp_path: Path, text: str) -> Contract:
    path = tmp_path / "input_config.ini"
    path.write_text(text, encoding="utf-8")
    return read_input_config(path)[0]


def test_documented_example(tmp_path: Path) -> None:
    contract = read(tmp_path, FULL)
    (data,) = contract.inputs
    assert (data.name, data.training_format, data.input_format, data.quantize) == ("data", "RGB", "BGR", True)
    assert (data.mean, data.std, data.layout) == ((127.5, 127.5, 127.5), (255.0,), "NHWC")
    assert (data.width_alignment, data.height_alignment) == (1, 1)
    (prob,) = contract.outputs
    assert (prob.name, prob.dequantize, prob.format, prob.layout) == (
        "prob",
        True,
        "RAWDATA_F32_NHWC",
        "NHWC",
    )
    assert contract.conv == ConvConfig("", ("conv1-1", "conv2-1"))


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    contract = read(tmp_path, MIXED)
    first, second, raw = contract.inputs
    assert (first.mean, first.std) == ((1.0, 2.0, 3.0), (58.5, 57.0, 56.0))
    assert (second.mean, second.std) == ((33.318,), (1.0,))  # a divisor of 0 means none
    assert (raw.mean, raw.std, raw.is_raw) == ((), (), True)
    assert [one.width_alignment for one in contract.inputs] == [16, 4, 1]
    assert [one.height_alignment for one in contract.inputs] == [2, 1, 1]
    assert [one.layout for one in contract.inputs] == ["NHWC", "NCHW", "NHWC"]
    assert [one.dequantize for one in contract.outputs] == [True, False, True]
    assert [one.format[8:11] for one in contract.outputs] == ["F32", "U8_", "S16"]


def test_defaults(tmp_path: Path) -> None:
    contract = read(
        tmp_path,
        "[INPUT_CONFIG]\ninputs=x\ninput_formats=GRAY\n[OUTPUT_CONFIG]\noutputs=a,b\ndequantizations=true,False",
    )
    (x,) = contract.inputs
    assert (x.training_format, x.quantize, x.mean, x.std) == ("GRAY", True, (0.0,), (1.0,))
    assert [one.format for one in contract.outputs] == ["RAWDATA_F32_NHWC", "RAWDATA_S16_NHWC"]
    assert contract.conv == ConvConfig()


def test_two_stage_example(tmp_path: Path) -> None:
    """A file without training_input_formats, some lines without semicolon."""
    assert [one.training_format for one in read(tmp_path, SECOND_SEGMENT).inputs] == ["RAWDATA_F32_NHWC"] * 2


def test_writing_that_is_forgiven(tmp_path: Path) -> None:
    text = FULL.replace("[INPUT_CONFIG]", "\ufeff; a comment\n  [input_config] ;").replace(
        "=RGB;", " =  rgb ;#c"
    )
    text = text.replace("inputs= data;", "Inputs = a;b#c:0 ;").replace("\n", "\r\n")
    contract = read(tmp_path, text)
    assert contract.inputs[0].name == "a;b#c:0"  # names of other frameworks hold such characters
    assert contract.inputs[0].training_format == "RGB"


BROKEN = [
    # section, key, line to put in its place (None: none), text of FULL or MIXED, what the message says
    ("INPUT_CONFIG", "inputs", None, FULL, "is missing"),
    ("INPUT_CONFIG", "inputs", "inputs=;", FULL, "is empty"),
    ("INPUT_CONFIG", "inputs", "inputs=a,,b;", MIXED, "empty value between commas"),
    ("INPUT_CONFIG", "inputs", "inputs=a,b,a;", MIXED, "'a' is there twice"),
    ("INPUT_CONFIG", "inputs", f"inputs={'x' * (MAX_NAMES + 1)};", FULL, "have 2049 characters"),
    ("INPUT_CONFIG", "training_input_formats", "training_input_formats=RGBX;", FULL, "'RGBX' is not allowed"),
    ("INPUT_CONFIG", "training_input_formats", "training_input_formats=YUV_NV12;", FULL, "not allowed"),
    ("INPUT_CONFIG", "training_input_formats", None, MIXED, "YUV_NV12 does not tell it"),
    ("INPUT_CONFIG", "input_formats", "input_formats=GRAY;", FULL, "GRAY cannot be fed to a model trained"),
    ("INPUT_CONFIG", "input_formats", "input_formats=RAWDATA_U8_NHWC;", FULL, "cannot be fed"),
    ("INPUT_CONFIG", "input_formats", "input_formats=BGR,BGR;", FULL, "has 2 values where 1 are needed"),
    ("INPUT_CONFIG", "input_formats", "input_formats=NV21;", FULL, "'NV21' is not allowed"),
    ("INPUT_CONFIG", "quantizations", "quantizations=YES;", FULL, "allowed are TRUE, FALSE"),
    ("INPUT_CONFIG", "quantizations", "quantizations=TRUE,TRUE;", FULL, "has 2 values"),
    ("INPUT_CONFIG", "mean", "mean=1:2;", FULL, "has 2 channels where the input has 3"),
    ("INPUT_CONFIG", "mean", "mean=a;", FULL, "'a' is no number"),
    ("INPUT_CONFIG", "mean", "mean=nan;", FULL, "'nan' is out of range"),
    ("INPUT_CONFIG", "mean", "mean=1:2:3,33,0;", MIXED, "has 3 values where 2 are needed"),
    ("INPUT_CONFIG", "mean", "mean=1:2:3,1:2:3;", MIXED, "has 3 channels where the input has 1"),
    ("INPUT_CONFIG", "std_value", "std_value=-1;", FULL, "'-1' is out of range"),
    ("INPUT_CONFIG", "std_value", "std_value=1,1,1;", MIXED, "has 3 values where 2 are needed"),
    ("INPUT_CONFIG", "input_width_alignment", "input_width_alignment=3,1;", MIXED, "go with YUV_NV12"),
    ("INPUT_CONFIG", "input_width_alignment", "input_width_alignment=2,0;", MIXED, "'0' is not allowed"),
    ("INPUT_CONFIG", "input_width_alignment", "input_width_alignment=2,1,8;", MIXED, "go with RAWDATA"),
    ("INPUT_CONFIG", "input_layouts", "input_layouts=NCHW;", MIXED, "has 1 values where 3"),
    ("INPUT_CONFIG", "input_layouts", "input_layouts=CHWN,NHWC,NHWC;", MIXED, "'CHWN' is not allowed"),
    ("OUTPUT_CONFIG", "outputs", None, FULL, "is missing"),
    ("OUTPUT_CONFIG", "dequantizations", "dequantizations=TRUE;", MIXED, "has 1 values where 3"),
    ("OUTPUT_CONFIG", "output_formats", f"output_formats={','.join(['RAWDATA_F32_NHWC'] * 3)}", MIXED,
     "'b' is RAWDATA_F32_NHWC, but its dequantizations is FALSE"),
    ("OUTPUT_CONFIG", "output_formats", "output_formats=RGB,RGB,RGB", MIXED, "'RGB' is not allowed"),
    ("OUTPUT_CONFIG", "output_layouts", "output_layouts=NHWC;", MIXED, "has 1 values where 3"),
    ("CONV_CONFIG", "tensor_arrays", "input_format=ALL_INT8;", FULL, "'ALL_INT8' is not allowed"),
    ("CONV_CONFIG", "tensor_arrays", "tensor_arrays=a,a;", FULL, "'a' is there twice"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "key", "line", "text", "message"), BROKEN)
def test_broken_rule(
    tmp_path: Path, section: str, key: str, line: str | None, text: str, message: str
) -> None:
    lines = text.splitlines()
    at = next(i for i, old in enumerate(lines) if re.match(rf"{key}\s*=", old))
    lines[at : at + 1] = [] if line is None else [line]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "\n".join(lines))
    named = (line or key).partition("=")[0]
    assert message in caught.value.message
    assert f"[{section}] {named}: " in caught.value.message
    assert re.search(r"input_config\.ini:\d+: ", caught.value.message)
    if line is not None:
        assert f"input_config.ini:{at + 1}:" in caught.value.message
    assert f"rule: {KEYS[section][named].rule}" in caught.value.hint


def test_raw_data_before_a_picture(tmp_path: Path) -> None:
    text = MIXED.replace("GRAY,RAWDATA_F32_NHWC", "RAWDATA_F32_NHWC,GRAY")
    with pytest.raises(ConfigError, match="'input2' is raw data and stands before a picture") as caught:
        read(tmp_path, text)
    assert caught.value.hint.startswith("put it last; rule: ")


def test_layout_of_four_channels(tmp_path: Path) -> None:
    text = FULL.replace("input_formats=BGR;", "input_formats=BGRA;\ninput_layouts=NCHW;")
    with pytest.raises(ConfigError, match="'data' is BGRA and cannot be NCHW"):
        read(tmp_path, text.replace("training_input_formats=BGRA;\ninput_layouts=NCHW;", ""))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", r"\[INPUT_CONFIG\] inputs: is missing", "Names of"),
        ("inputs=x", ":1: 'inputs' stands before any section", r"begin with \[INPUT_CONFIG\]"),
        ("[INPUT_CONFIG]\nhello", ":2: 'hello' is neither", ""),
        ("[INPUT_CONFG]", "there is no section 'INPUT_CONFG'", "did you mean 'INPUT_CONFIG'"),
        (
            "[INPUT_CONFIG]\ninput=x",
            r":2: \[INPUT_CONFIG\]: there is no key 'input'",
            "did you mean 'inputs'",
        ),
        ("[INPUT_CONFIG]\ninputs=x\ninputs=y", ":3: .*is there twice, first on line 2", ""),
        ("[INPUT_CONFIG]\n[INPUT_CONFIG]", r":2: \[INPUT_CONFIG\] is there twice, first on line 1", ""),
        ("[INPUT_CONFIG]\ninputs=x", "input_formats: is missing", ""),
        (FULL.split("[OUTPUT_CONFIG]")[0], r"\[OUTPUT_CONFIG\] outputs: is missing", ""),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert re.search(hint, caught.value.hint)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*missing\.ini': No such file"):
        read_input_config(tmp_path / "missing.ini")
    (tmp_path / "x.ini").write_bytes(b"\xff\xfe[\0")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_input_config(tmp_path / "x.ini")


NAMES = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="_/.:-"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    fed = data.draw(
        st.lists(st.sampled_from(IMAGE_FORMATS + RAW_FORMATS), min_size=len(names), max_size=len(names))
    )
    fed.sort(key=lambda one: one in RAW_FORMATS)
    trained = [
        one if one in RAW_FORMATS else "GRAY" if one == "GRAY" else data.draw(st.sampled_from(("RGB", "BGR")))
        for one in fed
    ]
    numbers = st.floats(0.5, 255, allow_nan=False)
    channels = [1 if one == "GRAY" else 3 for one in trained if one not in RAW_FORMATS]
    means = [data.draw(st.lists(numbers, min_size=n, max_size=n)) for n in channels]
    stds = [data.draw(st.lists(numbers, min_size=n, max_size=n)) for n in channels]
    gap = data.draw(st.sampled_from(["", " ", "\t"]))
    end = data.draw(st.sampled_from(["", ";", " ; # comment", "; #;,=[]"]))

    def line(key: str, values: list[str]) -> str:
        return f"{gap}{key}{gap}={gap}{f',{gap}'.join(values)}{end}\n" if values else ""

    text = "[INPUT_CONFIG]\n" + line("inputs", names) + line("training_input_formats", trained)
    text += line("input_formats", fed)
    text += line("mean", [":".join(map(repr, one)) for one in means])
    text += line("std_value", [":".join(map(repr, one)) for one in stds])
    text += "[OUTPUT_CONFIG]\n" + line("outputs", names)
    contract = read(tmp_path_factory.mktemp("ini"), text)
    assert [one.name for one in contract.inputs] == [one.name for one in contract.outputs] == names
    assert [one.input_format for one in contract.inputs] == fed
    assert [one.training_format for one in contract.inputs] == trained
    assert [list(one.mean) for one in contract.inputs if not one.is_raw] == means
    assert [list(one.std) for one in contract.inputs if not one.is_raw] == stds


def test_alignment_of_the_chip(tmp_path: Path) -> None:
    """What the file does not say is the chip's: even for frames in NV12, 1 for raw data."""
    path = tmp_path / "x.ini"
    keys = "inputs=a,b,c\ntraining_input_formats=RGB,RGB,RAWDATA_U8_NHWC\ninput_formats={}\n{}"
    text = f"[INPUT_CONFIG]\n{keys}[OUTPUT_CONFIG]\noutputs=y\n"
    path.write_text(text.format("RGB,YUV_NV12,RAWDATA_U8_NHWC", ""))
    found = read_input_config(path, (15, 4))[0].inputs
    assert [(one.width_alignment, one.height_alignment) for one in found] == [(15, 4), (30, 4), (1, 1)]
    path.write_text(text.format("RGB,YUV_NV12,RAWDATA_U8_NHWC", "input_width_alignment=2,2\n"))
    found = read_input_config(path, (15, 4))[0].inputs
    assert [(one.width_alignment, one.height_alignment) for one in found] == [(2, 4), (2, 4), (1, 1)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Nothing but a contract or a message about the file ever comes out."""
    lines = data.draw(st.permutations((FULL + MIXED).splitlines()))
    text = "\n".join(lines[: data.draw(st.integers(0, 12))]) + data.draw(st.text(max_size=20))
    path = tmp_path_factory.mktemp("ini") / "x.ini"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        read_input_config(path)
