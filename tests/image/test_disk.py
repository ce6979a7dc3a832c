"""Images that cannot be written: a clear error, nothing left behind, and what was there before is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.image_kit import chain_program, sample_program
from tvm_ipu.base.errors import ImageError
from tvm_ipu.image.reader import read_image
from tvm_ipu.image.writer import write_image

WRITE_WITH_LITTLE_ROOM = """
import resource, sys
from tests.image.image_kit import sample_program
from tvm_ipu.base.errors import ImageError
from tvm_ipu.image.writer import write_image
program = sample_program()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_image(program, sys.argv[1])
except ImageError as err:
    print(err)
"""


def test_disk_full(tmp_path: Path) -> None:
    """A limit on file sizes stands in for a full disk; Python ignores the signal and gets EFBIG."""
    path = tmp_path / "big.img"
    write_image(chain_program(2, 8), path)
    done = subprocess.run(
        [sys.executable, "-c", WRITE_WITH_LITTLE_ROOM, path], capture_output=True, text=True, check=True
    )
    assert f"{path}: cannot write the image: File too large (free some space" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["big.img"]
    assert read_image(path).plans == chain_program(2, 8).plans


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ImageError, match="No space left on device") as caught:
        write_image(sample_program(), tmp_path / "a.img")
    assert "free some space" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot write the image: No such file or directory"):
        write_image(sample_program(), tmp_path / "missing" / "a.img")


def test_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.img").mkdir()
    with pytest.raises(ImageError, match="Is a directory"):
        write_image(sample_program(), tmp_path / "a.img")
    assert [p.name for p in tmp_path.iterdir()] == ["a.img"]
