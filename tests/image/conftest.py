"""Fixtures: the sample image on disk and a builder of C programs over the runtime's sources."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.image_kit import sample_program
from tvm_ipu.image.writer import write_image
from tvm_ipu.runtime.build import SOURCE_DIR

NATIVE_TESTS = Path(__file__).parent / "native"
C_FLAGS = ("-std=c11", "-O1", "-pthread", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64")
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror")
Builder = Callable[..., Path]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image of ``sample_program()``; tests must not change it."""
    path = tmp_path_factory.mktemp("images") / "sample.img"
    write_image(sample_program(), path)
    return path


@pytest.fixture(scope="session")
def build_c(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Build one C or C++ source with the runtime's own: ``build_c(source, *flags)`` returns the program."""
    libraries: dict[tuple[str, ...], list[Path]] = {}

    def build(source: Path, *flags: str) -> Path:
        folder = tmp_path_factory.mktemp(source.stem)
        if flags not in libraries:
            runtime = [f for f in SOURCE_DIR.glob("*.c") if f.name != "ipu_run.c"]
            libraries[flags] = [compile_object(f, folder, flags) for f in runtime]
        objects = [compile_object(source, folder, flags), *libraries[flags]]
        subprocess.run(["c++", *flags, "-pthread", *objects, "-o", folder / source.stem], check=True)
        return folder / source.stem

    return build


def compile_object(source: Path, folder: Path, flags: tuple[str, ...]) -> Path:
    """Compile one source with warnings as errors."""
    command = ["cc", *C_FLAGS] if source.suffix == ".c" else ["c++", "-std=c++17", "-O1", "-pthread"]
    made = folder / f"{source.name}.o"
    subprocess.run(
        [*command, *WARNINGS, "-g", f"-I{SOURCE_DIR}", *flags, "-c", source, "-o", made], check=True
    )
    return made
