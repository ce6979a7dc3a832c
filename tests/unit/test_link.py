from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.unit import link_kit as kit
from tvm_ipu.base import toolchain
from tvm_ipu.base.errors import ToolError
from tvm_ipu.base.host import detect_host, host_arch, read_host
from tvm_ipu.base.target import Target, load_target, target_names
from tvm_ipu.codegen.link import LinkedCode, link
from tvm_ipu.codegen.lower import compile_object

HOST = detect_host()
FOREIGN = [n for n in target_names() if load_target(n).arch != host_arch()]
OWN = [
    n for n in target_names() if read_host().features.issuperset(load_target(n).requires) and n not in FOREIGN
]
MACHINES = [*OWN, *(pytest.param(n, marks=[pytest.mark.qemu, pytest.mark.slow]) for n in FOREIGN)]

Runner = Callable[..., list[list[bytes]]]


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    return {}


@pytest.fixture
def run(runners: dict[tuple[str, ...], Path], tmp_path: Path) -> Runner:
    """Runs jobs on a target's machine; programs are built once per instruction set."""

    def execute(target: Target, code: bytes, jobs: list[kit.Job], *options: str) -> list[list[bytes]]:
        kit.need_qemu(target)
        key = (target.zig_triple, target.zig_cpu)
        if key not in runners:
            runners[key] = kit.build_runner(target, tmp_path)
        return kit.run_jobs(runners[key], code, jobs, target, tmp_path, *options)

    return execute


def check_cases(cases: list[kit.Case], target: Target, run: Runner) -> None:
    truncating = [case for case in cases if kit.truncates_vectors(case, target)]
    check_code([case for case in cases if case not in truncating], target, run)
    if truncating:
        check_code(truncating, target, run, truncate=True)


def check_code(cases: list[kit.Case], target: Target, run: Runner, truncate: bool = False) -> None:
    """With ``truncate``, conversions to integers take the rounding mode, which is set to truncation."""
    lowered = [case.lowered(target) for case in cases]
    code = link([compile_object(lowered, target)], target, [case.name for case in cases])
    jobs = []
    for case, kernel in zip(cases, lowered, strict=True):
        arguments = (*(x.tobytes() for x in case.inputs), bytes(case.expected.nbytes))
        jobs.append(kit.Job(code.symbols[case.name], case.extent, arguments, kernel.scratch_size))
    returned = (
        run(target, kit.convert_in_current_mode(code.code), jobs, "truncate")
        if truncate
        else run(target, code.code, jobs)
    )
    for case, arguments in zip(cases, returned, strict=True):
        case.check(arguments[-1])


@pytest.mark.parametrize("name", MACHINES)
def test_arithmetic_that_the_instruction_set_lacks(name: str, run: Runner) -> None:
    target = load_target(name)
    kit.need_qemu(target)
    check_cases(kit.arithmetic_cases(), target, run)


@pytest.mark.parametrize("name", MACHINES)
def test_rounding_to_integers(name: str, run: Runner) -> None:
    check_code(kit.requantise_cases(), load_target(name), run)


@pytest.mark.parametrize("name", MACHINES)
def test_copies_constants_and_tables(name: str, run: Runner) -> None:
    check_cases([*kit.memory_cases(), *kit.masked_index_cases()], load_target(name), run)


@pytest.mark.parametrize("name", MACHINES)
def test_memory_functions(name: str, run: Runner, tmp_path: Path) -> None:
    target = load_target(name)
    code = link_c(kit.NATIVE / "memory_kernels.c", target, tmp_path)
    rng = np.random.default_rng(5)
    data = rng.integers(0, 256, 5000, dtype="uint8")
    to, source = (rng.integers(0, 2000, 400).astype("uint32") for _ in range(2))
    to[:200] &= ~np.uint32(7)
    source[:200] &= ~np.uint32(7)
    size = rng.integers(0, 700, 400).astype("uint32")
    ranges = np.stack([to, source, size], axis=1)

    copied, moved, filled = np.zeros_like(data), data.copy(), data.copy()
    order = []
    for t, s, n in ranges.tolist():
        copied[t : t + n] = data[s : s + n]
        moved[t : t + n] = moved[s : s + n].copy()
        filled[t : t + n] = s % 256
        left, right = data[t : t + n].tobytes(), data[s : s + n].tobytes()
        order.append((left > right) - (left < right))

    table, zeros = ranges.tobytes(), bytes(data.nbytes)
    jobs = [
        kit.Job(code.symbols["copy"], 400, (zeros, data.tobytes(), table)),
        kit.Job(code.symbols["move"], 400, (data.tobytes(), table)),
        kit.Job(code.symbols["fill"], 400, (data.tobytes(), table)),
        kit.Job(code.symbols["compare"], 400, (data.tobytes(), table, bytes(1600))),
    ]
    results = run(target, code.code, jobs)
    assert [results[i][0] for i in range(3)] == [copied.tobytes(), moved.tobytes(), filled.tobytes()]
    assert np.frombuffer(results[3][2], "int32").tolist() == order


