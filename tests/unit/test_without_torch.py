"""Commands do not wait for PyTorch, which TVM would import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIND_OUT = "import tvm, sys; print('torch' in sys.modules); import torch; print(torch.NAME)"
HIDE = "from tvm_ipu.base.without_torch import import_tvm_without_torch as hide; hide(); hide()"


@pytest.mark.parametrize("before", [HIDE, "import tvm_ipu.cli.main as m; m.main(['targets'])"])
def test_tvm_does_not_import_it_and_others_can(tmp_path: Path, before: str) -> None:
    lines = run(tmp_path, f"{before}; {FIND_OUT}")
    assert lines[-2:] == ["False", "another one"]


def test_what_is_imported_already_stays(tmp_path: Path) -> None:
    lines = run(tmp_path, f"import sys, torch; {HIDE}; print(sys.meta_path[0].find_spec('tvm', None))")
    assert lines == ["None"]


def run(folder: Path, program: str) -> list[str]:
    """What a program prints for which PyTorch is a package in ``folder``."""
    package = folder / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("NAME = 'another one'\n")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-c", program]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()
