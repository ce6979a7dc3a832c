"""An image that is run where it was compiled, without a file of its own."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

from tvm_ipu.base.program import Program
from tvm_ipu.image.reader import ImageInfo, read_image
from tvm_ipu.image.writer import write_image


def map_image(program: Program) -> tuple[mmap.mmap, ImageInfo]:
    """A program's image as memory of our own, aligned so that a session uses it as it is, and what it holds.

    Raises:
        ImageError: The program breaks a rule of the format, or no file can be written.
    """
    with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as folder:
        path = Path(folder) / "host.img"
        write_image(program, path)
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), read_image(path)
