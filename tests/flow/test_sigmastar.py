"""The flow that users of the SigmaStar toolchain know: one shot and three stages, several inputs, Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.flow.kit import SCRIPT, SIZE, detector, picture, write_files
from tests.unit.config_kit import one_picture
from tests.unit.frontend_kit import constant, make_model, node, value
from tvm_ipu.cli.main import main
from tvm_ipu.image.stage import read_stage
from tvm_ipu.runtime import Session
from tvm_ipu.simulation import open_fixed

CONVERT = "convert onnx --model_file yolo.onnx --input_config input_config.ini"
CALIBRATE = (
    "calibrate -m yolo_float.sim --input_config input_config.ini -i pictures -n yolo.py --soc_version host"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which all commands of the documented flow have been run."""
    folder = tmp_path_factory.mktemp("flow")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        one_shot = (
            f"{CONVERT} -i input_list.txt -n yolo.py "
            "--output_file one.img --export_models --soc_version host --quant_level L2"
        )
        for words in (
            one_shot,
            f"{CONVERT} --output_file yolo_float.sim --soc_version host",
            f"{CALIBRATE} --quant_level L2",
            "compile -m yolo_fixed.sim --soc_version host",
            "export yolo_fixed.sim",
        ):
            assert main(words.split()) == 0
        yield folder


