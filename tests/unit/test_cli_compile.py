"""``compile`` and ``convert`` from the command line: a model that works, and every mistake of the user's."""

import os
import re
import signal
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.image.image_kit import sample_program
from tests.unit.link_kit import matmul_case
from tvm_ipu.base.target import load_target
from tvm_ipu.cli.main import main
from tvm_ipu.codegen.lower import compile_object
from tvm_ipu.image.writer import write_image

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3)).astype(np.float32)


def save_model(path, nodes, inputs, outputs, constants=(), opset=17):
    def values(specs):
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in specs.items()
        ]

    initializers = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "net", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


MINE = """
import tvm

number = 3


def none(module):
    return None


def empty(module):
    return tvm.IRModule({})


def fails(module):
    raise ValueError("oh")
"""


@pytest.fixture
def dense(tmp_path):
    """relu(x @ WEIGHT) with an open batch dimension."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "dense"),
        helper.make_node("Relu", ["h"], ["y"], "act"),
    ]
    return save_model(tmp_path / "dense.onnx", nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": WEIGHT})


@pytest.fixture
def static(tmp_path):
    """The same for two rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "dense"),
        helper.make_node("Relu", ["h"], ["y"], "act"),
    ]
    return save_model(tmp_path / "static.onnx", nodes, {"x": [2, 4]}, {"y": [2, 3]}, {"w": WEIGHT})


def run_image(image, x, *words):
    """Output ``y`` of an image run from the command line."""
    source, result = image.with_name("in.npz"), image.with_name("out.npz")
    np.savez(source, x=x)
    assert main(["run", str(image), "--inputs", str(source), "--output", str(result), *words]) == 0
    with np.load(result) as outputs:
        return dict(outputs)


def fail(capsys, *words):
    """Message and hint of a command that must fail."""
    assert main([str(word) for word in words]) == 1
    err = capsys.readouterr().err
    match = re.fullmatch(r"error: (.*?)\n(?:hint: (.*)\n)?", err, re.DOTALL)
    assert match, err
    assert "internal error" not in err
    return match[1], match[2] or ""


@pytest.mark.parametrize("shapes", ["x:[5,4]", "x=5,4", "5,4"])
def test_shapes_in_every_form_make_the_same_image(dense, tmp_path, shapes, capsys):
    image = tmp_path / "m.img"
    assert main(["compile", str(dense), "--target", "host", "--input_shapes", shapes, "-o", str(image)]) == 0
    assert "x: float32[5,4] -> y: float32[5,3]" in capsys.readouterr().out
    x = RNG.standard_normal((5, 4)).astype(np.float32)
    expected = np.maximum(x.astype(np.float64) @ WEIGHT, 0)
    np.testing.assert_allclose(run_image(image, x)["y"], expected, rtol=1e-5, atol=1e-6)


def test_batches_become_plans(dense, tmp_path):
    image = tmp_path / "m.img"
    words = ["--input-shapes", "x:[1,4]", "--batch", "1,3", "--output", str(image)]
    assert main(["compile", str(dense), *words]) == 0
    for n in (1, 3):
        x = RNG.standard_normal((n, 4)).astype(np.float32)
        expected = np.maximum(x.astype(np.float64) @ WEIGHT, 0)
        np.testing.assert_allclose(run_image(image, x)["y"], expected, rtol=1e-5, atol=1e-6)


def test_outputs_can_be_chosen(static, tmp_path):
    image = tmp_path / "m.img"
    assert main(["compile", str(static), "--outputs", "h", "-o", str(image)]) == 0
    x = RNG.standard_normal((2, 4)).astype(np.float32)
    outputs = run_image(image, x)
    assert list(outputs) == ["h"]
    np.testing.assert_allclose(outputs["h"], x.astype(np.float64) @ WEIGHT, rtol=1e-5, atol=1e-6)


def test_dump_and_user_pass(static, tmp_path, monkeypatch):
    (tmp_path / "my_pass.py").write_text(
        "seen = []\ndef note(module):\n    seen.append(module)\n    return module\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = [
        "--pass",
        "my_pass:note",
        "--dump-ir",
        str(tmp_path / "ir"),
        "--verify",
        "-o",
        str(tmp_path / "m.img"),
    ]
    assert main(["compile", str(static), *words]) == 0
    assert len(sys.modules.pop("my_pass").seen) == 1
    assert any("matmul" in file.read_text() for file in (tmp_path / "ir").glob("*.py"))


