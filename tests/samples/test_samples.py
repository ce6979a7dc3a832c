"""Samples: which files, what scripts make of them, and what happens to scripts that fail."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.samples import open_samples
from tvm_ipu.samples.built_in import preprocess
from tvm_ipu.samples.files import find_samples
from tvm_ipu.samples.samples import ScriptError
from tvm_ipu.samples.steps import parse_steps

SPEC = (TensorSpec("x", (1, 4, 6, 3), DType.FLOAT32),)
PICTURE = Contract(
    (InputContract("x", "RGB", "YUV_NV12", mean=(10, 20, 30), std=(2, 4, 5), width_alignment=2),)
)
GOOD = """
import numpy as np
def image_preprocess(path, norm=True):
    number = int(open(path).read())
    return np.full((1, 4, 6, 3), number, np.float32 if norm else np.uint8)
"""


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for number in range(5):
        write(made / f"{number}.dat", str(number))
    return made


def test_a_folder_is_all_its_files_in_order(folder: Path) -> None:
    assert [one.name for (one,) in find_samples(folder)] == [f"{n}.dat" for n in range(5)]
    assert find_samples(folder / "3.dat") == [(folder / "3.dat",)]


def test_a_list_is_read_beside_itself_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "other").mkdir()
    monkeypatch.chdir(folder.parent / "other")
    write(folder.parent / "other" / "here.dat", "7")
    write(folder.parent / "other" / "0.dat", "8")
    listed = write(folder / "list.txt", f"0.dat, here.dat\n\n{folder}/1.dat,2.dat\n")
    assert find_samples(listed, 2) == [
        (folder / "0.dat", Path("here.dat")),
        (folder / "1.dat", folder / "2.dat"),
    ]


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        ("0.dat\n9.dat\n", 1, r"list.txt, line 2: there is no file '9.dat'"),
        ("0.dat,1.dat\n0.dat\n", 2, r"line 2: 1 files, and the model has 2 inputs"),
        ("0.dat,\n", 2, r"line 1: there is no file ''"),
        ("\n\n", 1, "names no files"),
        ("x" * 5000, 1, "line 1: there is no file 'xxx"),
        (None, 1, "does not exist"),
    ],
)
def test_lists_with_mistakes_are_refused(folder: Path, text: str | None, inputs: int, message: str) -> None:
    listed = folder / "list.txt"
    if text is not None:
        write(listed, text)
    with pytest.raises(OptionError, match=message):
        find_samples(listed, inputs)


def test_one_file_or_a_folder_is_for_one_input(folder: Path, tmp_path: Path) -> None:
    for source in (folder, folder / "0.dat"):
        with pytest.raises(OptionError, match="the model has 2 inputs"):
            find_samples(source, 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="without files"):
        find_samples(tmp_path / "empty")


@pytest.mark.parametrize("processes", [1, 3])
def test_scripts_make_arrays_in_the_order_of_the_files(folder: Path, tmp_path: Path, processes: int) -> None:
    script = write(tmp_path / "script.py", GOOD)
    samples = open_samples(folder, str(script), SPEC, PICTURE)
    found = [one["x"] for one in samples.read(processes=processes)]
    assert [float(one.max()) for one in found] == [0, 1, 2, 3, 4]
    assert {one.dtype for one in found} == {np.dtype(np.float32)}
    raw = next(iter(samples.read(norm=False)))["x"]
    assert (raw.dtype, raw.shape) == (np.uint8, (1, 4, 6, 3))


def test_nothing_is_left_beside_a_script(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "own").mkdir()
    script = write(tmp_path / "own" / "script.py", GOOD)
    assert len(list(open_samples(folder, str(script), SPEC, PICTURE).read())) == 5
    assert list(script.parent.iterdir()) == [script]


def test_inputs_have_scripts_of_their_own_in_the_contracts_order(folder: Path, tmp_path: Path) -> None:
    specs = (TensorSpec("b", (2,), DType.INT64), TensorSpec("a", (3,), DType.FLOAT32))
    raw = InputContract("b", "RAWDATA_S16_NHWC", "RAWDATA_S16_NHWC")
    contract = Contract((InputContract("a", "RAWDATA_F32_NHWC", "RAWDATA_F32_NHWC"), raw))
    write(tmp_path / "helper.py", "import numpy as np\ndef ones(n, t): return np.ones(n, t)\n")
    body = "from helper import ones\nprint('noise')\ndef image_preprocess(path, norm=True):\n    return "
    first = write(tmp_path / "first.py", body + "ones(3, 'float32')")
    second = write(tmp_path / "second.py", body + "ones(2, 'int32' if norm else 'int16')")
    listed = write(folder / "list.txt", "0.dat,1.dat\n")
    samples = open_samples(listed, f"{first},{second}", specs, contract)
    float_arrays, raw_arrays = next(iter(samples.read())), next(iter(samples.read(norm=False)))
    assert {name: array.dtype.name for name, array in float_arrays.items()} == {"a": "float32", "b": "int64"}
    assert {name: array.dtype.name for name, array in raw_arrays.items()} == {"a": "float32", "b": "int16"}


BAD = {
    "raises": ("raise ValueError('out of luck')", "failed: ValueError: out of luck"),
    "exits": ("raise SystemExit(3)", "failed: SystemExit: 3"),
    "ends": ("import os; os._exit(7)", "the process ended with exit code 7"),
    "crashes": ("import os; os.kill(os.getpid(), 11)", "the process was ended by SIGSEGV"),
    "hangs": ("import time; time.sleep(60)", "no result for .*0.dat within 2 s"),
    "list": ("return [1, 2]", "it returned list, and must return numpy.ndarray"),
    "objects": ("return np.array([None])", "an array of object"),
    "shape": ("return np.zeros((4, 6, 3), 'f4')", r"shape \(4, 6, 3\) .*takes \(1, 4, 6, 3\), NHWC"),
    "dtype": ("return np.zeros((1, 4, 6, 3))", "returned float64 .*takes float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_script_that_fails_is_named_with_its_file(folder: Path, tmp_path: Path, case: str) -> None:
    body, message = BAD[case]
    script = write(
        tmp_path / "bad.py", f"import numpy as np\ndef image_preprocess(path, norm=True):\n    {body}\n"
    )
    samples = open_samples(folder, str(script), SPEC, PICTURE, timeout=2 if case == "hangs" else 60)
    with pytest.raises(OptionError, match=message) as info:
        next(iter(samples.read()))
    assert "bad.py" in str(info.value)
    if case == "raises":
        assert isinstance(info.value.__cause__, ScriptError)
        assert "line 3, in image_preprocess" in str(info.value.__cause__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(path): pass", "no function image_preprocess"),
        ("def image_preprocess(path): pass", "no parameter 'norm'"),
        ("import no_such_module_here", "No module named"),
        ("def image_preprocess(", "SyntaxError"),
    ],
)
def test_a_file_that_is_no_such_script(folder: Path, tmp_path: Path, text: str, message: str) -> None:
    samples = open_samples(folder, str(write(tmp_path / "bad.py", text)), SPEC, PICTURE)
    with pytest.raises(OptionError, match=message):
        next(iter(samples.read()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no.py", "no file 'no.py'"),
        ("npy,npy", "2 given, and the model has 1 inputs: x"),
        ("classification:big", "classification:big"),
        ("npy:3", "'npy:3' is not known"),
    ],
)
def test_preprocessing_that_is_not_there(folder: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        open_samples(folder, text, SPEC, PICTURE)


def picture(path: Path, pixels: np.ndarray) -> Path:
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    "content",
    [b"P6\n8 1\xd69 255\n", b"P6\n100000 100000 255\n", b"\x89PNG\r\n\x1a\n" + bytes(40)],
    ids=["number", "huge", "blocks"],
)
def test_pictures_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    (step,) = parse_steps("letterbox", SPEC, PICTURE.inputs)
    with pytest.raises(OptionError, match=r"p\.png is no picture that Pillow reads"):
        preprocess(step, tmp_path / "p.png", True)


@pytest.mark.parametrize("training", ["RGB", "BGR"])
def test_built_in_pictures_are_normalised_in_the_training_format(tmp_path: Path, training: str) -> None:
    pixels = np.zeros((8, 12, 3), np.uint8) + np.array([12, 28, 55], np.uint8)
    source = picture(tmp_path / "p.png", pixels)
    one = InputContract("x", training, "BGR", mean=(10, 20, 30), std=(2, 4, 5))
    samples = open_samples(source, "classification", SPEC, Contract((one,)))
    expected, raw = np.array([1.0, 2.0, 5.0]), np.array([12, 28, 55])
    turned = slice(None, None, -1 if training == "BGR" else 1)
    assert np.array_equal(
        next(samples.read())["x"], np.broadcast_to(expected[turned], SPEC[0].shape).astype(np.float32)
    )
    assert np.array_equal(next(samples.read(norm=False))["x"], np.broadcast_to(raw[turned], SPEC[0].shape))


def test_letterbox_keeps_the_picture_whole(tmp_path: Path) -> None:
    source = picture(tmp_path / "p.png", np.full((4, 12, 3), 200, np.uint8))
    one = InputContract("x", "RGB", "RGB", mean=(0,), std=(1,), layout="NCHW")
    spec = (TensorSpec("x", (1, 3, 6, 6), DType.FLOAT32),)
    found = next(open_samples(source, "letterbox:6", spec, Contract((one,))).read(norm=False))["x"]
    assert found.shape == (1, 3, 6, 6)
    assert np.array_equal(found[0, 0, :, 0], [114, 114, 200, 200, 114, 114])


def test_classification_crops_what_torchvision_crops(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = picture(tmp_path / "p.png", rng.integers(0, 256, (64, 96, 3), np.uint8))
    spec = (TensorSpec("x", (1, 3, 28, 28), DType.FLOAT32),)
    found = next(open_samples(source, "classification:28:32", spec).read())["x"]
    from PIL import Image

    with Image.open(source) as opened:
        expected = np.asarray(opened.resize((48, 32), Image.Resampling.BILINEAR).crop((10, 2, 38, 30)))
    assert np.array_equal(found[0], (expected.transpose(2, 0, 1) / 255).astype(np.float32))


def test_gray_pictures_and_arrays(tmp_path: Path) -> None:
    one = InputContract("x", "GRAY", "GRAY", mean=(4,), std=(2,))
    spec = (TensorSpec("x", (1, 5, 5, 1), DType.FLOAT32),)
    source = picture(tmp_path / "p.png", np.full((5, 5), 8, np.uint8))
    assert np.unique(next(open_samples(source, "letterbox", spec, Contract((one,))).read())["x"]) == [2]
    np.save(tmp_path / "a.npy", np.ones((1, 5, 5, 1)))
    assert next(open_samples(tmp_path / "a.npy", "npy", spec).read())["x"].dtype == np.float32
    write(tmp_path / "b.npy", "no array")
    with pytest.raises(OptionError, match=r"no array of numpy\.save"):
        next(open_samples(tmp_path / "b.npy", "npy", spec).read())


def test_without_pillow_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvm_ipu.samples import built_in
    from tvm_ipu.samples.steps import Step

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(OptionError, match="needs Pillow") as info:
        built_in.preprocess(Step(SPEC[0], built_in="letterbox"), tmp_path / "p.png", True)
    assert "pip install" in info.value.hint
