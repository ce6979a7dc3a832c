"""Compilers and linkers of this machine: which there are, and which one builds code for a target."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tvm_ipu.base.errors import ToolError
from tvm_ipu.base.host import host_arch
from tvm_ipu.base.target import Target

_ARCH_FLAGS: dict[str, tuple[str, ...]] = {
    "arm": ("-marm", "-march=armv7-a", "-mfpu=neon", "-mfloat-abi=hard"),
    "riscv64": ("-march=rv64gc", "-mabi=lp64d"),
    "hexagon": ("-mcpu=hexagonv67",),
}
"""Flags of gcc and clang that fix the instruction set and the calling convention."""

_VECTOR_FLAGS = {512: ("-mavx512f",), 256: ("-mavx2",)}
"""By vector width: flags of gcc and clang for x86."""


@dataclass(frozen=True)
class Toolchain:
    """A C compiler and a linker that make code for one target.

    Attributes:
        name: What it is, for messages: ``gcc``, ``clang``, ``ziglang`` or a cross compiler's name.
        compiler: Command line to which sources and options are added.
        linker: Command line of a linker with GNU ld's options.
        program: File that changes when the tool is updated.
    """

    name: str
    compiler: tuple[str, ...]
    linker: tuple[str, ...]
    program: Path


@dataclass(frozen=True)
class Tool:
    """A program found on this machine.

    Attributes:
        name: Name it is called by.
        path: Where it was found.
        version: First line of what it says about itself; empty where it says nothing.
    """

    name: str
    path: str
    version: str


def find_toolchain(target: Target) -> Toolchain:
    """The best toolchain for ``target``: the machine's own compiler, a cross compiler, ziglang, or clang.

    Raises:
        ToolError: There is none.
    """
    found = next(toolchains(target), None)
    if found is None:
        native = target.arch == host_arch()
        cross = " or ".join(cross_prefixes(target))
        raise ToolError(
            f"no compiler and linker found for target '{target.name}'",
            "install gcc and binutils, or run: pip install 'tvm_ipu[cross]'"
            if native
            else f"run: pip install 'tvm_ipu[cross]' (or install {cross}gcc, or clang and lld)",
        )
    return found


def toolchains(target: Target) -> Iterator[Toolchain]:
    """All toolchains of this machine that make code for ``target``, best first."""
    flags = _ARCH_FLAGS.get(target.arch, ())
    if target.arch == "x86_64":
        flags = _VECTOR_FLAGS.get(target.vector_bits, ())
    prefixes = [""] if target.arch == host_arch() else []
    for prefix in prefixes + cross_prefixes(target):
        linker = shutil.which(f"{prefix}ld")
        for name in ("gcc", "cc", "clang"):
            compiler = shutil.which(prefix + name)
            if compiler and linker:
                yield Toolchain(prefix + name, (compiler, *flags), (linker,), Path(compiler).resolve())
    zig = find_zig()
    if zig and target.zig_triple:
        cpu = (f"-mcpu={target.zig_cpu}",) if target.zig_cpu else ("-mcpu=baseline",)
        compile_command = (*zig, "cc", "-target", target.zig_triple, *cpu)
        yield Toolchain("ziglang", compile_command, (*zig, "ld.lld"), Path(zig[0]))
    clang, lld = shutil.which("clang"), shutil.which("ld.lld")
    if clang and lld:
        command = (clang, f"--target={target.triple}", *flags)
        yield Toolchain("clang", command, (lld,), Path(clang).resolve())


def cross_prefixes(target: Target) -> list[str]:
    """Prefixes of cross compilers, such as ``aarch64-linux-gnu-``."""
    abi = target.triple.rsplit("-", 1)[-1]
    return [f"{target.arch}-linux-{abi}-", f"{target.triple}-"]


@cache
def find_zig() -> tuple[str, ...] | None:
    """Command line of the ``zig`` program of the package ziglang, or of the one in ``PATH``."""
    spec = importlib.util.find_spec("ziglang")
    if spec and spec.origin:
        program = Path(spec.origin).with_name("zig")
        if program.is_file():
            return (str(program),)
    found = shutil.which("zig")
    return (found,) if found else None


def run_tool(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a compiler or linker and return what it printed to standard output.

    Raises:
        ToolError: It cannot be started or failed; the message holds its first line that says why.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
    except OSError as err:
        raise ToolError(f"cannot run {command[0]}: {err.strerror or err}") from err
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
        raise ToolError(
            f"{Path(command[0]).name} failed: {reason.strip() or f'exit code {done.returncode}'}",
            f"the command was: {' '.join(command)}",
        )
    return done.stdout


def installed_tools(names: Sequence[str]) -> list[Tool]:
    """Those of the programs ``names`` that this machine has; ``zig`` may come from the package ziglang."""
    tools = []
    for name in names:
        path = shutil.which(name)
        command = (path,) if path else find_zig() if name == "zig" else None
        if command:
            tools.append(Tool(name, command[0], tool_version(command)))
    return tools


def tool_version(command: Sequence[str]) -> str:
    """First line that the program prints about its version; empty where it prints none."""
    option = "version" if Path(command[0]).name == "zig" else "--version"
    try:
        done = subprocess.run(
            [*command, option], capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "")
