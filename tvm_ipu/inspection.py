"""What is in a file: ``tvm-ipu inspect``. Images are described without the compiler being loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.image.reader import ImageInfo, is_image, read_image

if TYPE_CHECKING:
    from tvm_ipu.frontends.onnx.summary import ModelSummary


def inspect_file(path: Path, *, input_shapes: Sequence[str] = ()) -> ModelSummary | ImageInfo:
    """What a model or an image contains; the file's first bytes tell which it is.

    Args:
        path: The file.
        input_shapes: Shapes of a model's inputs, as for ``compile_model``; without them the work of a model
            with open dimensions is not known.

    Raises:
        TvmIpuError: The file is missing, damaged or neither.
    """
    if is_image(path):
        return read_image(path)
    from tvm_ipu.frontends.loaders import LoadOptions
    from tvm_ipu.frontends.onnx.summary import summarize

    return summarize(path, LoadOptions(parse_input_shapes(input_shapes)))
