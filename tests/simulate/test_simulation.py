"""Simulators of stages and images: one interface, and the same bytes from fixed stage and image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.simulate.kit import CONTRACT, MEAN, PICTURE, network, normalised, pixels, write_fixed, write_float
from tvm_ipu.base.contract import InputContract
from tvm_ipu.base.errors import OptionError, RunError
from tvm_ipu.base.options import CompileOptions
from tvm_ipu.base.target import load_target
from tvm_ipu.codegen.build import build_program
from tvm_ipu.frontends.loaders import load_model
from tvm_ipu.frontends.onnx.plain import graph_to_onnx
from tvm_ipu.image.writer import write_image
from tvm_ipu.passes.pipeline import run_phases
from tvm_ipu.passes.raw.apply import apply_contract
from tvm_ipu.quantize.reference_raw import nv12_to_rgb
from tvm_ipu.samples.raw import to_raw
from tvm_ipu.simulation import describe_model, open_fixed, open_float, open_offline


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``float.sim``, ``fixed.sim`` and ``offline.img``."""
    folder = tmp_path_factory.mktemp("stages")
    graph = write_float(folder / "float.sim")
    fixed = write_fixed(folder / "fixed.sim", graph)
    chip = load_target("host")
    model = apply_contract(load_model(graph_to_onnx(fixed)), CONTRACT)
    fused = model.with_module(run_phases(model.module, chip, CompileOptions()))
    write_image(build_program([fused], chip), folder / "offline.img")
    return folder


def test_the_float_simulator_computes_the_model(stages: Path) -> None:
    simulator = describe_model(stages / "float.sim").open()
    (details,) = simulator.get_input_details()
    assert (details["index"], details["name"], details["dtype"]) == (0, "x", np.float32)
    assert details["shape"].tolist() == [1, 12, 16, 3]
    x = normalised(pixels(1)[0])
    simulator.set_input(0, x)
    simulator.invoke()
    (expected,) = onnxruntime.InferenceSession(network()).run(None, {"x": x})
    np.testing.assert_allclose(simulator.get_output(0), expected, rtol=1e-4, atol=1e-5)
    assert {"dtype": "FLOAT32", "name": "sum"}.items() <= next(
        one for one in simulator.get_tensor_details() if one["name"] == "sum"
    ).items()


def test_fixed_and_offline_models_give_the_same_bytes(stages: Path) -> None:
    fixed, offline = (describe_model(stages / name).open() for name in ("fixed.sim", "offline.img"))
    floating = open_float(stages / "float.sim")
    details = [simulator.get_input_details()[0] for simulator in (fixed, offline)]
    for one in details:
        assert (one["shape"].tolist(), one["dtype"], one["format"]) == ([1, 18, 16], np.uint8, "YUV_NV12")
    signal = noise = 0.0
    for picture in pixels(5):
        feeds = {"x": to_raw(picture, PICTURE)}
        a, b = fixed.run(feeds)["scores"], offline.run(feeds)["scores"]
        assert a.tobytes() == b.tobytes()
        expected = floating.run({"x": normalised(picture)})["scores"].astype(np.float64)
        signal, noise = (
            signal + float(np.square(expected).sum()),
            noise + float(np.square(a - expected).sum()),
        )
    assert 10 * np.log10(signal / noise) > 25  # of 8 bits, and of a colour for 2 x 2 pixels


def test_the_fixed_simulator_knows_its_tensors(stages: Path) -> None:
    details = {one["name"]: one for one in open_fixed(stages / "fixed.sim").get_tensor_details()}
    third = details["third"]
    assert (third["dtype"], third["shape"].tolist()) == ("UINT8", [1, 16, 6, 8])
    ((scale, zero),) = third["quantization"]
    assert (third["min"], third["max"]) == ([-zero * scale], [(255 - zero) * scale])
    weight = details["w0"]
    assert (weight["dtype"], len(weight["min"]), len(weight["quantization"])) == ("INT8", 8, 8)


def test_several_pictures_at_once(stages: Path) -> None:
    pictures = [to_raw(one, PICTURE) for one in pixels(3)]
    many = open_fixed(stages / "fixed.sim", batch=3).run({"x": np.concatenate(pictures)})["scores"]
    one = open_fixed(stages / "fixed.sim")
    assert np.array_equal(many, np.concatenate([one.run({"x": picture})["scores"] for picture in pictures]))


@pytest.mark.parametrize("name", ["fixed.sim", "offline.img"])
def test_mistakes_are_refused(stages: Path, name: str) -> None:
    simulator = describe_model(stages / name).open()
    with pytest.raises(RunError, match="'x' was not set"):
        simulator.invoke()
    with pytest.raises(RunError, match=r"'x' is float32\[1, 12, 16, 3\]"):
        simulator.set_input(0, normalised(pixels(1)[0]))
    with pytest.raises(RunError, match="no input 1"):
        simulator.set_input(1, np.zeros(1))
    with pytest.raises(RunError, match="has not run"):
        simulator.get_output(0)
    with pytest.raises(OptionError, match="'Fast' is not known"):
        describe_model(stages / name, "Fast")


def test_an_image_is_not_a_stage(stages: Path) -> None:
    for open_one in (open_float, open_fixed):
        with pytest.raises(Exception, match=r"offline\.img"):
            open_one(stages / "offline.img")
    with pytest.raises(Exception, match=r"fixed\.sim"):
        open_offline(stages / "fixed.sim")


@pytest.mark.parametrize("trained", ["RGB", "BGR"])
@pytest.mark.parametrize("fed", ["RGB", "BGR", "RGBA", "BGRA"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_pixels_are_reordered_and_padded(trained: str, fed: str, layout: str) -> None:
    contract = InputContract("x", trained, fed, True, MEAN, (1.0,), 8, 4, layout)
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(1, 5, 7, 3)
    rgb = picture if trained == "RGB" else picture[..., ::-1]
    raw = to_raw(picture.transpose(0, 3, 1, 2) if layout == "NCHW" else picture, contract)
    raw = raw.transpose(0, 2, 3, 1) if layout == "NCHW" else raw
    assert raw.shape == (1, 8, 8, len(fed))
    assert np.array_equal(raw[:, :5, :7, [fed.index(c) for c in "RGB"]], rgb)
    assert len(fed) == 3 or raw[..., 3].min() == 255


@pytest.mark.parametrize("trained", ["RGB", "BGR", "GRAY"])
def test_frames_show_the_picture_again(trained: str) -> None:
    channels = 1 if trained == "GRAY" else 3
    contract = InputContract("x", trained, "YUV_NV12", width_alignment=4, height_alignment=2)
    coarse = np.random.default_rng(0).integers(0, 256, (1, 3, 5, channels), np.uint8)
    picture = coarse.repeat(2, 1).repeat(2, 2)
    frame = to_raw(picture, contract)
    assert frame.shape == (1, 9, 12)
    shown = nv12_to_rgb(frame[0], 6, 10)[None]
    order = {"RGB": [0, 1, 2], "BGR": [2, 1, 0], "GRAY": [1]}[trained]
    assert np.abs(shown[..., order].astype(int) - picture).max() <= 3  # 219 steps of luminance, 224 of chroma
