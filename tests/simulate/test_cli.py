"""``tvm-ipu simulate``: the three phases, what is printed, and what is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.simulate.kit import INI, PICTURE, pixels, write_fixed, write_float
from tvm_ipu.cli.main import main
from tvm_ipu.driver import compile_model
from tvm_ipu.samples.raw import to_raw
from tvm_ipu.simulation import open_fixed


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