def float_output(pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(detector().SerializeToString(), providers=["CPUExecutionProvider"])
    x = (pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None]
    return session.run(None, {"images": np.ascontiguousarray(x)})[0]


def test_one_shot_and_three_stages_give_the_same_bytes(made: Path) -> None:
    assert (made / "one.img").read_bytes() == (made / "yolo_fixed.sim_sgsimg.img").read_bytes()
    assert (made / "one_float.sim").read_bytes() == (made / "yolo_float.sim").read_bytes()
    assert (made / "one_fixed.sim").read_bytes() == (made / "yolo_fixed.sim").read_bytes()


def test_nothing_else_is_left(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    given = {"yolo.onnx", "input_config.ini", "yolo.py", "pictures", "input_list.txt"}
    stages = {"yolo_float.sim", "yolo_fixed.sim", "one_float.sim", "one_fixed.sim", "yolo_fixed.onnx"}
    assert names == given | stages | {"one.img", "yolo_fixed.sim_sgsimg.img"}


def test_image_takes_the_boards_bytes(made: Path) -> None:
    """BGR bytes in, numbers out that are near the float model's and equal the simulator's to the bit."""
    pixels = picture(99)
    board = np.ascontiguousarray(pixels[None, :, :, ::-1])
    expected = float_output(pixels)
    with Session(made / "one.img") as session:
        found = session.run({"images": board})["output0"]
    noise = np.mean((found - expected) ** 2) / np.var(expected)
    assert 10 * np.log10(1 / noise) > 20
    simulator = open_fixed(made / "yolo_fixed.sim")
    simulator.set_input(0, board)
    simulator.invoke()
    assert simulator.get_output(0).tobytes() == found.tobytes()


def test_exported_network_is_quantised(made: Path) -> None:
    model = onnx.load(made / "yolo_fixed.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {one.op_type for one in model.graph.node}
    pixels = picture(98)
    session = onnxruntime.InferenceSession(made / "yolo_fixed.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": (pixels / 255).astype(np.float32)[None]})[0]
    expected = float_output(pixels)
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * expected.std()


def test_stage_tells_how_it_was_made(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = read_stage(made / "yolo_fixed.sim", "fixed")
    assert (stage.metadata["level"], stage.metadata["samples"]) == ("L2", 4)
    assert stage.ranges.ranges["images"].bits == 8
    assert main(["export", "yolo_fixed.sim", "--output_mode", "JSON", "-o", "ranges.json"]) == 0
    assert main(f"{CALIBRATE} --quant_level L1 --quant_param ranges.json -o again.sim".split()) == 0
    again = read_stage(made / "again.sim").ranges.ranges
    assert {name: (one.low, one.high, one.bits) for name, one in again.items()} == {
        name: (one.low, one.high, one.bits) for name, one in stage.ranges.ranges.items()
    }
    (made / "again.sim").unlink()
    (made / "ranges.json").unlink()


STOPPING = """
import os, time
def image_preprocess(image_file, norm=True):
    with open("calls", "a") as file:
        file.write(".")
    if os.path.getsize("calls") == int(os.environ["STOP_AT"]):
        time.sleep(1)  # samples are read ahead of the one that is calibrated with
        open("stopped", "w").close()
        time.sleep(600)
    return preprocessed(image_file, norm)
"""
"""Preprocessing that stops in one of its calls, as slow work does that Ctrl-C ends."""

CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in what runs in the background
from tvm_ipu.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def interrupted(words: list[str], call: int) -> tuple[int, str]:
    """Exit code and messages of a command that Ctrl-C ends in the ``call``-th call of preprocessing."""
    command = [sys.executable, "-c", CHILD, *words]
    environment = {**os.environ, "STOP_AT": str(call)}
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE) as child:
        while not Path("stopped").exists() and child.poll() is None:
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGINT)  # a terminal sends it to the workers too
        messages = child.communicate(timeout=120)[1].decode()
    Path("stopped").unlink()
    return child.returncode, messages


def test_interrupted_calibration_goes_on(made: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    """Ctrl-C at the last of four samples, and again while the network is measured."""
    for name in ("yolo_float.sim", "input_config.ini"):
        shutil.copy(made / name, tmp_path / name)
    script = (made / "yolo.py").read_text().replace("image_preprocess", "preprocessed")
    (tmp_path / "yolo.py").write_text(script + STOPPING)
    shutil.copytree(made / "pictures", tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    words = f"{CALIBRATE} --quant_level L5 --num_process 1".split()
    goes_on = r"calibration goes on after [123] samples of 'yolo_fixed.sim.statistics'\n"
    for call, expected in ((4, ""), (4 + 4 + 1, goes_on)):
        code, messages = interrupted(words, call)
        assert code == 130
        assert re.fullmatch(expected, messages), messages
        assert {path.name for path in tmp_path.iterdir()} == before | {"calls", "yolo_fixed.sim.statistics"}
    monkeypatch.setenv("STOP_AT", "0")
    with caplog.at_level("WARNING"):
        assert main(words) == 0
    assert "calibration goes on after 4 samples" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == before | {"calls", "yolo_fixed.sim"}
    resumed = (tmp_path / "yolo_fixed.sim").read_bytes()
    assert main([*words, "-o", "whole.sim"]) == 0
    assert (tmp_path / "whole.sim").read_bytes() == resumed


TWO_INPUTS = """[INPUT_CONFIG]
inputs=left,right,bias;  # raw data last
training_input_formats=RGB,GRAY,RAWDATA_F32_NHWC;
input_formats=YUV_NV12,GRAY,RAWDATA_F32_NHWC;
quantizations=TRUE,TRUE,TRUE;
mean=127.5:127.5:127.5,0;
std_value=127.5,255;
[OUTPUT_CONFIG]
outputs=map,score;
dequantizations=FALSE,TRUE;
output_formats=RAWDATA_S16_NHWC,RAWDATA_F32_NHWC;
"""


def several_inputs() -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    weights = [
        constant("w1", rng.normal(0, 0.3, (8, 3, 3, 3)), "float32"),
        constant("w2", rng.normal(0, 0.3, (8, 1, 3, 3)), "float32"),
        constant("w3", rng.normal(0, 0.3, (8, 4)), "float32"),
    ]
    nodes = [
        node("Conv", "left w1", "a", pads=[1] * 4),
        node("Conv", "right w2", "b", pads=[1] * 4),
        node("Add", "a b", "sum"),
        node("Relu", "sum", "map"),
        node("ReduceMean", "map", "mean", axes=[2, 3], keepdims=0),
        node("MatMul", "mean w3", "product"),
        node("Add", "product bias", "score"),
    ]
    inputs = [value("left", [1, 3, SIZE, SIZE]), value("bias", [1, 4]), value("right", [1, 1, SIZE, SIZE])]
    return make_model(nodes, inputs, [value("map", [1, 8, SIZE, SIZE]), value("score", [1, 4])], weights)


def test_several_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame, a grey picture and raw data, each with its own preprocessing, from a list with commas."""
    monkeypatch.chdir(tmp_path)
    onnx.save(several_inputs(), "net.onnx")
    Path("net.ini").write_text(TWO_INPUTS)
    Path("left.py").write_text(
        SCRIPT.format(size=SIZE).replace("/ 255", "/ np.float32(127.5) - np.float32(1)")
    )
    Path("right.py").write_text(
        SCRIPT.format(size=SIZE).replace("[:new_shape[0], :new_shape[1]]", "[:, :, 1:2]")
    )
    lines = []
    rng = np.random.default_rng(1)
    for number in range(3):
        np.save(f"p{number}.npy", picture(number))
        np.save(f"v{number}.npy", rng.normal(0, 1, (1, 4)).astype(np.float32))
        lines.append(f"p{number}.npy,p{number}.npy,v{number}.npy")
    Path("list.txt").write_text("\n".join(lines))
    words = (
        "convert onnx --model_file net.onnx --input_config net.ini -i list.txt -n left.py,right.py,npy "
        "--output_file net.img --export_models --soc_version host --quant_level L1"
    )
    assert main(words.split()) == 0
    luma = picture(1)[:, :, 1]
    chroma = np.full((SIZE // 2, SIZE), 128, np.uint8)
    feeds = {
        "left": np.concatenate([luma, chroma]),
        "right": picture(1)[None, :, :, 1:2],
        "bias": np.load("v1.npy"),
    }
    with Session("net.img") as session:
        shapes = {spec.name: (spec.shape, spec.dtype.label) for spec in session.inputs}
        feeds = {name: array.reshape(shapes[name][0]) for name, array in feeds.items()}
        found = session.run(feeds)
    assert shapes["left"][1] == "uint8"
    assert found["map"].dtype == np.int16
    assert found["map"].shape == (1, SIZE, SIZE, 8)
    simulator = open_fixed(Path("net_fixed.sim"))
    for detail in simulator.get_input_details():
        simulator.set_input(detail["index"], feeds[detail["name"]])
    simulator.invoke()
    for detail in simulator.get_output_details():
        assert simulator.get_output(detail["index"]).tobytes() == found[detail["name"]].tobytes()
    # grey frames of the full range: R = G = B = luma by BT.601's formula
    grey = np.clip((luma.astype(np.float32) - 16) * (255 / 219), 0, 255)
    x = np.repeat(grey[None, None], 3, 1) / 127.5 - 1
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    right = (feeds["right"].astype(np.float32) / 255).transpose(0, 3, 1, 2)
    expected = session.run(None, {"left": x.astype(np.float32), "right": right, "bias": feeds["bias"]})
    np.testing.assert_allclose(found["score"], expected[1], atol=0.1 * np.abs(expected[1]).max())


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ("calibrate", ["-i/--image"]),
        ("calibrate yolo_float.sim -i none -n yolo.py", ["-i: none does not exist"]),
        ("calibrate yolo_float.sim -i pictures -n none.py", ["there is no file 'none.py'"]),
        (
            "calibrate yolo_fixed.sim -i pictures -n yolo.py",
            ["is a fixed stage, not a float stage", "convert"],
        ),
        ("calibrate yolo_float.sim -i pictures -n yolo.py --quant_level L9", ["'L9' is not allowed"]),
        ("calibrate yolo_float.sim -i pictures -n yolo.py --quant_level L1 -q Q1", ["exclude each other"]),
        (
            "calibrate yolo_float.sim -i pictures -n yolo.py --quant_config none.yaml",
            ["cannot read 'none.yaml'"],
        ),
        ("convert onnx --model_file yolo.onnx --output_file x.img", ["needs samples", "give -i and -n"]),
        (
            "convert onxx --model_file yolo.onnx --output_file x.sim",
            ["no platform 'onxx'", "did you mean 'onnx'?"],
        ),
        (
            f"{CONVERT} --output_file x.sim --export-model",
            ["--export-model", "did you mean --export-models?", "convert onnx --help"],
        ),
        (f"{CONVERT} --output_file x.sim -i pictures -n yolo.py", ["-i: it is for .img", "is 'x.sim'"]),
        (f"{CONVERT} --output_file x.onnx", ["--input-config: it is for .sim or .img"]),
        (
            f"{CONVERT} --output_file x.sim --weight_file w",
            ["platform 'onnx' have none", "for caffe, paddle"],
        ),
        ("compile one.img", ["'one.img' is an image: it is compiled already", "its fixed stage"]),
        (f"{CONVERT} --output_file none/x.sim", ["'none/x.sim': there is no folder 'none'"]),
        (f"{CALIBRATE} -o none/x.sim", ["-o/--output: 'none/x.sim': there is no folder 'none'"]),
        (f"{CALIBRATE} -o x.img", ["'x.img' does not end in .sim"]),
        (f"{CALIBRATE} -q Q7", ["-q: 'Q7' is not allowed"]),
        ("compile yolo_fixed.sim -o none/x.img", ["'none/x.img': there is no folder 'none'"]),
        (
            "compile yolo_fixed.sim --input_shapes 1,3,64,64",
            ["the shapes of a stage are fixed"],
        ),
        ("export yolo_fixed.sim -o x.txt", ["'x.txt' does not end in .onnx"]),
        ("simulate -m yolo_fixed.sim -i pictures -n yolo.py -o yolo.py", ["'yolo.py' is no folder"]),
        ("simulate -m yolo_fixed.sim -i pictures -n letterbox", ["failed: pictures/0.npy is no picture"]),
    ],
)
def test_mistakes(made: Path, capsys: pytest.CaptureFixture[str], words: str, texts: list[str]) -> None:
    before = {path.name for path in made.iterdir()}
    assert main(words.split()) == 1
    err = capsys.readouterr().err
    assert all(text in err for text in texts)
    assert {path.name for path in made.iterdir()} == before


def test_rate_that_does_not_go_with_the_mode(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "quant_config.yaml").write_text("QUANT_CONFIG: {mixed_precisions: [4, 8], mp_rate: 0.6}")
    assert main(f"{CALIBRATE} -q Q13 --quant_config quant_config.yaml".split()) == 1
    assert "mp_rate: 0.6 does not go with mixed_precisions [4, 8]" in capsys.readouterr().err
    (made / "quant_config.yaml").unlink()


def test_other_layout_than_the_float_stages(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = one_picture("images", "output0", fed="BGR")
    (made / "other.ini").write_text(text.replace("[OUTPUT", "input_layouts=NCHW\n[OUTPUT"))
    assert main(f"{CALIBRATE} --input_config other.ini".split()) == 1
    err = capsys.readouterr().err
    assert "[INPUT_CONFIG] inputs: names and layouts are not those" in err
    (made / "other.ini").unlink()
