"""Building the C runtime: cache, prebuilt files, other compilers, and what is said when none works."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_ipu.base.errors import ToolError
from tvm_ipu.base.target import Target
from tvm_ipu.runtime import build


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_PREBUILT_DIR", tmp_path / "none")
    return tmp_path / "cache"


def fake_compiler(folder: Path, body: str) -> build.Compiler:
    """A program in place of a C compiler."""
    folder.mkdir(exist_ok=True)
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return build.Compiler((str(path),), ("ar",), path)


def use(monkeypatch: pytest.MonkeyPatch, *compilers: build.Compiler) -> None:
    monkeypatch.setattr(build, "host_compilers", lambda: iter(compilers))


def touch_output(folder: Path) -> build.Compiler:
    """A compiler that appends a line to ``calls`` and makes an empty program."""
    script = f'echo call >> {folder}/calls\nwhile [ "$1" != -o ]; do shift; done\ntouch "$2"'
    return fake_compiler(folder, script)


def test_second_call_uses_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, touch_output(tmp_path / "a"))
    first = build.native_runner()
    assert first.is_relative_to(cache)
    assert build.native_runner() == first
    assert (tmp_path / "a" / "calls").read_text() == "call\n"
    assert [p.name for p in first.parent.iterdir()] == ["ipu-run"]


def test_other_sources_or_compiler_give_another_file(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = touch_output(tmp_path / "a")
    use(monkeypatch, compiler)
    first = build.native_library()
    copy = tmp_path / "native"
    shutil.copytree(build.SOURCE_DIR, copy)
    (copy / "pool.c").write_text("/* changed */")
    monkeypatch.setattr(build, "SOURCE_DIR", copy)
    second = build.native_library()
    compiler.program.write_text(compiler.program.read_text() + "# newer version\n")
    third = build.native_library()
    assert len({first, second, third}) == 3


def test_prebuilt_files_win(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prebuilt = tmp_path / "prebuilt"
    prebuilt.mkdir()
    (prebuilt / "libtvm_ipu.so").touch()
    monkeypatch.setattr(build, "_PREBUILT_DIR", prebuilt)
    use(monkeypatch)
    assert build.native_library() == prebuilt / "libtvm_ipu.so"
    with pytest.raises(ToolError):
        build.native_runner()


def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    with pytest.raises(ToolError, match="there is no C compiler") as caught:
        build.native_library()
    assert "install gcc" in caught.value.hint


def test_failing_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_compiler(tmp_path / "a", "echo no such header >&2; exit 1"))
    with pytest.raises(ToolError, match="failed: no such header"):
        build.native_library()
    assert not list(cache.rglob("*.so"))
    assert not list(cache.rglob("tmp*"))


def test_next_compiler_is_tried(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = fake_compiler(tmp_path / "a", "exit 1")
    use(monkeypatch, broken, touch_output(tmp_path / "b"))
    assert build.native_library().is_file()


def test_cache_that_cannot_be_written(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file in the way")
    use(monkeypatch, touch_output(tmp_path / "a"))
    with pytest.raises(ToolError, match="cannot build the runtime in") as caught:
        build.native_library()
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_runner_without_a_cross_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_zig", lambda *options: None)
    monkeypatch.setattr(build, "_gcc", lambda *options: None)
    target = Target(name="t", description="", arch="hexagon", triple="", zig_triple="hexagon-linux-musl")
    with pytest.raises(ToolError, match="no compiler can make a runner for target 't'") as caught:
        build.build_runner(target)
    assert "tvm_ipu[cross]" in caught.value.hint


def test_runner_by_the_cross_gcc(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def find(*arguments: str) -> build.Compiler:
        asked.append(arguments)
        return touch_output(tmp_path / "a")

    monkeypatch.setattr(build, "_zig", lambda *options: None)
    monkeypatch.setattr(build, "_gcc", find)
    target = Target(
        name="t", description="", arch="riscv64", triple="riscv64-unknown-linux-gnu", zig_triple=""
    )
    assert build.build_runner(target).name == "ipu-run"
    assert asked == [("riscv64-linux-gnu-gcc", "-static")]


def test_command_puts_all_three_into_a_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tvm_ipu.runtime.build", str(tmp_path)]
    subprocess.run(command, check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ipu-run", "libtvm_ipu.a", "libtvm_ipu.so"]
    assert subprocess.run([tmp_path / "ipu-run"], capture_output=True).returncode == 1