def test_convert_fixes_the_shapes(dense, tmp_path):
    result = tmp_path / "fixed.onnx"
    words = [
        "--input_model",
        dense,
        "--output_model",
        result,
        "--input_shape",
        "x=5,4",
        "--convert_version",
        "13",
    ]
    assert main(["convert", *map(str, words)]) == 0
    model = onnx.load(result)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [5, 4]
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [13]


def test_batch_fixes_an_open_dimension(dense, tmp_path, capsys):
    result = tmp_path / "fixed.onnx"
    assert main(["convert", str(dense), "--batch", "3", "--output-model", str(result)]) == 0
    assert [d.dim_value for d in onnx.load(result).graph.input[0].type.tensor_type.shape.dim] == [3, 4]
    assert main(["inspect", str(dense), "--batch", "3"]) == 0
    assert re.search(r"MatMul +1 +36 +72", capsys.readouterr().out)  # 3 * 4 * 3 products


def test_inspect_counts_the_work_of_a_model(static, capsys):
    assert main(["inspect", str(static)]) == 0
    out = capsys.readouterr().out
    for text in ("x: float32[2,4]", "y: float32[2,3]", "MatMul", "Relu"):
        assert text in out


@pytest.mark.parametrize("command", ["compile", "inspect", "convert"])
@pytest.mark.parametrize("content", [None, b"", b"not a model", "truncated"])
def test_unreadable_models(dense, tmp_path, capsys, command, content):
    path = tmp_path / "bad.onnx"
    if content == "truncated":
        content = dense.read_bytes()[:-20]
    if content is not None:
        path.write_bytes(content)
    output = [] if command == "inspect" else ["-o", tmp_path / "out"]
    message, hint = fail(capsys, command, path, *output)
    assert "bad.onnx" in message
    assert hint
    assert not (tmp_path / "out").exists()


def test_unknown_operators_are_listed_at_once(tmp_path, capsys):
    nodes = [
        helper.make_node("Frob", ["x"], ["a"], "first", domain="acme"),
        helper.make_node("Relu", ["a"], ["b"], "fine"),
        helper.make_node("Twist", ["b"], ["y"], "second", domain="acme"),
    ]
    path = save_model(tmp_path / "m.onnx", nodes, {"x": [2]}, {"y": [2]})
    text = " ".join(fail(capsys, "compile", path, "-o", tmp_path / "out"))
    assert all(word in text for word in ("acme.Frob 'first'", "acme.Twist 'second'"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        ([helper.make_node("Add", ["x", "gone"], ["y"], "sum")], "tensor 'gone', input of node 'sum'"),
        ([helper.make_node("Softmax", ["x"], ["y"], "soft", axis=7)], "node 'soft' (Softmax)"),
        ([helper.make_node("NonZero", ["x"], ["y"], "found")], "NonZero 'found'"),
    ],
)
def test_wrong_models_are_explained(tmp_path, capsys, nodes, text):
    path = save_model(tmp_path / "m.onnx", nodes, {"x": [2]}, {"y": [2]})
    message, hint = fail(capsys, "compile", path, "-o", tmp_path / "out")
    assert text in message
    assert hint


def test_convert_does_not_write_over_its_model(static, capsys):
    before = static.read_bytes()
    assert "is a file that this command reads" in fail(capsys, "convert", static, "-o", static)[0]
    assert static.read_bytes() == before


def test_code_generation_needs_no_space_for_temporary_files(static, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))  # LLVM would end the process
    target = load_target("host")
    assert compile_object([matmul_case().lowered(target)], target).startswith(b"\x7fELF")


