"""ONNX models as Relax."""

from __future__ import annotations

from tvm_ipu.base.model import Model
from tvm_ipu.frontends.onnx.importer import import_graph, supports
from tvm_ipu.frontends.onnx.load import read_source
from tvm_ipu.frontends.onnx.prepare import prepare
from tvm_ipu.frontends.options import LoadOptions, OnnxSource


def load(source: OnnxSource, options: LoadOptions) -> Model:
    """An ONNX model as Relax; external data of one in memory, if any, lie in the working directory."""
    return import_graph(prepare(read_source(source), options, supports))
