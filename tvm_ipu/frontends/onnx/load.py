"""Read and check an ONNX file: everything that can be wrong with a file before its graph is looked at."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import FunctionProto, GraphProto, ModelProto, version_converter

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import read_model_file
from tvm_ipu.frontends.onnx.check import check_graph, check_nodes
from tvm_ipu.frontends.onnx.graph import Array
from tvm_ipu.frontends.onnx.tensors import densify, read_tensor
from tvm_ipu.frontends.options import FORMAT, OnnxSource

MIN_OPSET = 7
"""Oldest opset that converters know; older models are converted to it first."""

WHOLE = "give a file that an exporter or onnx.save wrote; was it copied or downloaded completely?"

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes that a protobuf message can have; larger models keep their weights in external data files."""


@dataclass(frozen=True)
class Source:
    """A model as read.

    Attributes:
        graph: Its main graph, without weights.
        weights: Values of the initializers by name.
        opsets: Opset versions by domain (``""`` is the standard one).
        functions: Model-local functions by domain and name.
        folder: Where external data of tensors in attributes lie.
        name: File name without suffix, or the graph's name.
        facts: About the file, for the image's metadata.
    """

    graph: GraphProto
    weights: dict[str, Array]
    opsets: dict[str, int]
    functions: dict[tuple[str, str], FunctionProto]
    folder: Path
    name: str
    facts: dict[str, object] = field(default_factory=dict)


def read_source(source: OnnxSource) -> Source:
    """Read an ONNX model wherever it is.

    Raises:
        ModelError: It is missing, empty, truncated, no ONNX model, of an unknown opset, or its data are.
    """
    if isinstance(source, Path):
        return read_file(source)
    return read_proto(parse_bytes(source) if isinstance(source, bytes) else source)


def read_file(path: Path) -> Source:
    """Read the ONNX file at ``path``.

    Raises:
        ModelError: It is missing, empty, truncated, no ONNX model, of an unknown opset, or its data are.
    """
    return read_proto(parse_file(path), path.parent, path.stem, str(path))


def parse_file(path: Path) -> ModelProto:
    """The message in the file at ``path``, without external data.

    Raises:
        ModelError: It is missing, empty, truncated or no ONNX model.
    """
    with suppress(OSError):  # reading the file tells what is wrong
        if path.stat().st_size > PROTOBUF_LIMIT:
            raise ModelError(
                f"'{path}' is larger than 2 GB, which no ONNX file can be",
                "save the model with its weights as external data",
            )
    try:
        return ModelProto.FromString(read_model_file(path))
    except DecodeError as err:
        raise ModelError(f"'{path}' is not an ONNX model, or it is truncated", WHOLE) from err


def parse_bytes(model: bytes) -> ModelProto:
    """The message in ``model``.

    Raises:
        ModelError: There is none.
    """
    try:
        return ModelProto.FromString(model)
    except DecodeError as err:
        raise ModelError("these bytes are not an ONNX model, or they are truncated") from err


def read_proto(model: ModelProto, folder: Path = Path(), name: str = "", label: str = "") -> Source:
    """Take a model apart into graph and weights; ``model`` itself is left as it is.

    Args:
        model: The model.
        folder: Where its external data lie.
        name: Name of the model; its graph's by default.
        label: What to call it in messages.

    Raises:
        ModelError: It has no graph, an unknown opset, damaged nodes, or damaged or missing data.
    """
    label = label or f"model '{name or model.graph.name}'"
    if not model.HasField("graph") or not model.opset_import or not model.graph.output:
        raise ModelError(
            f"{label} is not an ONNX model, or it is truncated: it has no graph, opset or outputs", WHOLE
        )
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    if opsets.get("", MIN_OPSET) < MIN_OPSET:
        model = change_opset(model, MIN_OPSET, label)
        opsets[""] = MIN_OPSET
    _check_opset(opsets, label)
    check_graph(model.graph, opsets)
    for function in model.functions:
        check_nodes(function.node, {o.domain: o.version for o in function.opset_import})
    weights = {t.name: read_tensor(t, folder) for t in model.graph.initializer}
    weights |= {s.values.name: densify(s, folder) for s in model.graph.sparse_initializer}
    graph = GraphProto()
    graph.name = model.graph.name
    for part in ("node", "input", "output", "value_info"):
        getattr(graph, part).extend(getattr(model.graph, part))
    facts: dict[str, object] = {
        "format": next((one.value for one in model.metadata_props if one.key == FORMAT), "onnx"),
        "opset": opsets.get("", 0),
        "ir_version": model.ir_version,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
    }
    functions = {("" if f.domain == "ai.onnx" else f.domain, f.name): f for f in model.functions}
    return Source(graph, weights, opsets, functions, folder, name or graph.name, facts)


def change_opset(model: ModelProto, version: int, label: str) -> ModelProto:
    """The model in another opset, by ONNX's version converter.

    Raises:
        ModelError: The converter has no adapter for one of its operators.
    """
    try:
        return version_converter.convert_version(model, version)
    except Exception as err:  # the converter raises errors of all kinds
        reason = next(iter(str(err).strip().splitlines()[-1:]), "").rpartition(" failed: ")[2]
        raise ModelError(f"cannot convert {label} to opset {version}: {reason}") from err


def _check_opset(opsets: dict[str, int], label: str) -> None:
    version, newest = opsets.get("", MIN_OPSET), onnx.defs.onnx_opset_version()
    if version > newest:
        raise ModelError(
            f"{label} uses opset {version}; onnx {onnx.__version__} knows opsets up to {newest}",
            "install a newer onnx package, or export the model with an older opset",
        )
