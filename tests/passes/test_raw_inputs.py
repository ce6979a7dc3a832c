"""Raw bytes at the ends of a fixed model, through image and runtime, against plain numpy."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from onnx import helper, numpy_helper

from tvm_ipu.base.contract import Contract, InputContract, OutputContract
from tvm_ipu.base.errors import ModelError, RunError
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import load_target
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.cli.main import main
from tvm_ipu.codegen.build import build_program
from tvm_ipu.frontends.loaders import load_model
from tvm_ipu.image.reader import read_image
from tvm_ipu.image.writer import write_image
from tvm_ipu.passes.pipeline import run_phases
from tvm_ipu.passes.raw.apply import apply_contract
from tvm_ipu.quantize.reference_raw import nv12_to_rgb, quantize_pixels
from tvm_ipu.runtime import Session
from tvm_ipu.runtime.build import native_runner

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def model_of(shape, dtype="uint8", scale=0.0187, zero=114, outputs=("q",), source=np.float32):
    """A model whose output ``q`` is its quantised input, and ``y`` the numbers that it stands for."""
    constants = [
        numpy_helper.from_array(np.float32(scale), "s"),
        numpy_helper.from_array(np.asarray(zero, dtype), "z"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "Q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "DQ"),
        helper.make_node("Relu", ["x"], ["r"], "float"),
    ]
    types = {"q": helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), "y": 1, "r": 1}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(source)), shape)],
        [helper.make_tensor_value_info(name, types[name], shape) for name in outputs],
        constants,
    )
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def run(model, contract, feed, folder):
    chip, options = load_target("host"), CompileOptions(jobs=1)
    raw = apply_contract(model, contract)
    fused = raw.with_module(run_phases(raw.module, chip, options))
    path = Path(folder) / "m.img"
    write_image(build_program([fused], chip, 1), path)
    with Session(path) as session:
        return session.run({"x": feed})


def picture(input_format, trained="RGB", mean=MEAN, std=STD, **more):
    return Contract((InputContract("x", trained, input_format, True, mean, std, **more),))


def frame_of(rgb_like, contract, rng):
    """Bytes of a frame in memory, padding filled with noise, and the RGB pixels that it shows."""
    one = contract.inputs[0]
    n, height, width, _ = rgb_like.shape
    rows = -(-height // one.height_alignment) * one.height_alignment
    columns = -(-width // one.width_alignment) * one.width_alignment
    if one.input_format == "YUV_NV12":
        frame = rng.integers(0, 256, (n, rows * 3 // 2, columns), np.uint8)
        return frame, np.stack([nv12_to_rgb(f, height, width) for f in frame])
    channels = {"GRAY": 1, "RGB": 3, "BGR": 3}.get(one.input_format, 4)
    frame = rng.integers(0, 256, (n, rows, columns, channels), np.uint8)
    shown = frame[:, :height, :width]
    order = {"RGB": [0, 1, 2], "RGBA": [0, 1, 2], "BGR": [2, 1, 0], "BGRA": [2, 1, 0], "GRAY": [0]}
    return frame, shown[..., order[one.input_format]]


@pytest.mark.parametrize("trained", ["RGB", "BGR"])
@pytest.mark.parametrize("input_format", ["RGB", "BGR", "RGBA", "BGRA", "YUV_NV12"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_pictures(input_format, trained, layout, tmp_path):
    rng = np.random.default_rng(7)
    height, width = 10, 14
    contract = picture(input_format, trained, width_alignment=8, height_alignment=4, layout=layout)
    frame, rgb = frame_of(np.zeros((1, height, width, 3)), contract, rng)
    mean, std = np.array(MEAN), np.array(STD)
    if trained == "BGR":
        rgb, mean, std = rgb[..., ::-1], mean[::-1], std[::-1]
    expected = quantize_pixels(rgb, mean, std, np.float32(0.0187), 114, "uint8")
    shape = [1, height, width, 3]
    if layout == "NCHW":
        shape, expected = [1, 3, height, width], expected.transpose(0, 3, 1, 2)
        if input_format != "YUV_NV12":
            frame = np.ascontiguousarray(frame.transpose(0, 3, 1, 2))
    found = run(model_of(shape), contract, frame, tmp_path)["q"]
    np.testing.assert_array_equal(found, expected)
    # what the pixels would be without fixed point
    real = (rgb.transpose(0, 3, 1, 2) if layout == "NCHW" else rgb).astype(np.float64)
    along = (1, 3, 1, 1) if layout == "NCHW" else (1, 1, 1, 3)
    steps = (real - mean.reshape(along)) / std.reshape(along) / np.float32(0.0187) + 114
    assert np.abs(found - np.clip(np.rint(steps), 0, 255)).max() <= 1
    near_half = np.abs(np.abs(steps - np.floor(steps)) - 0.5) < 1e-3
    assert (found == np.clip(np.rint(steps), 0, 255))[~near_half].all()


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 19),
    rows=st.sampled_from([2, 4, 16]),
    columns=st.sampled_from([2, 16, 64]),
    batch=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_frames_of_every_size(tmp_path_factory, height, width, rows, columns, batch, seed):
    contract = picture("YUV_NV12", width_alignment=columns, height_alignment=rows)
    frame, rgb = frame_of(np.zeros((batch, height, width, 3)), contract, np.random.default_rng(seed))
    expected = quantize_pixels(rgb, MEAN, STD, np.float32(0.0187), 114, "uint8")
    model = model_of([batch, height, width, 3])
    np.testing.assert_array_equal(run(model, contract, frame, tmp_path_factory.mktemp("raw"))["q"], expected)


def test_nv12_is_bt601():
    """Within a rounding of the formula of the standard, for every colour that a frame can hold."""
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (96, 64), np.uint8)
    y = frame[:64].astype(np.float64)
    u, v = (frame[64:, i::2].repeat(2, 0).repeat(2, 1).astype(np.float64) - 128 for i in (0, 1))
    y = (y - 16) * 255 / 219
    u, v = u * 255 / 224, v * 255 / 224
    red = y + 1.402 * v
    green = y - (0.114 * 1.772 * u + 0.299 * 1.402 * v) / 0.587
    blue = y + 1.772 * u
    expected = np.clip(np.stack([red, green, blue], -1), 0, 255)
    assert np.abs(nv12_to_rgb(frame, 64, 64) - expected).max() <= 0.5001


@pytest.mark.parametrize("input_format", ["GRAY", "YUV_NV12"])
def test_gray(input_format, tmp_path):
    rng = np.random.default_rng(3)
    contract = picture(input_format, "GRAY", (33.318,), (1.0,), width_alignment=2, height_alignment=2)
    frame, shown = frame_of(np.zeros((1, 6, 10, 1)), contract, rng)
    if input_format == "YUV_NV12":
        frame[:, 8:] = 128  # no colour, so that all channels are the same
        frame[:, 6 * 1 :] = 128
        shown = nv12_to_rgb(frame[0], 6, 10)[None, ..., :1]
    expected = quantize_pixels(shown, [33.318], [1.0], np.float32(1.0), 33, "uint8")
    found = run(model_of([1, 6, 10, 1], scale=1.0, zero=33), contract, frame, tmp_path)["q"]
    np.testing.assert_array_equal(found, expected)


def test_pixels_on_the_grid_cost_nothing(tmp_path):
    """Where the input's step is one pixel value and its zero point the mean, bytes are taken as they are."""
    contract = picture("RGB", mean=(127.0,) * 3, std=(128.0,))
    raw = apply_contract(model_of([1, 4, 4, 3], scale=1 / 128, zero=127, outputs=("y",)), contract)
    text = raw.module.script()
    assert "R.multiply" not in text
    assert "right_shift" not in text


