"""Loaders of model files and objects: one table, one way.

source - frontends.<framework> -> ONNX model in memory - frontends.onnx -> Relax, a plain graph, or a summary
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.base.ini import IniFile
from tvm_ipu.base.model import Model
from tvm_ipu.frontends.options import FORMAT, LoadOptions as LoadOptions, OnnxSource

if TYPE_CHECKING:
    from onnx import ModelProto

    from tvm_ipu.base.graph import Graph


@dataclass(frozen=True)
class Platform:
    """A kind of source.

    Attributes:
        title: What people call it.
        layout: Layout of data of four dimensions in its models.
        converter: ``module:function``, a function of a path or object and ``LoadOptions`` that gives an ONNX
            ``ModelProto`` whose inputs and outputs, and tensors as far as possible, have the source's names;
            empty for ONNX itself.
    """

    title: str
    layout: str
    converter: str = ""


_WEIGHT_FILES = ("caffe", "paddle")
"""Platforms whose weights are in a file of their own."""

_TENSORFLOW = "tvm_ipu.frontends.tensorflow.convert:to_onnx"

PLATFORMS = {
    "onnx": Platform("ONNX", "NCHW"),
    "pytorch": Platform("PyTorch", "NCHW", "tvm_ipu.frontends.torch.convert:to_onnx"),
    "tflite": Platform("TensorFlow Lite", "NHWC", "tvm_ipu.frontends.tflite.convert:to_onnx"),
    "tensorflow": Platform("TensorFlow SavedModel", "NHWC", _TENSORFLOW),
    "tensorflow_graphdef": Platform("TensorFlow GraphDef", "NHWC", _TENSORFLOW),
    "keras": Platform("Keras", "NHWC", _TENSORFLOW),
    "jax": Platform("JAX", "NHWC", "tvm_ipu.frontends.jax.convert:to_onnx"),
    "paddle": Platform("Paddle", "NCHW", "tvm_ipu.frontends.paddle.convert:to_onnx"),
    "caffe": Platform("Caffe", "NCHW", "tvm_ipu.frontends.caffe.convert:to_onnx"),
}
"""By the names of ``convert``'s subcommands."""

SUFFIXES = {
    ".onnx": "onnx",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".pt2": "pytorch",
    ".jit": "pytorch",
    ".tflite": "tflite",
    ".h5": "keras",
    ".keras": "keras",
    ".pb": "tensorflow_graphdef",
    ".prototxt": "caffe",
    ".pdmodel": "paddle",
    ".json": "paddle",
    ".py": "jax",
}
"""Suffix of a file -> its platform."""

FOLDERS = {"saved_model.pb": "tensorflow"}
"""File in a folder that is a model -> the folder's platform."""

TYPES = {
    "builtins.bytes": "onnx",
    "onnx.onnx_ml_pb2.ModelProto": "onnx",
    "torch.nn.modules.module.Module": "pytorch",
    "torch.jit.torch.jit.ScriptFunction": "pytorch",
    "torch.export.exported_program.ExportedProgram": "pytorch",
    "keras.src.models.model.Model": "keras",
    "jaxlib._jax.PjitFunction": "jax",
    "jaxlib.xla_extension.PjitFunction": "jax",
}
"""Type of an object, or of one of its bases -> platform."""


def load_model(source: Any, options: LoadOptions | None = None) -> Model:
    """A model file, or a framework's object, as Relax.

    Args:
        source: Path of a file or folder, or an object of a type in ``TYPES``.
        options: Shapes, and the part of the model to load.

    Raises:
        ModelError: No loader knows it, it is damaged, or shapes are missing.
        UnsupportedOperatorError: It has nodes that cannot be compiled; all are listed.
        OptionError: An option does not fit the model.
        ToolError: A package that the source needs is missing.
    """
    from tvm_ipu.frontends.onnx.loader import load  # it needs onnx

    options = options or LoadOptions()
    return load(as_onnx(source, options), options)


