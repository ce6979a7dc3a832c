"""What is in a file: ``tvm-ipu inspect``. Images are described without the compiler being loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.image.reader import ImageInfo, is_image, read_image

if TYPE_CHECKING:
    from tvm_ipu.frontends.onnx.summary import ModelSummary
    from tvm_ipu.image.stage import Stage


@dataclass(frozen=True)
class StageInfo:
    """What a stage holds: the stage itself, and its network as a model."""

    stage: Stage
    model: ModelSummary


def inspect_file(path: Path, *, input_shapes: Sequence[str] = ()) -> ModelSummary | StageInfo | ImageInfo:
    """What a model, a stage or an image contains; the file's first bytes tell which it is.

    Args:
        path: The file.
        input_shapes: Shapes of a model's inputs, as for ``compile_model``; without them the work of a model
            with open dimensions is not known.

    Raises:
        TvmIpuError: The file is missing, damaged or neither.
    """
    if not path.is_dir() and is_image(path):
        return read_image(path)
    from tvm_ipu.frontends.loaders import LoadOptions, as_onnx
    from tvm_ipu.frontends.onnx.summary import summarize
    from tvm_ipu.image.stage import read_stage, stage_kind

    if not path.is_dir() and stage_kind(path) is not None:
        stage = read_stage(path)
        return StageInfo(stage, summarize(path, model=stage.model))
    options = LoadOptions(parse_input_shapes(input_shapes))
    return summarize(path, options, as_onnx(path, options))
