"""An image that is run where it was compiled, without a file."""

from __future__ import annotations

import mmap

from tvm_ipu.base.program import Program
from tvm_ipu.image.reader import ImageInfo, parse_image
from tvm_ipu.image.writer import image_parts


def map_image(program: Program) -> tuple[mmap.mmap, ImageInfo]:
    """A program's image as memory of our own, aligned so that a session uses it as it is, and what it holds.

    Raises:
        ImageError: The program breaks a rule of the format.
    """
    parts = image_parts(program)
    memory = mmap.mmap(-1, len(parts))
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux
        memory.madvise(mmap.MADV_HUGEPAGE)
    for part in parts.parts:
        memory.write(part)
    return memory, parse_image(memoryview(memory), program.target.name)
