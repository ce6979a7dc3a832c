"""The command line's frame: spelling of options, messages, exit codes, and what is imported when."""

import errno
import os
import re
import subprocess
import sys

import pytest

from tvm_ipu.base.errors import ModelError
from tvm_ipu.cli import targets
from tvm_ipu.cli.main import COMMANDS, build_parser, main, normalise


def fail_with(monkeypatch, error):
    def execute(args):
        raise error

    monkeypatch.setattr(targets, "execute", execute)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--dump_ir", "--dump-ir"),
        ("--input_shapes=my_data:[1,3]", "--input-shapes=my_data:[1,3]"),
        ("my_model.onnx", "my_model.onnx"),
        ("-v", "-v"),
    ],
)
def test_option_words_may_be_joined_by_either_sign(given, meant):
    assert normalise([given]) == [meant]


@pytest.mark.parametrize("option", ["--target", "--soc_version", "--ipu-version", "-t"])
def test_target_has_the_names_of_other_toolchains(option):
    assert (
        build_parser(["compile"]).parse_args(["compile", "m.onnx", *normalise([option]), "x"]).target == "x"
    )


def test_input_shapes_of_all_options_are_collected():
    words = ["compile", "m.onnx", "--input-shapes", "a:[1,2] b:[3]", "--input-shape", "c:0=4", "d=5,6"]
    assert build_parser(["compile"]).parse_args(words).input_shapes == ["a:[1,2] b:[3]", "c:0=4", "d=5,6"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["compile"], "MODEL"),
        (["compile", "m.onnx", "--precision", "fp8"], "'fp8'"),
        (["compile", "m.onnx", "--batch", "1,x"], "'1,x' is not a list of numbers"),
        (["compile", "m.onnx", "--batch", "0"], "0 is less than 1"),
        (["compile", "m.onnx", "--frob", "1"], "--frob"),
        (["convert", "-o", "x.onnx"], "give one model"),
    ],
)
def test_wrong_command_line_is_one_message_and_a_hint(words, message, capsys):
    assert main(words) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(r"error: .*\n(hint: .*\n)?", err)
    assert message in err


def test_user_error_prints_message_and_hint_without_traceback(monkeypatch, capsys):
    fail_with(monkeypatch, ModelError("net.onnx: not an ONNX file", "give another"))
    assert main(["targets"]) == 1
    assert capsys.readouterr().err == "error: net.onnx: not an ONNX file\nhint: give another\n"


@pytest.mark.parametrize("words", [["-v", "targets"], ["targets", "--verbose"]])
def test_verbose_adds_the_traceback(words, monkeypatch, capsys):
    fail_with(monkeypatch, ModelError("broken"))
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: broken\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "out.img"),
            "error: out.img: No space left on device\nhint: free",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.npz"), "error: a.npz: No such file"),
        (MemoryError(), "error: not enough memory\nhint: "),
        (KeyError("x"), "error: internal error: KeyError: 'x'\nhint: this is a mistake in tvm_ipu"),
    ],
)
def test_other_exceptions_become_messages(error, text, monkeypatch, capsys):
    fail_with(monkeypatch, error)
    assert main(["targets"]) == 1
    assert capsys.readouterr().err.startswith(text)


def test_interrupt_is_silent(monkeypatch, capsys):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["targets"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "code"), [("x86-64-v3", 141), ("no-such-target", 1)])
def test_reader_that_goes_away_is_no_error(name, code):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tvm_ipu", "targets", name]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == code
    assert done.stderr.startswith("error: unknown target" if code == 1 else "")
    assert "Broken pipe" not in done.stderr


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_no_compiler(words):
    program = (
        "import sys\nfrom tvm_ipu.cli.main import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "print([m for m in ('tvm', 'onnx', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert re.fullmatch(r"tvm-ipu \d+\.\d+\.\d+\n", capsys.readouterr().out)