def test_open_dimension_asks_for_a_shape(dense, tmp_path, capsys):
    message, hint = fail(capsys, "compile", dense, "-o", tmp_path / "out")
    assert "x" in message
    assert "--input-shapes" in message + hint


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--target", "z80"], ["'z80'", "host, aarch64-dotprod"]),
        (["--input-shapes", "data:[2,4]"], ["data", "x"]),
        (["--input-shapes", "x:[2,4,1]"], ["x"]),
        (["--input-shapes", "x:[2,"], ["x:[2,"]),
        (["--outputs", "nothing"], ["nothing"]),
        (["--pass", "no_such_module:f"], ["no_such_module"]),
        (["--pass", "math"], ["module:function"]),
        (["--pass", "mine:number"], ["'mine:number' is not a function but a int", "getting-started"]),
        (["--pass", "mine:none"], ["'mine:none' returned NoneType"]),
        (["--pass", "mine:empty"], ["returned a module without 'main'"]),
        (["--pass", "mine:fails"], ["'mine:fails' failed: ValueError: oh", "-v"]),
        (["--pass", "broken:f"], ["cannot import module 'broken': SyntaxError"]),
        (["--target", "x86-64-v33"], ["did you mean x86-64-v3"]),
        (["--taget", "host"], ["--taget", "did you mean --target?", "compile --help"]),
        (["--outputs", ","], ["',' names nothing"]),
        (["--input-shapes", "x=99999999999,4"], ["above 2147483647"]),
        (["--max-error", "nan"], ["nan is not a number of at least 0"]),
        (["--weight-file", "w.bin"], ["a model of ONNX has its weights inside"]),
        (["--dump-ir", "mine.py"], ["'mine.py' is a file", "name a folder"]),
        (["--output", "mine.py/m.img"], ["mine.py/m.img", "is a file", "should be a folder"]),
        (["--output", "dense.onnx"], ["--output: 'dense.onnx' is a file that this command reads"]),
        (["--output", "/dev/full"], ["/dev/full", "No space left on device", "free some space"]),
        (["--output", "missing/m.img"], ["missing/m.img", "there is no folder 'missing'"]),
    ],
)
def test_wrong_options_are_named(dense, tmp_path, monkeypatch, capsys, words, texts):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("def f(module:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = dense.read_bytes()
    shapes = [] if "--input-shapes" in words else ["--input-shapes", "x:[2,4]"]
    message, hint = fail(capsys, "compile", dense, *shapes, *words)
    for module in ("mine", "broken"):
        sys.modules.pop(module, None)
    assert all(part in f"{message} {hint}" for part in texts), (message, hint)
    assert dense.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} - {"__pycache__"} == {
        "dense.onnx",
        "mine.py",
        "broken.py",
    }


def test_full_disk_leaves_nothing_behind(static, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    program = """
        mount -t tmpfs -o size=4k none "$1" || exit 77
        shift
        "$@"
        code=$?
        ls -A "$DISK" >&2
        exit $code
    """
    command = [*mount, "sh", "-c", program, "sh", disk, sys.executable, "-m", "tvm_ipu", "compile", static]
    done = subprocess.run(
        [*command, "-o", disk / "m.img"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "DISK": str(disk)},
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this user cannot mount a file system of its own")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*m\.img.*No space left on device\nhint: .*space.*\n", done.stderr), (
        done.stderr
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"arch": "riscv64" if os.uname().machine != "riscv64" else "x86_64"}, "riscv64"),
        ({"requires": ("no-such-feature",)}, "no-such-feature"),
    ],
)
def test_image_for_another_machine(tmp_path, capsys, change, text):
    path = tmp_path / "m.img"
    write_image(sample_program(10, **change), path)
    assert text in fail(capsys, "run", path)[0]


def test_image_of_a_newer_version(tmp_path, capsys):
    path = tmp_path / "m.img"
    write_image(sample_program(10), path)
    data = bytearray(path.read_bytes())
    data[8] += 1  # version_major, the field after the magic number
    path.write_bytes(data)
    for command in ("run", "inspect"):
        message, hint = fail(capsys, command, path)
        assert "2.0" in message
        assert hint


def test_interrupt_is_silent_and_leaves_nothing_behind(tmp_path):
    sizes = range(8, 72)
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"], f"layer{n}") for n in sizes]
    weights = {f"w{n}": np.zeros((n, n + 1), np.float32) for n in sizes}
    path = save_model(tmp_path / "deep.onnx", nodes, {"x8": [1, 8]}, {"x72": [1, 72]}, weights)
    folder = tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-m", "tvm_ipu", "compile", path, "-v", "-o", folder / "m.img"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        steps = []
        while not steps or "code generation" not in steps[-1]:
            steps.append(process.stderr.readline())
            assert steps[-1], steps
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert not list(folder.iterdir())