@pytest.mark.parametrize("name", target_names())
def test_every_toolchain_links_every_target_without_warnings(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    target = load_target(name)
    case = kit.matmul_case()
    compiled = compile_object([case.lowered(target)], target)
    for tools in toolchain.toolchains(target):
        code = link([compiled], target, [case.name], tools)
        assert case.name in code.symbols
        assert 0 < len(code.code) < 16384
    assert capfd.readouterr().err == ""


def test_code_of_every_toolchain_runs(run: Runner) -> None:
    case = kit.matmul_case()
    lowered = case.lowered(HOST)
    compiled = compile_object([lowered], HOST)
    for tools in toolchain.toolchains(HOST):
        code = link([compiled], HOST, [case.name], tools)
        arguments = (*(x.tobytes() for x in case.inputs), bytes(case.expected.nbytes))
        (result,) = run(HOST, code.code, [kit.Job(code.symbols[case.name], case.extent, arguments)])
        case.check(result[-1])


def test_a_range_of_units(run: Runner) -> None:
    case = kit.matmul_case()
    code = link([compile_object([case.lowered(HOST)], HOST)], HOST)
    arguments = (*(x.tobytes() for x in case.inputs), bytes(case.expected.nbytes))
    (result,) = run(HOST, code.code, [kit.Job(code.symbols[case.name], 5, arguments)])
    expected = case.expected.copy()
    expected[5:] = 0
    dataclasses.replace(case, expected=expected).check(result[-1])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("float expf(float); int f(void) { return (int)expf(2); }", r"does not have: expf"),
        ("static int count; int f(void) { return count++; }", r"outside its constants: 'count'"),
        ("static int seen = 3; int f(void) { return seen++; }", r"outside its constants: 'seen'"),
        (
            "int f(int); int g(int); int (*const volatile table[])(int) = {f, g};"
            "int f(int x) { return x; } int g(int x) { return table[x](x); }",
            r"not position-independent: R_\w+",
        ),
        ("int g(void) { return 1; }", r"lacks the kernels f"),
    ],
)
@pytest.mark.parametrize("name", ["host", "aarch64-neon", "armv7-neon", "riscv64", "hexagon-v67"])
def test_code_that_needs_more_than_an_image_has(name: str, source: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "kernel.c"
    path.write_text(source)
    with pytest.raises(ToolError, match=message):
        link_c(path, load_target(name), tmp_path, ["f"])


def test_a_failing_linker(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"ld.* failed: .*0\.o"):
        link([b"not an object"], HOST)


def test_no_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(toolchain, "find_zig", lambda: None)
    with pytest.raises(ToolError, match=r"target 'riscv64'.*tvm_ipu\[cross\].*riscv64-linux-gnu-"):
        link([], load_target("riscv64"))
    with pytest.raises(ToolError, match=r"install gcc and binutils"):
        link([], HOST)


def test_support_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    link([], HOST)
    (made,) = (tmp_path / "tvm_ipu").iterdir()
    before = made.stat().st_mtime_ns
    link([], HOST)
    assert [f.stat().st_mtime_ns for f in (tmp_path / "tvm_ipu").iterdir()] == [before]


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ToolError, match="cannot write to"):
        link([], HOST)


def link_c(source: Path, target: Target, folder: Path, kernels: list[str] | None = None) -> LinkedCode:
    options = [
        "-c",
        "-O2",
        "-fPIC",
        "-ffreestanding",
        "-fno-unwind-tables",
        "-fno-asynchronous-unwind-tables",
    ]
    command = [*toolchain.find_toolchain(target).compiler, *options, str(source), "-o", str(folder / "c.o")]
    subprocess.run(command, check=True)
    return link([(folder / "c.o").read_bytes()], target, kernels or ["copy", "move", "fill", "compare"])