def load_platform(
    platform: str, model: Any, options: LoadOptions, contract: Contract, file: IniFile | None, simplify: bool
) -> Graph:
    """A model as a plain graph that takes and gives what its configuration says.

    Args:
        platform: One of ``PLATFORMS``; found out where empty.
        model: Its path, or an object of a type in ``TYPES``.
        options: Shapes and cuts.
        contract: Of ``input_config.ini``; empty where there is none.
        file: That file.
        simplify: Whether BatchNormalization is folded.

    Raises:
        ModelError: There is no loader for the platform, or the file is damaged or needs shapes.
        UnsupportedOperatorError: It has operators that the conversion does not know; all are listed.
        ConfigError: The configuration does not fit the model.
        OptionError: An option does not.
        ToolError: A package that the platform needs is missing.
    """
    from tvm_ipu.frontends.contract import apply_layouts, check_contract  # these need numpy and onnx
    from tvm_ipu.frontends.onnx.plain import load_graph

    graph = load_graph(as_onnx(model, options, platform), options, simplify)
    if file is None:
        return graph
    layout = PLATFORMS[str(graph.source["format"])].layout
    check_contract(graph, contract, file, layout)
    return apply_layouts(graph, contract, layout)


def as_onnx(source: Any, options: LoadOptions | None = None, platform: str = "") -> OnnxSource:
    """A source as an ONNX model: itself, or what its framework's converter makes of it.

    Args:
        source: Path of a file or folder, or an object of a type in ``TYPES``.
        options: Shapes, cuts and what the conversion needs; the result still has to be cut and fixed.
        platform: One of ``PLATFORMS``; found out where empty.

    Raises:
        ModelError: No loader knows it, or it is damaged.
        UnsupportedOperatorError: It has operators that the conversion does not know; all are listed.
        OptionError: An option does not fit the model.
        ToolError: A package that the source needs is missing.
    """
    source = Path(source) if isinstance(source, str) else source
    platform = platform or find_platform(source)
    kind = PLATFORMS[platform]
    if options and options.weights and platform not in _WEIGHT_FILES:
        raise OptionError(f"--weight-file: a model of {kind.title} has its weights inside", "leave it out")
    if not kind.converter:
        onnx_source: OnnxSource = source
        return onnx_source
    module, function = kind.converter.split(":")
    if not _is_there(module):
        raise ModelError(
            f"there is no loader for {kind.title} models yet",
            f"convert it to a format of {', '.join(ready_platforms())}",
        )
    if isinstance(source, Path) and not source.exists():
        raise ModelError(f"model file '{source}' does not exist", "check the path")
    options = options or LoadOptions()
    proto: ModelProto = getattr(importlib.import_module(module), function)(source, options)
    if options.inputs_as_nchw or options.outputs_as_nchw:
        from tvm_ipu.frontends.onnx.nchw import as_nchw  # it needs onnx

        as_nchw(proto, options.inputs_as_nchw, options.outputs_as_nchw)
    if isinstance(source, Path):
        proto.graph.name = source.stem
    _set_format(proto, platform)
    return proto


def _set_format(proto: ModelProto, platform: str) -> None:
    entry = next((one for one in proto.metadata_props if one.key == FORMAT), None)
    entry = proto.metadata_props.add(key=FORMAT) if entry is None else entry
    entry.value = platform


def find_platform(source: Any) -> str:
    """The platform of a path or object.

    Raises:
        ModelError: There is none.
    """
    if not isinstance(source, str | Path):
        bases = [f"{base.__module__}.{base.__qualname__}" for base in type(source).__mro__]
        found = next((TYPES[base] for base in bases if base in TYPES), None)
        if found is None:
            titles = ", ".join(PLATFORMS[name].title for name in dict.fromkeys(TYPES.values()))
            raise ModelError(f"no loader for objects of type {bases[0]}", f"known are objects of {titles}")
        return found
    path = Path(source)
    if path.is_dir() and path.suffix.lower() != ".onnx":
        found = next((FOLDERS[name] for name in FOLDERS if (path / name).exists()), None)
        if found is None:
            raise ModelError(
                f"'{path}' is a folder without a model", f"models that are folders have {', '.join(FOLDERS)}"
            )
        return found
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(
            f"'{path}': no loader for files ending in '{path.suffix.lower()}'",
            f"known are {', '.join(SUFFIXES)}",
        )
    return SUFFIXES[path.suffix.lower()]


def ready_platforms() -> list[str]:
    """The platforms that have a loader."""
    return [name for name, kind in PLATFORMS.items() if _is_there(kind.converter.partition(":")[0])]


def _is_there(module: str) -> bool:
    """Whether a converter's module exists; none is needed for ONNX."""
    package = module.rpartition(".")[0]
    return not module or bool(importlib.util.find_spec(package) and importlib.util.find_spec(module))
