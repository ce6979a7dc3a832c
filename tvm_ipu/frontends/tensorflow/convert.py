"""SavedModel folders, frozen graphs and Keras models as ONNX models, by tf2onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import ModelProto

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.extras import require
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.frontends.tensorflow.export import export, inlined
from tvm_ipu.frontends.tensorflow.frozen import Frozen
from tvm_ipu.frontends.tensorflow.graphdef import crop, read_graphdef
from tvm_ipu.frontends.tensorflow.keras_file import read_keras
from tvm_ipu.frontends.tensorflow.keras_trace import trace
from tvm_ipu.frontends.tensorflow.quiet import quiet
from tvm_ipu.frontends.tensorflow.saved_model import read_saved_model


def to_onnx(source: Path | Any, options: LoadOptions) -> ModelProto:
    """A TensorFlow or Keras model as ONNX, cut to what ``options`` ask for; its inputs stay NHWC.

    Args:
        source: A SavedModel's folder, a frozen graph (``.pb``), a Keras file (``.h5``, ``.keras``), or a
            ``keras.Model``.
        options: Shapes, cuts (tensors with or without ``:0``, or Keras layers), signature, trust and example.

    Raises:
        ModelError: The model is missing, damaged, not frozen, or cannot be traced.
        UnsupportedOperatorError: It has operators that cannot be converted; all are listed.
        OptionError: An option does not fit the model.
        ToolError: TensorFlow or tf2onnx is missing.
    """
    with quiet() as failures:
        require("tensorflow", extra="tensorflow")
        require("tf2onnx", extra="tensorflow")
        model = _read(source, options)
        if model.graph.library.function:
            model = inlined(model)
        return export(crop(model, options), failures)


def _read(source: Path | Any, options: LoadOptions) -> Frozen:
    if not isinstance(source, Path):
        return trace(source, options)
    if source.is_dir():
        return read_saved_model(source, options.signature)
    if source.suffix.lower() == ".pb":
        return read_graphdef(source)
    if source.suffix.lower() in (".h5", ".hdf5", ".keras"):
        return trace(read_keras(source, options), options)
    raise ModelError(f"'{source}' is no SavedModel folder, .pb, .h5 or .keras file")
