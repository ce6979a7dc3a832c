"""``run``, ``bench`` and ``inspect`` on an image whose results are known: y = 2 (x + index), z = y reversed.

Plan 0 takes 10 elements, plan 1 takes 20.
"""

import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.image.image_kit import sample_program
from tvm_ipu.cli.main import main
from tvm_ipu.image.writer import write_image


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "sample.img"
    write_image(sample_program(10), path)
    return path


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def run(*words):
    return main(["run", *map(str, words)])


def fail(capsys, *words):
    """The message and hint of a run that must fail."""
    assert main([str(word) for word in words]) == 1
    err = capsys.readouterr().err
    match = re.fullmatch(r"error: (.*)\n(?:hint: (.*)\n)?", err)
    assert match, err
    return match[1], match[2] or ""


@pytest.mark.parametrize("n", [10, 20])
def test_outputs_are_written_by_the_plan_that_fits_the_inputs(image, tmp_path, n):
    x = np.linspace(-1, 1, n, dtype=np.float32)
    assert run(image, "--inputs", save(tmp_path / "x.npz", x=x), "--output", tmp_path / "y.npz") == 0
    with np.load(tmp_path / "y.npz") as outputs:
        expected = 2 * (x + np.arange(n, dtype=np.float32))
        np.testing.assert_array_equal(outputs["y"], expected)
        np.testing.assert_array_equal(outputs["z"], expected[None, ::-1])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.npz", "y.npz"]


@pytest.mark.parametrize("choice", [["--plan", "1"], ["--input-shapes", "x:[20]"], ["--input-shapes", "20"]])
def test_plan_can_be_chosen(image, tmp_path, choice):
    assert run(image, *choice, "--fill", "ones", "-o", tmp_path / "y.npz") == 0
    with np.load(tmp_path / "y.npz") as outputs:
        np.testing.assert_array_equal(outputs["y"], 2 * (1 + np.arange(20)))


def test_time_summary_has_the_columns_of_tvmc(image, capsys):
    assert run(image, "--print-time", "--repeat", 5, "--warmup", 2, "--threads", 1) == 0
    title, names, _, values = capsys.readouterr().out.splitlines()
    assert title == "Execution time summary:"
    assert re.findall(r"\w+ \(ms\)", names) == [
        "mean (ms)",
        "median (ms)",
        "max (ms)",
        "min (ms)",
        "std (ms)",
    ]
    mean, median, slowest, fastest, std = map(float, values.split())
    assert 0 <= fastest <= min(mean, median) <= max(mean, median) <= slowest
    assert std >= 0


@pytest.mark.parametrize(("name", "text"), [("l.txt", "nought\none\n"), ("l.json", '["nought", "one"]')])
def test_top_values_with_names(image, tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text)
    x = np.array([9, 8, 1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    assert run(image, "-i", save(tmp_path / "x.npz", x=x), "--top", 2, "--labels", tmp_path / name) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    # y = 18 18 6 6 8 ... 18: equal values in the order of their indices; z is the reverse
    assert rows == [
        ["y", "0", "18", "nought"],
        ["y", "1", "18", "one"],
        ["z", "0", "18", "nought"],
        ["z", "8", "18"],
    ]


def test_profile_and_trace(image, tmp_path, capsys):
    assert run(image, "--profile", "--repeat", 3, "--trace", tmp_path / "t.json") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["/add", "/twice", "/gather", "all"]
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["/add", "/twice", "/gather"]
    assert [event["cat"] for event in events] == ["add", "twice", "gather"]
    ends = [event["ts"] + event["dur"] for event in events]
    assert [event["ts"] for event in events][1:] == pytest.approx(ends[:-1])


@pytest.mark.parametrize(
    ("arrays", "message", "hint"),
    [
        ({"data": np.zeros(10, np.float32)}, "no plan takes inputs", "x: float32[10]; x: float32[20]"),
        ({}, "input 'x' is missing", "x: float32[10]"),
        ({"x": np.zeros(10)}, "input 'x' has type float64, but the model needs float32", ""),
        (
            {"x": np.zeros(7, np.float32)},
            "no plan takes inputs of these shapes",
            "x: float32[10]; x: float32[20]",
        ),
    ],
)
def test_wrong_inputs_are_named(image, tmp_path, capsys, arrays, message, hint):
    found = fail(capsys, "run", image, "-i", save(tmp_path / "x.npz", **arrays), "-o", tmp_path / "y.npz")
    assert message in found[0]
    assert hint in found[1]
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--inputs", "missing.npz"], "missing.npz: No such file"),
        (["--plan", "2"], "plan"),
        (["--input-shapes", "x:[11]"], "no plan takes inputs of these shapes"),
        (["--top", "1", "--labels", "missing.txt"], "missing.txt: No such file"),
        (["--output", "missing/y.npz"], "missing/y.npz: No such file"),
        (["--output", "/dev/full/y.npz"], "/dev/full/y.npz: Not a directory"),
        (["--output", "/dev/full"], "/dev/full: No space left on device"),
        (["--threads", "0"], "0 is less than 1"),
        (["--threads", "257"], "allowed are 1 to 256"),
        (["--repaet", "3"], "--repaet"),
    ],
)
def test_wrong_options_are_named(image, capsys, words, message):
    found, hint = fail(capsys, "run", image, *words)
    assert message in found
    assert hint


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("x.npz", b"", "not a file of numpy.savez"),
        ("x.npz", b"text", "not a file of numpy.savez"),
        ("x.npz", "pickle", "Python objects"),
        ("x.npz", "README", "not a file of numpy.savez"),
        ("x.npz", "half", "not a zip file"),
        ("x.npy", "array", "one array without a name"),
    ],
)
def test_inputs_that_are_no_arrays(image, tmp_path, capsys, name, content, text):
    path = tmp_path / name
    if content == "README":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("README", "text")
    elif content == "array":
        np.save(path, np.zeros(10, np.float32))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, x=np.array([{}]) if content == "pickle" else np.zeros(10))
        path.write_bytes(path.read_bytes()[: 100 if content == "half" else None])
    message, hint = fail(capsys, "run", image, "-i", path)
    assert text in message
    assert "numpy.savez" in hint


