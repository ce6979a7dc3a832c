"""``tvm-ipu simulate``: the three phases, what is printed, and what is written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from PIL import Image

from tests.simulate.kit import CONTRACT, INI, PICTURE, network, pixels, write_fixed, write_float
from tvm_ipu.base.contract import OutputContract
from tvm_ipu.cli.main import main
from tvm_ipu.driver import compile_model
from tvm_ipu.samples.raw import to_raw
from tvm_ipu.simulation import open_fixed, open_offline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    write_fixed(made / "fixed.sim", write_float(made / "float.sim"))
    compile_model(made / "fixed.sim", "host", made / "model.img")
    (made / "in").mkdir()
    for number, picture in enumerate(pixels(3)):
        Image.fromarray(picture[0]).save(made / "in" / f"{number}.png")
    return made


@pytest.mark.parametrize("model", ["fixed.sim", "model.img"])
def test_outputs_are_written_by_sample(folder: Path, model: str) -> None:
    out = folder / f"out-{model}"
    script = folder / "own.py"
    script.write_text(
        "import numpy as np\nfrom PIL import Image\ndef image_preprocess(path, norm=True):\n"
        "    return np.asarray(Image.open(path).convert('RGB'))[None]\n"
    )
    words = ["-m", str(folder / model), "-i", str(folder / "in"), "-n", str(script), "-o", str(out)]
    assert main(["simulate", *words]) == 0
    expected = open_fixed(folder / "fixed.sim")
    for number, picture in enumerate(pixels(3)):
        with np.load(out / f"{number:05d}_{number}.npz") as found:
            scores = expected.run({"x": to_raw(picture, PICTURE)})["scores"]
            assert found["scores"].tobytes() == scores.tobytes()


@pytest.mark.parametrize("model", ["float.sim", "fixed.sim", "pairs.img"])
def test_samples_that_run_together(folder: Path, model: str) -> None:
    """Two at a time, and the third by itself."""
    if model == "pairs.img":
        compile_model(folder / "fixed.sim", "host", folder / model, batches=(2,))
    words = ["simulate", "-m", str(folder / model), "-i", str(folder / "in"), "-n", "letterbox"]
    alone, together = folder / f"alone-{model}", folder / f"together-{model}"
    assert main([*words, "-b", "2", "-o", str(together)]) == 0
    words[2] = words[2].replace("pairs", "model")
    assert main([*words, "-o", str(alone)]) == 0
    for number in range(3):
        name = f"{number:05d}_{number}.npz"
        with np.load(alone / name) as one, np.load(together / name) as two:
            tolerance = 1e-5 if model == "float.sim" else 0
            np.testing.assert_allclose(one["scores"], two["scores"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("model", "phase"), [("float.sim", "Float"), ("fixed.sim", "Fixed")])
def test_classes_are_printed(folder: Path, model: str, phase: str, capsys) -> None:
    words = ["-m", str(folder / model), "-i", str(folder / "in" / "1.png"), "-n", "letterbox", "-t", phase]
    assert main(["simulate", *words, "-c", "Classification"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("1.png")
    assert lines[1].split() == ["class", "score"]
    assert len(lines) == 8
    assert main(["simulate", *words]) == 0
    assert "scores: float32[1, 10]" in capsys.readouterr().out


def test_frames_wider_than_the_pictures(folder: Path) -> None:
    """Built-in preprocessing for an image knows the picture in the frame."""
    contract = replace(CONTRACT, inputs=(replace(PICTURE, width_alignment=64, height_alignment=32),))
    write_fixed(folder / "wide.sim", write_float(folder / "wide_float.sim", contract=contract), contract)
    compile_model(folder / "wide.sim", "host", folder / "wide.img")
    words = ["-i", str(folder / "in"), "-n", "letterbox"]
    found = []
    for model in ("wide.sim", "wide.img", "fixed.sim"):
        out = folder / f"frames-{model}"
        assert main(["simulate", "-m", str(folder / model), *words, "-o", str(out)]) == 0
        found.append([(out / f"{number:05d}_{number}.npz").read_bytes() for number in range(3)])
    assert found[0] == found[1] == found[2]


def test_category_of_an_image_is_the_default(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_model(folder / "fixed.sim", "host", folder / "classes.img", category="Classification")
    words = ["-m", str(folder / "classes.img"), "-i", str(folder / "in" / "1.png"), "-n", "letterbox"]
    assert main(["simulate", *words]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["class", "score"]
    assert main(["simulate", *words, "-c", "Unknown"]) == 0
    assert "scores: float32[1, 10]" in capsys.readouterr().out


@pytest.mark.parametrize("output_format", ["RAWDATA_S16_NHWC", "RAWDATA_U8_NHWC"])
def test_whole_numbers_from_a_chip_without_floats(folder: Path, output_format: str) -> None:
    """The real numbers, rounded: of ten scores from about -2 to 2 times 60."""
    gain = numpy_helper.from_array(np.float32(60), "gain")
    model = ModelProto.FromString(network())
    model.graph.initializer.append(gain)
    model.graph.node[-1].output[0] = "small"
    model.graph.node.append(helper.make_node("Mul", ["small", "gain"], ["scores"]))
    floats = replace(CONTRACT, outputs=(OutputContract("scores"),))
    whole = replace(CONTRACT, outputs=(OutputContract("scores", True, output_format),))
    graph = write_float(folder / "gained.sim", model.SerializeToString())
    results = []
    for contract in (floats, whole):
        write_fixed(folder / "whole.sim", graph, contract, operator_bits=16)
        compile_model(folder / "whole.sim", "ipu-ref", folder / "whole.img")
        feeds = [{"x": to_raw(picture, PICTURE)} for picture in pixels(3)]
        images = [open_offline(folder / "whole.img").run(one)["scores"] for one in feeds]
        fixed = [open_fixed(folder / "whole.sim", "ipu-ref").run(one)["scores"] for one in feeds]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(images, fixed, strict=True))
        results.append(np.concatenate(images))
    numbers, found = results
    assert found.dtype == ("int16" if "S16" in output_format else "uint8")
    low, high = (-32768, 32767) if "S16" in output_format else (0, 255)
    assert np.abs(numbers).max() > 20
    np.testing.assert_array_less(np.abs(np.clip(numbers, low, high) - found), 0.51)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-t", "Offline"], "-t Offline: .*fixed.sim is of the phase Fixed"),
        (["-c", "Detection"], "Detection is for models with 4 outputs"),
        (["-m", "MODEL", "--batch", "3"], "no plan for 3 samples at once, only for 1"),
        (["--input_config", "INI"], "is not the configuration that the model was made with"),
    ],
)
def test_mistakes(folder: Path, capsys, more: list[str], message: str) -> None:
    (folder / "other.ini").write_text(INI)
    files = {"INI": folder / "other.ini", "MODEL": folder / "model.img"}
    more = [str(files.get(word, word)) for word in more]
    words = ["-m", str(folder / "fixed.sim"), "-i", str(folder / "in"), "-n", "letterbox"]
    assert main(["simulate", *words, *more]) == 1
    assert re.search(message, capsys.readouterr().err)
