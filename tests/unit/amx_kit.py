"""AMX instructions on machines without them: the emulator of ``native/amx_emulator.c`` in this process."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tvm_ipu.base.target import Target, load_target

AMX = load_target("x86-64-amx")

_ABSENT = ("amx-tile", "amx-int8", "amx-bf16", "avx512fp16")
EMULATED: Target = replace(
    AMX,
    name="x86-64-amx-emulated",
    features=tuple(feature for feature in AMX.features if feature != "+avx512fp16"),
    requires=tuple(feature for feature in AMX.requires if feature not in _ABSENT),
)
"""The target without what the emulator provides, and without fp16 arithmetic, which templates do not use."""

COUNTS = ("configure", "release", "zero", "load", "store", "multiply")


@contextmanager
def emulation() -> Iterator[ctypes.CDLL]:
    """AMX instructions work inside; skips the test on other architectures."""
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("the emulation of AMX is for Linux on x86-64")
    library = _library()
    assert library.amx_emulation_start() == 0
    try:
        yield library
    finally:
        library.amx_emulation_stop()


def counts(library: ctypes.CDLL) -> dict[str, int]:
    """Instructions carried out since the last call, by kind."""
    found = (ctypes.c_uint64 * len(COUNTS))()
    library.amx_emulation_counts(found)
    return dict(zip(COUNTS, found, strict=True))


@cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).parent / "native" / "amx_emulator.c"
    path = Path(mkdtemp(prefix="amx-")) / "emulator.so"
    flags = [
        "-std=gnu11",
        "-O3",
        "-march=x86-64-v3",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-shared",
    ]
    subprocess.run(["cc", *flags, "-o", path, source, "-lm"], check=True)
    return ctypes.CDLL(str(path))
