"""Build the C runtime: shared and static library and the runner ``ipu-run``, once per user and compiler.

A wheel may ship the three files ready made in ``_native``; those are then used and no compiler is needed.
``python -m tvm_ipu.runtime.build DIR`` puts them into a folder.

Every session passes through here, so modules that only a build needs are imported where they are used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.cache import cache_dir
from tvm_ipu.base.errors import ToolError

if TYPE_CHECKING:
    from tvm_ipu.base.target import Target

SOURCE_DIR = Path(__file__).resolve().parent / "native"
"""The C sources and the public headers ``tvm_ipu.h`` and ``tvm_ipu.hpp``."""
_PREBUILT_DIR = SOURCE_DIR.parent / "_native"
_RUNNER_SOURCE = "ipu_run.c"
_FLAGS = ("-std=c11", "-O2", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-Wall", "-Wextra", "-pthread")
_LIBRARY_FLAGS = ("-fPIC", "-fvisibility=hidden")
SHARED_NAME, STATIC_NAME, RUNNER_NAME = "libtvm_ipu.so", "libtvm_ipu.a", "ipu-run"


@dataclass(frozen=True)
class Compiler:
    """A C compiler for one machine.

    Attributes:
        command: Command line to which sources and options are added.
        archiver: Command line of ``ar``.
        program: File that is replaced when the compiler is updated.
    """

    command: tuple[str, ...]
    archiver: tuple[str, ...]
    program: Path


def host_compilers() -> Iterator[Compiler]:
    """Compilers of this machine that can make its own programs, best first."""
    for name in ("cc", "gcc", "clang"):
        if compiler := _gcc(name):
            yield compiler
    if compiler := _zig("-mcpu=baseline"):
        yield compiler


def native_library() -> Path:
    """The shared library for this machine, built if it is not there yet.

    Raises:
        ToolError: There is no C compiler, or it fails.
    """
    return _native(SHARED_NAME)


def native_static_library() -> Path:
    """The static library for this machine, like ``native_library``."""
    return _native(STATIC_NAME)


def native_runner() -> Path:
    """``ipu-run`` for this machine, like ``native_library``."""
    return _native(RUNNER_NAME)


def build_runner(target: Target) -> Path:
    """A statically linked ``ipu-run`` for ``target``, which needs nothing else on that machine.

    Raises:
        ToolError: There is no compiler for the target, or it fails.
    """
    cpu = (f"-mcpu={target.zig_cpu}",) if target.zig_cpu else ()
    zig = _zig("-target", target.zig_triple, *cpu, "-static") if target.zig_triple else None
    if compiler := zig or _cross_gcc(target):
        return _cached(RUNNER_NAME, compiler)
    if target.arch == os.uname().machine:
        return native_runner()
    raise ToolError(f"no compiler can make a runner for target '{target.name}'", "install tvm_ipu[cross]")


def _cross_gcc(target: Target) -> Compiler | None:
    """A distribution's cross compiler, which serves where ziglang is not installed."""
    from tvm_ipu.base.toolchain import cross_prefixes

    found = (_gcc(f"{prefix}gcc", "-static") for prefix in cross_prefixes(target))
    return next(filter(None, found), None)


def _gcc(name: str, *options: str) -> Compiler | None:
    from shutil import which

    path = which(name)
    return Compiler((path, *options), (which("ar") or "ar",), Path(path).resolve()) if path else None


def _zig(*options: str) -> Compiler | None:
    from tvm_ipu.base.toolchain import find_zig

    zig = find_zig()
    return Compiler((*zig, "cc", *options), (*zig, "ar"), Path(zig[0])) if zig else None


def _native(name: str) -> Path:
    prebuilt = _PREBUILT_DIR / name
    if prebuilt.is_file():
        return prebuilt
    failure = ToolError(
        "the runtime has to be built, but there is no C compiler",
        "install gcc, or tvm_ipu[cross] for ziglang",
    )
    for compiler in host_compilers():
        try:
            return _cached(name, compiler)
        except ToolError as err:
            failure = err
    raise failure


def _cached(name: str, compiler: Compiler) -> Path:
    """File ``name`` made by ``compiler``, from the cache if it is there."""
    path = cache_dir() / f"native-{_key(compiler)}" / name
    if not path.is_file():
        from tempfile import TemporaryDirectory

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=path.parent) as folder:
                made = _compile(name, compiler, Path(folder))
                made.replace(path)
        except OSError as err:
            raise ToolError(
                f"cannot build the runtime in {path.parent}: {err.strerror or err}", "set XDG_CACHE_HOME"
            ) from err
    return path


def _key(compiler: Compiler) -> str:
    """Names everything that the result depends on."""
    import hashlib

    digest = hashlib.sha256()
    facts = compiler.program.stat()
    for text in (
        *compiler.command,
        *_FLAGS,
        *_LIBRARY_FLAGS,
        facts.st_size,
        facts.st_mtime_ns,
        os.uname().machine,
    ):
        digest.update(f"{text}\0".encode())
    for source in sorted(SOURCE_DIR.glob("*.[ch]")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:24]


def _compile(name: str, compiler: Compiler, folder: Path) -> Path:
    """Make the file ``name`` in ``folder``."""
    from tvm_ipu.base.toolchain import run_tool

    made = folder / name
    library = [str(f) for f in sorted(SOURCE_DIR.glob("*.c")) if f.name != _RUNNER_SOURCE]
    command = [*compiler.command, *_FLAGS]
    if name == RUNNER_NAME:
        run_tool([*command, "-s", "-o", str(made), *library, str(SOURCE_DIR / _RUNNER_SOURCE), "-lm"])
    elif name == SHARED_NAME:
        run_tool([*command, *_LIBRARY_FLAGS, "-shared", "-s", "-o", str(made), *library])
    else:
        objects = [str(folder / f"tvm_ipu_{Path(source).stem}.o") for source in library]
        for source, compiled in zip(library, objects, strict=True):
            run_tool([*command, *_LIBRARY_FLAGS, "-c", "-o", compiled, source])
        run_tool([*compiler.archiver, "rcs", str(made), *objects])
    return made


def main(arguments: list[str]) -> int:
    """Put the three files for this machine into the folder ``arguments[0]``. Returns the exit code."""
    from shutil import copy2

    folder = Path(arguments[0]) if len(arguments) == 1 else _PREBUILT_DIR
    folder.mkdir(parents=True, exist_ok=True)
    compiler = next(host_compilers(), None)
    if compiler is None:
        print("error: there is no C compiler", file=sys.stderr)
        return 1
    for name in (SHARED_NAME, STATIC_NAME, RUNNER_NAME):
        copy2(_cached(name, compiler), folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
