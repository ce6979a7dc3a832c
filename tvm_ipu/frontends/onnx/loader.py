"""Entry points of the table in ``frontends.loaders``."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from tvm_ipu.base.model import Model
from tvm_ipu.frontends.loaders import LoadOptions
from tvm_ipu.frontends.onnx.importer import import_graph, supports
from tvm_ipu.frontends.onnx.load import parse_bytes, read_file, read_proto
from tvm_ipu.frontends.onnx.prepare import prepare


def load_file(path: str | Path, options: LoadOptions) -> Model:
    """The ONNX file at ``path`` as Relax."""
    return import_graph(prepare(read_file(Path(path)), options, supports))


def load_proto(proto: ModelProto, options: LoadOptions) -> Model:
    """An ONNX model in memory as Relax; external data, if any, lie in the working directory."""
    return import_graph(prepare(read_proto(proto), options, supports))


def load_bytes(model: bytes, options: LoadOptions) -> Model:
    """The bytes of an ONNX file as Relax."""
    return load_proto(parse_bytes(model), options)
