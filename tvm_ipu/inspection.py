"""What is in a file: ``tvm-ipu inspect``. Images are described without the compiler being loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ipu.base.shapes import parse_input_shapes
from tvm_ipu.image.reader import ImageInfo, is_image, read_image

if TYPE_CHECKING:
    from tvm_ipu.frontends.onnx.summary import ModelSummary
    from tvm_ipu.frontends.options import LoadOptions
    from tvm_ipu.image.stage import Stage


@dataclass(frozen=True)
class StageInfo:
    """What a stage holds: the stage itself, and its network as a model."""

    stage: Stage
    model: ModelSummary


def inspect_file(
    path: Path, *, input_shapes: Sequence[str] = (), loading: LoadOptions | None = None
) -> ModelSummary | StageInfo | ImageInfo:
    """What a model, a stage or an image contains; the file's first bytes tell which it is.

    Args:
        path: The file or folder.
        input_shapes: Shapes of a model's inputs, as for ``compile_model``; without them the work of a model
            with open dimensions is not known.
        loading: What else loading a model needs, as for ``compile_model``.

    Raises:
        TvmIpuError: The file is missing, damaged or neither.
    """
    if not path.is_dir() and is_image(path):
        return read_image(path)
    from tvm_ipu.frontends.onnx.summary import summarize
    from tvm_ipu.image.stage import read_stage, stage_kind

    if not path.is_dir() and stage_kind(path) is not None:
        stage = read_stage(path)
        return StageInfo(stage, summarize(stage.model, label=str(path)))
    return inspect_model(path, input_shapes=input_shapes, loading=loading)


def inspect_model(
    model: Any, *, input_shapes: Sequence[str] = (), loading: LoadOptions | None = None
) -> ModelSummary:
    """Inputs, outputs, parameters and work of a model, and what of it cannot be compiled.

    Args:
        model: Path of a model file or folder, or a model in memory that ``convert_model`` takes.
        input_shapes: Shapes of its inputs, as for ``compile_model``.
        loading: What else loading it needs.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    from tvm_ipu.frontends.loaders import as_onnx
    from tvm_ipu.frontends.onnx.summary import summarize
    from tvm_ipu.frontends.options import LoadOptions

    options = loading or LoadOptions()
    options = replace(options, input_shapes=parse_input_shapes(input_shapes) or options.input_shapes)
    label = str(model) if isinstance(model, str | Path) else type(model).__name__
    return summarize(as_onnx(model, options), options, label)
