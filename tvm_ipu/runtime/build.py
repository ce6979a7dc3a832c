"""Build the C runtime: shared and static library and the runner ``ipu-run``, once per user and compiler.

A wheel may ship the three files ready made in ``_native``; those are then used and no compiler is needed.
``python -m tvm_ipu.runtime.build DIR`` puts them into a folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

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


def host_compilers() -> list[Compiler]:
    """Compilers of this machine that can make its own programs, best first."""
    found = [
        Compiler((path,), (shutil.which("ar") or "ar",), Path(path).resolve())
        for path in map(shutil.which, ("cc", "gcc", "clang"))
        if path
    ]
    zig = _zig(("-mcpu=baseline",))
    return found + ([zig] if zig else [])


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
        ToolError: The target names no ``zig_triple``, ziglang is not installed, or it fails.
    """
    if not target.zig_triple:
        if target.arch == platform.machine():
            return native_runner()
        raise ToolError(f"target '{target.name}' has no zig_triple, so no runner can be built for it")
    options = ("-target", target.zig_triple, *((f"-mcpu={target.zig_cpu}",) if target.zig_cpu else ()))
    zig = _zig((*options, "-static"))
    if zig is None:
        raise ToolError(
            f"building a runner for target '{target.name}' needs ziglang", "install tvm_ipu[cross]"
        )
    return _cached(RUNNER_NAME, zig)


def _zig(options: tuple[str, ...]) -> Compiler | None:
    spec = find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    zig = (sys.executable, "-m", "ziglang")
    return Compiler((*zig, "cc", *options), (*zig, "ar"), Path(spec.origin))


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
    path = _cache_dir() / f"native-{_key(compiler)}" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                made = _compile(name, compiler, Path(folder))
                made.replace(path)
        except OSError as err:
            raise ToolError(f"cannot build the runtime in {path.parent}: {err.strerror or err}") from err
    return path


def _cache_dir() -> Path:
    """Cache folder of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tvm_ipu"


def _key(compiler: Compiler) -> str:
    """Names everything that the result depends on."""
    digest = hashlib.sha256()
    facts = compiler.program.stat()
    for text in (
        *compiler.command,
        *_FLAGS,
        *_LIBRARY_FLAGS,
        facts.st_size,
        facts.st_mtime_ns,
        platform.machine(),
    ):
        digest.update(f"{text}\0".encode())
    for source in sorted(SOURCE_DIR.glob("*.[ch]")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:24]


def _compile(name: str, compiler: Compiler, folder: Path) -> Path:
    """Make the file ``name`` in ``folder``."""
    made = folder / name
    library = [str(f) for f in sorted(SOURCE_DIR.glob("*.c")) if f.name != _RUNNER_SOURCE]
    command = [*compiler.command, *_FLAGS]
    if name == RUNNER_NAME:
        _execute([*command, "-s", "-o", str(made), *library, str(SOURCE_DIR / _RUNNER_SOURCE), "-lm"])
    elif name == SHARED_NAME:
        _execute([*command, *_LIBRARY_FLAGS, "-shared", "-s", "-o", str(made), *library])
    else:
        objects = [str(folder / f"tvm_ipu_{Path(source).stem}.o") for source in library]
        for source, compiled in zip(library, objects, strict=True):
            _execute([*command, *_LIBRARY_FLAGS, "-c", "-o", compiled, source])
        _execute([*compiler.archiver, "rcs", str(made), *objects])
    return made


def _execute(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as err:
        raise ToolError(f"cannot run {command[0]}: {err.strerror or err}") from err
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ToolError(
            f"{' '.join(command)} failed: {lines[-1] if lines else f'exit code {done.returncode}'}"
        )


def main(arguments: list[str]) -> int:
    """Put the three files for this machine into the folder ``arguments[0]``. Returns the exit code."""
    folder = Path(arguments[0]) if len(arguments) == 1 else _PREBUILT_DIR
    folder.mkdir(parents=True, exist_ok=True)
    compilers = host_compilers()
    if not compilers:
        print("error: there is no C compiler", file=sys.stderr)
        return 1
    for name in (SHARED_NAME, STATIC_NAME, RUNNER_NAME):
        shutil.copy2(_cached(name, compilers[0]), folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
