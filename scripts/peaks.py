"""Peaks of one core of this machine, from ``peaks.c``."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("peaks.c")


def measure_peaks() -> dict[str, float]:
    """Multiply-adds by type in GOP/s, and reading from each level of memory in GB/s.

    Raises:
        RuntimeError: No C compiler, or a processor that is not x86-64.
    """
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("scripts/peaks.c needs gcc or clang: apt-get install gcc")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peaks"
        subprocess.run([compiler, "-O3", "-march=native", str(SOURCE), "-o", str(program)], check=True)
        text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    peaks: dict[str, float] = json.loads(text)
    return peaks