def test_numbers_of_an_input_that_stays_float(tmp_path):
    rng = np.random.default_rng(5)
    contract = picture("RGB")
    frame = rng.integers(0, 256, (1, 5, 7, 3), np.uint8)
    found = run(model_of([1, 5, 7, 3], outputs=("r",)), contract, frame, tmp_path)["r"]
    np.testing.assert_allclose(found, np.maximum((frame - np.array(MEAN)) / STD, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("input_format", "fed", "quantize", "expected"),
    [
        ("RAWDATA_U8_NHWC", np.uint8, True, lambda x: np.clip(np.rint(x / 0.5) + 3, -32768, 32767)),
        ("RAWDATA_S16_NHWC", np.int16, True, lambda x: x),
        ("RAWDATA_S16_NHWC", np.int16, False, lambda x: np.clip(np.rint(x / 0.5) + 3, -32768, 32767)),
        ("RAWDATA_F32_NHWC", np.float32, True, lambda x: np.clip(np.rint(x / 0.5) + 3, -32768, 32767)),
    ],
)
def test_raw_data(input_format, fed, quantize, expected, tmp_path):
    rng = np.random.default_rng(6)
    contract = Contract((InputContract("x", input_format, input_format, quantize),))
    feed = rng.integers(0, 200, (2, 3, 5)).astype(fed)
    model = model_of([2, 3, 5], dtype="int16", scale=0.5, zero=3)
    np.testing.assert_array_equal(run(model, contract, feed, tmp_path)["q"], expected(feed))


@pytest.mark.parametrize(
    ("contract", "expected"),
    [
        (OutputContract("y", False, "RAWDATA_S16_NHWC"), lambda q: q.astype(np.int16) - 114),
        (OutputContract("y", False, "RAWDATA_U8_NHWC"), lambda q: q),
        (
            OutputContract("y", True, "RAWDATA_S16_NHWC"),
            lambda q: np.rint((q.astype(np.int64) - 114).astype(np.float32) * np.float32(0.5)),
        ),
        (
            OutputContract("y", True, "RAWDATA_U8_NHWC"),
            lambda q: np.rint((q.astype(np.int64) - 114).clip(0).astype(np.float32) * np.float32(0.5)),
        ),
        (
            OutputContract("y", True, "RAWDATA_F32_NHWC"),
            lambda q: (q.astype(np.int64) - 114).astype(np.float32) * np.float32(0.5),
        ),
    ],
)
def test_outputs(contract, expected, tmp_path):
    rng = np.random.default_rng(9)
    whole = Contract((InputContract("x", "RAWDATA_F32_NHWC", "RAWDATA_F32_NHWC"),), (contract,))
    x = (rng.standard_normal((1, 3, 8, 5)) * 20).astype(np.float32)
    q = np.clip(np.rint(x * np.float32(2)) + 114, 0, 255).astype(np.uint8)
    found = run(model_of([1, 3, 8, 5], scale=0.5, outputs=("y",)), whole, x, tmp_path)["y"]
    assert found.dtype == {"S": np.int16, "U": np.uint8, "F": np.float32}[contract.format[8]]
    np.testing.assert_array_equal(found, expected(q))


@pytest.mark.parametrize(
    ("shape", "contract", "message"),
    [
        ([1, 3, 8, 8], picture("RGB"), r"pictures have the shape \[N, H, W, 3\], found \[1, 3, 8, 8\]"),
        ([1, 7, 8, 3], picture("YUV_NV12"), "even number of rows and columns, found 7 x 8"),
        (
            [1, 8],
            Contract((InputContract("x", "RAWDATA_U16_NHWC", "RAWDATA_U16_NHWC"),)),
            "indices that an embedding reads",
        ),
        (
            [1, 8],
            Contract((InputContract("x", "RAWDATA_S16_NHWC", "RAWDATA_S16_NHWC"),)),
            "feeds int16, but the model quantises it to uint8",
        ),
    ],
)
def test_what_does_not_fit_is_named(shape, contract, message):
    with pytest.raises(ModelError, match=message):
        apply_contract(model_of(shape), contract)


def test_raw_output_of_a_float_layer_is_refused():
    contract = Contract((), (OutputContract("r", False, "RAWDATA_S16_NHWC"),))
    with pytest.raises(ModelError, match="the output is not quantised"):
        apply_contract(model_of([1, 8], outputs=("r",)), contract)


def test_the_image_says_what_its_bytes_are(tmp_path):
    contract = replace(
        picture("YUV_NV12", width_alignment=16, height_alignment=2),
        outputs=(OutputContract("y", False, "RAWDATA_S16_NHWC"),),
    )
    frame = np.zeros((1, 9, 16), np.uint8)
    run(model_of([1, 6, 10, 3], outputs=("y",)), contract, frame, tmp_path)
    image = read_image(tmp_path / "m.img")
    assert image.contract == contract
    with Session(tmp_path / "m.img") as session:
        assert (*session.inputs, *session.outputs) == (*image.plans[0].inputs, *image.plans[0].outputs)
        assert session.inputs[0] == TensorSpec("x", (1, 9, 16), DType.UINT8, "YUV_NV12")
        made = session.outputs[0]
        assert (made.dtype, made.format, made.zero) == (DType.INT16, "RAWDATA_S16_NHWC", 0)
        assert made.scale == np.float32(0.0187)
        with pytest.raises(RunError, match="6 rows of Y, then the rows of U and V in turn"):
            session.run({"x": np.zeros((1, 6, 10, 3), np.uint8)})
    listed = subprocess.run(
        [native_runner(), tmp_path / "m.img", "--list"], capture_output=True, text=True, check=True
    ).stdout
    assert "uint8[1,9,16]  144 bytes  YUV_NV12" in listed
    assert "RAWDATA_S16_NHWC  (q - 0) * 0.0186999999" in listed


def test_inspect_shows_the_contract(tmp_path, capsys):
    contract = picture("BGR", width_alignment=16)
    run(model_of([1, 6, 10, 3]), contract, np.zeros((1, 6, 16, 3), np.uint8), tmp_path)
    assert main(["inspect", str(tmp_path / "m.img")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"x\s+BGR\s+RGB\s+123.675:116.28:103.53\s+58.395:57.12:57.375\s+16 x 1\s+NHWC", shown)
