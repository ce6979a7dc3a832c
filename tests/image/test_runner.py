"""``ipu-run``: results, listing, times, and exit code 1 with a message for everything that is wrong."""

from __future__ import annotations

import re
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.image.image_kit import elementwise_program, sample_program, sample_result
from tvm_ipu.base.tensor import DType
from tvm_ipu.image.writer import write_image
from tvm_ipu.runtime.build import native_runner


def ipu_run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [str(native_runner()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize("threads", [1, 3])
def test_inputs_and_outputs(sample: Path, tmp_path: Path, threads: int) -> None:
    x = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    x.tofile(tmp_path / "x.bin")
    done = ipu_run(
        sample, "--inputs", tmp_path / "x.bin", "--output", tmp_path, "--threads", threads, "--verify"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for index, expected in enumerate(sample_result(x).values()):
        found = np.fromfile(tmp_path / f"output_{index}.bin", np.float32)
        np.testing.assert_allclose(found, expected.ravel(), rtol=1e-6)


def test_plan_and_list(sample: Path) -> None:
    done = ipu_run(sample, "--list", "--plan", 1)
    assert done.stdout.splitlines() == [
        "input 0  x  float32[2000]  8000 bytes",
        "output 0  y  float32[2000]  8000 bytes",
        "output 1  z  float32[1,2000]  8000 bytes",
    ]


def test_zeros(sample: Path, tmp_path: Path) -> None:
    assert ipu_run(sample, "--fill", "zeros", "--output", tmp_path).returncode == 0
    np.testing.assert_array_equal(np.fromfile(tmp_path / "output_0.bin", np.float32), 2.0 * np.arange(1000))


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16, DType.INT16])
def test_random_16_bit_inputs(tmp_path: Path, dtype: DType) -> None:
    path = tmp_path / "copy.img"
    write_image(elementwise_program("copy16", dtype, (4096,)), path)
    assert ipu_run(path, "--output", tmp_path).returncode == 0
    bits = np.fromfile(tmp_path / "output_0.bin", np.uint16)
    assert len(np.unique(bits)) > 200
    if dtype is DType.FLOAT16:
        values = bits.view(np.float16).astype(np.float64)
        assert ((values >= 0) & (values < 1)).all()
        assert 0.45 < values.mean() < 0.55
        np.testing.assert_array_equal(values * 1024, np.round(values * 1024))


def test_times(sample: Path) -> None:
    done = ipu_run(sample, "--print-time", "--repeat", 50, "--warmup", 3)
    assert done.returncode == 0
    ready, titles, values, peak = done.stdout.splitlines()
    assert 0 < float(re.fullmatch(r"ready after ([\d.]+) ms", ready)[1]) < 1000
    assert titles.replace("(ms)", "").split() == ["mean", "median", "max", "min", "std", "first"]
    mean, median, largest, smallest, deviation, first = map(float, values.split())
    assert smallest <= median <= largest
    assert smallest <= mean <= largest
    assert smallest <= first <= largest
    assert deviation <= largest - smallest
    assert 0.5 < float(re.fullmatch(r"peak memory: ([\d.]+) MB", peak)[1]) < 30


def test_profile(sample: Path) -> None:
    lines = ipu_run(sample, "--profile", "--repeat", 5).stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["/add", "/twice", "/gather"]
    shares = [float(line.split()[1].rstrip("%")) for line in lines[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.img"], "missing.img: cannot open the image: No such file or directory"),
        (["{sample}", "--plan", "7"], "there is no plan 7; the image has 2"),
        (["{sample}", "--threads", "257"], "257 threads; allowed are 1 to 256"),
        (["{sample}", "--threads", "0"], "wrong value of --threads"),
        (["{sample}", "--repeat", "-1"], "wrong value of --repeat"),
        (["{sample}", "--repeat", "2x"], "wrong value of --repeat"),
        (["{sample}", "--repeat"], "wrong value of --repeat"),
        (["{sample}", "--fill", "ones"], "wrong value of --fill"),
        (["{sample}", "--output"], "wrong value of --output"),
        (["{sample}", "--bogus", "1"], "unknown option --bogus"),
        (["{sample}", "another"], "more than one image: another"),
        (["{sample}", "--inputs"], "no file after --inputs"),
        (["{sample}", "--inputs", "a", "b"], "--inputs needs one file for each input of the image"),
        (["{sample}", "--inputs", "missing.bin"], "cannot open input file missing.bin"),
        (["{sample}", "--inputs", "/etc/passwd"], "input file has not the bytes that the input needs"),
        (["{sample}", "--output", "missing"], "cannot create missing/output_0.bin"),
        (["/etc/passwd"], "/etc/passwd: not an offline image"),
        ([], "usage: ipu-run IMAGE"),
    ],
)
def test_wrong_arguments(sample: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = ipu_run(*(a.format(sample=sample) for a in arguments), cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_kernel_failure(tmp_path: Path) -> None:
    path = tmp_path / "broken.img"
    write_image(elementwise_program("broken", DType.INT16, (4,)), path)
    done = ipu_run(path)
    assert done.returncode == 1
    assert "error: layer '/broken' (kernel broken) failed with code 7" in done.stderr


def test_unknown_cpu_feature_can_be_waved_through(tmp_path: Path) -> None:
    path = tmp_path / "future.img"
    write_image(sample_program(40, requires=("no-such",)), path)
    done = ipu_run(path)
    assert done.returncode == 1
    assert "CPU feature 'no-such'" in done.stderr
    assert "hint: update tvm_ipu" in done.stderr
    assert ipu_run(path, "--no-cpu-check").returncode == 0


def test_report_that_cannot_be_written(sample: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [str(native_runner()), str(sample), "--list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: cannot write the report\nhint: is the disk full?\n")


def test_disk_full_leaves_no_partial_output(sample: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = ipu_run(sample, "--output", tmp_path, preexec_fn=limit, restore_signals=False)
    assert done.returncode == 1
    assert "hint: is the disk full?" in done.stderr
    assert not list(tmp_path.iterdir())
