"""Images and runners for other machines, run under qemu-user, give the same bytes as numpy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.image.conftest import C_FLAGS, NATIVE_TESTS, WARNINGS
from tests.image.image_kit import sample_program, sample_result
from tvm_ipu.base.program import Program
from tvm_ipu.base.target import load_target, target_names
from tvm_ipu.image.writer import write_image
from tvm_ipu.runtime.build import SOURCE_DIR, build_runner

TARGETS = [name for name in target_names() if load_target(name).zig_triple and load_target(name).qemu]
pytestmark = [pytest.mark.qemu, pytest.mark.slow]


def cross_compiler(name: str) -> tuple[str, ...]:
    """Command line of a C compiler for target ``name``."""
    target = load_target(name)
    cpu = (f"-mcpu={target.zig_cpu}",) if target.zig_cpu else ()
    return sys.executable, "-m", "ziglang", "cc", "-target", target.zig_triple, *cpu


def cross_program(name: str, label: str = "") -> Program:
    """The sample program with its kernels compiled for target ``name``; the image may call it ``label``."""
    target = load_target(name)
    fields = ("arch", "triple", "cpu", "features", "requires", "pointer_bits")
    facts = {field: getattr(target, field) for field in fields}
    return sample_program(compiler=cross_compiler(name), name=label or name, **facts)


def emulate(name: str, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a program of target ``name``."""
    qemu = load_target(name).qemu
    if not shutil.which(qemu[0]):
        pytest.fail(f"{qemu[0]} is not installed: apt-get install qemu-user")
    return subprocess.run([*qemu, *map(str, command)], capture_output=True, text=True, timeout=120)


def run(name: str, image: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``ipu-run`` of target ``name``."""
    return emulate(name, build_runner(load_target(name)), image, *arguments)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("threads", [1, 3])
def test_sample_under_qemu(name: str, threads: int, tmp_path: Path) -> None:
    path = tmp_path / "cross.img"
    write_image(cross_program(name), path)
    x = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    x.tofile(tmp_path / "x.bin")
    files = "--inputs", tmp_path / "x.bin", "--output", tmp_path
    done = run(name, path, *files, "--threads", threads, "--repeat", 3, "--print-time")
    assert done.returncode == 0, done.stderr
    assert "ready after" in done.stdout
    for index, expected in enumerate(sample_result(x).values()):
        found = np.fromfile(tmp_path / f"output_{index}.bin", np.float32)
        np.testing.assert_allclose(found, expected.ravel(), rtol=1e-6)


@pytest.mark.parametrize("name", TARGETS)
def test_c_api_under_qemu(name: str, tmp_path: Path) -> None:
    """The program of test_native.py, which also runs code from a copy: that needs the caches flushed."""
    image, program = tmp_path / "cross.img", tmp_path / "api"
    write_image(cross_program(name, "test-host"), image)
    runtime = [f for f in SOURCE_DIR.glob("*.c") if f.name != "ipu_run.c"]
    command = [*cross_compiler(name), "-static", *C_FLAGS, *WARNINGS, f"-I{SOURCE_DIR}", "-o", program]
    subprocess.run([*command, NATIVE_TESTS / "api.c", *runtime], check=True)
    done = emulate(name, program, image)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_image_of_another_machine_is_refused(sample: Path) -> None:
    done = run("aarch64-neon", sample)
    assert done.returncode == 1
    assert "made for target test-host" in done.stderr
    assert "this machine is aarch64, 64 bits" in done.stderr


def test_file_beyond_the_addresses_of_32_bits(sample: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.img"
    path.write_bytes(sample.read_bytes())
    with path.open("r+b") as file:
        file.truncate(3 << 30)  # sparse
    done = run("armv7-neon", path)
    assert done.returncode == 1
    assert f"{path}: 3221225472 bytes do not fit the addresses of this process" in done.stderr


def test_missing_feature_is_refused_under_qemu(tmp_path: Path) -> None:
    path = tmp_path / "v.img"
    write_image(cross_program("riscv64-v"), path)
    done = emulate(
        "riscv64", build_runner(load_target("riscv64-v")), path
    )  # the same machine without vectors
    assert done.returncode == 1
    assert "needs the CPU feature 'v', which this machine does not have" in done.stderr
