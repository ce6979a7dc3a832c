"""The C library, its headers and the examples, built with sanitizers and run on small images."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.image.conftest import NATIVE_TESTS, WARNINGS, Builder
from tests.image.image_kit import sample_program
from tvm_ipu.image.writer import write_image
from tvm_ipu.runtime.build import SOURCE_DIR, native_library, native_static_library

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout


def test_c_api_under_address_and_undefined_sanitizers(build_c: Builder, sample: Path) -> None:
    assert run(build_c(NATIVE_TESTS / "api.c", *ADDRESS), sample) == "ok\n"


def test_every_flip_and_truncation_under_address_sanitizer(build_c: Builder, tmp_path: Path) -> None:
    path = tmp_path / "small.img"
    write_image(sample_program(40), path)
    report = run(build_c(NATIVE_TESTS / "damage.c", *ADDRESS), path)
    refused, harmless, truncations = map(int, re.findall(r"\d+", report))
    assert refused + harmless == 3 * path.stat().st_size
    assert truncations == path.stat().st_size
    assert refused > 3 * 2000  # header, tables, code and constants


def test_runner_under_address_and_undefined_sanitizers(
    build_c: Builder, sample: Path, tmp_path: Path
) -> None:
    """All that ``ipu-run`` prints and writes; leaks count as errors, after a failure too."""
    program = build_c(SOURCE_DIR / "ipu_run.c", *ADDRESS)
    np.ones(2000, np.float32).tofile(tmp_path / "x.bin")
    every = ("--threads", 2, "--warmup", 1, "--repeat", 3, "--print-time", "--profile", "--verify")
    files = ("--inputs", tmp_path / "x.bin", "--output", tmp_path)
    assert "/gather" in run(program, sample, "--plan", 1, *every, *files)
    assert np.fromfile(tmp_path / "output_0.bin", np.float32)[7] == 2 * (1 + 7)
    assert run(program, sample, "--list").startswith("input 0  x  float32[1000]")
    for wrong in ((tmp_path / "x.bin",), (sample, "--plan", 9), (sample, *files), (sample, "--bogus")):
        done = subprocess.run([str(c) for c in (program, *wrong)], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Sanitizer" not in done.stderr


def test_sessions_in_threads_under_thread_sanitizer(build_c: Builder, sample: Path) -> None:
    assert run(build_c(NATIVE_TESTS / "threads.c", "-fsanitize=thread"), sample) == "ok\n"


@pytest.mark.parametrize("flags", [("-fsanitize=thread",), ADDRESS])
def test_units_of_a_job_are_done_once(build_c: Builder, flags: tuple[str, ...]) -> None:
    assert run(build_c(NATIVE_TESTS / "pool.c", *flags)) == "ok\n"


def test_nothing_is_allocated_by_a_run(build_c: Builder, sample: Path) -> None:
    assert run(build_c(NATIVE_TESTS / "allocations.c"), sample) == "ok\n"


def test_cpp_header(build_c: Builder, sample: Path) -> None:
    assert run(build_c(NATIVE_TESTS / "api.cpp", *ADDRESS), sample) == "ok\n"


def build_example(source: Path, compiler: str, library: Path, program: Path) -> Path:
    """Build an example as its first comment says, with the given compiler and library."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    standard = "-std=c11" if source.suffix == ".c" else "-std=c++17"
    options = (standard, *WARNINGS, "-pthread", f"-Wl,-rpath,{library.parent}")
    subprocess.run([compiler, *options, f"-I{SOURCE_DIR}", source, library, "-o", program], check=True)
    return program


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_example_in_c(compiler: str, sample: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.bin"
    np.zeros(1000, np.float32).tofile(picture)
    library = native_static_library()
    program = build_example(EXAMPLES / "c" / "classify.c", compiler, library, tmp_path / "classify")
    assert run(program, sample, picture).splitlines()[:2] == ["class 999: 1998", "class 998: 1996"]
    picture.write_bytes(b"")
    done = subprocess.run([program, sample, picture], capture_output=True, text=True)
    assert done.returncode == 1
    assert "expected 4000 bytes" in done.stderr


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_example_in_cpp(compiler: str, sample: Path, tmp_path: Path) -> None:
    library = native_library()
    program = build_example(EXAMPLES / "cpp" / "profile.cpp", compiler, library, tmp_path / "profile")
    report = run(program, sample, 2)
    assert report.startswith("fastest of ten runs: ")
    assert sorted(line.split()[-1] for line in report.splitlines()[1:]) == ["/add", "/gather", "/twice"]


@pytest.mark.parametrize("library", [native_library, native_static_library])
def test_library_is_small(library) -> None:
    assert library().stat().st_size < 300_000


def test_library_exports_the_public_functions_only() -> None:
    listing = run("nm", "-D", "--defined-only", native_library()).splitlines()
    exported = {line.split()[-1] for line in listing}
    declared = set(re.findall(r"\b(tvm_ipu_\w+)\(", (SOURCE_DIR / "tvm_ipu.h").read_text()))
    assert exported == declared


def test_library_keeps_no_state() -> None:
    """No object of the library lies in writable memory."""
    listing = run("objdump", "-t", native_static_library())
    assert re.search(r" O \.data\.rel\.ro", listing)  # tables of names, constant once they are relocated
    assert not re.search(r" O (\.data|\.bss|\*COM\*|\.tdata|\.tbss)\s", listing)