@pytest.mark.parametrize("option", ["--output", "--trace"])
def test_outputs_do_not_replace_inputs(image, tmp_path, capsys, option):
    x = save(tmp_path / "x.npz", x=np.zeros(10, np.float32))
    for path in (x, image):
        assert "is a file that this command reads" in fail(capsys, "run", image, "-i", x, option, path)[0]


def test_a_device_is_written_to_and_not_replaced(image, tmp_path):
    link, pipe = tmp_path / "y.npz", tmp_path / "pipe"
    link.symlink_to("real.npz")
    assert run(image, "-o", link) == 0
    assert link.is_symlink()
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert run(image, "--trace", pipe) == 0
        assert json.loads(reader.stdout.read())["traceEvents"]
    assert pipe.is_fifo()


def test_full_disk_behind_stdout(image):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "tvm_ipu", "inspect", image],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert re.fullmatch(r"error: No space left on device\nhint: .*\n", done.stderr)


def test_missing_and_damaged_images(image, tmp_path, capsys):
    assert "none.img" in fail(capsys, "run", tmp_path / "none.img")[0]
    data = bytearray(image.read_bytes())
    data[70] ^= 1
    (tmp_path / "bad.img").write_bytes(data)
    for command in ("run", "inspect"):
        message, hint = fail(capsys, command, tmp_path / "bad.img")
        assert "bad.img" in message
        assert hint


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["onnxruntime", "gone.onnx"], "'gone.onnx' does not exist"),
        (["openvino", "text.onnx"], "not an ONNX model"),
        (["onnxruntime", "other.onnx"], "onnxruntime does not take other.onnx"),
        (["frob", "other.onnx"], "unknown runtime 'frob'"),
        ([",", "other.onnx"], "',' names no runtime"),
    ],
)
def test_bench_against_what_cannot_run(image, tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.onnx").write_text("text")
    specs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", specs[:1], specs[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "other.onnx"
    )
    message, hint = fail(capsys, "bench", image, "--against", *words)
    assert text in message
    assert hint


@pytest.mark.parametrize("words", [["run", "--print-time"], ["inspect"]], ids=lambda words: words[0])
def test_images_need_no_compiler(words, image):
    program = (
        "import sys\nfrom tvm_ipu.cli.main import main\n"
        f"assert main({[*words, str(image)]!r}) == 0\n"
        "print({'tvm', 'onnx', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_bench_compares_images_and_writes_json(image, tmp_path, capsys):
    words = ["bench", str(image), str(image), "--runs", "3", "--json", str(tmp_path / "r.json")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["sample.img", "sample.img"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report) == {"machine", "threads", "results"}
    assert [len(result["timing"]["samples"]) for result in report["results"]] == [3, 3]
    assert [result["difference"] for result in report["results"]] == [0, 0]
    assert report["results"][0]["ratio"] == 1


def test_bench_refuses_images_of_other_inputs(image, tmp_path, capsys):
    write_image(sample_program(30), tmp_path / "other.img")
    message, hint = fail(capsys, "bench", image, tmp_path / "other.img")
    assert "x: float32[30], not x: float32[10]" in message
    assert hint


def test_inspect_shows_what_the_image_holds(image, capsys):
    assert main(["inspect", str(image)]) == 0
    out = capsys.readouterr().out
    for text in ("x: float32[10]", "z: float32[1,20]", "/gather", "test-host", "Plan 1", "weights"):
        assert text in out
