"""ONNX models as the plain graph of ``base.graph``, which calibration works on, and back; also as Relax."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tvm_ipu.base import graph as plain
from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.model import Model
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.frontends.damage import refuse_damage
from tvm_ipu.frontends.onnx.check import check_graph
from tvm_ipu.frontends.onnx.evaluate import find_schema
from tvm_ipu.frontends.onnx.fold_batchnorm import fold_batchnorm
from tvm_ipu.frontends.onnx.fuse_norms import fuse_norms, split_norms
from tvm_ipu.frontends.onnx.graph import (
    Array,
    Graph,
    attributes,
    domain_of,
    dtype_label,
    node_label,
    unique_name,
)
from tvm_ipu.frontends.onnx.importer import import_graph, supports
from tvm_ipu.frontends.onnx.load import change_opset, parse_bytes, read_proto, read_source
from tvm_ipu.frontends.onnx.prepare import prepare
from tvm_ipu.frontends.onnx.write import INLINE_LIMIT, SMALL, to_proto
from tvm_ipu.frontends.options import LoadOptions, OnnxSource

OPSET = 21
"""The oldest opset of a plain graph: the first in which tensors are quantised to 16 and to 4 bits."""


def load_graph(source: OnnxSource, options: LoadOptions | None = None, simplify: bool = True) -> plain.Graph:
    """The part of a model that ``options`` ask for, with static shapes and constants folded.

    Args:
        source: ONNX model.
        options: Shapes and cuts.
        simplify: Whether BatchNormalization goes into the convolution before it, and layer normalisation
            that is written out becomes one operator.

    Raises:
        ModelError: The model is damaged, needs shapes, or has operators that opset 21 lacks.
        OptionError: An option does not fit the model.
    """
    read = read_source(source)
    graph = prepare(read, options or LoadOptions(), supports)
    if simplify:
        graph = fold_batchnorm(graph)
    if graph.opsets.get("", OPSET) < OPSET:
        graph = _in_opset(graph, read.name)
    found = _plain(to_proto(graph, _OUTSIDE), {c.name: c.array for c in graph.constants()})
    found = split_norms(fuse_norms(found) if simplify else found)
    return replace(found, name=read.name, source={**read.facts, **found.source})


def graph_from_onnx(model: bytes) -> plain.Graph:
    """The graph that ``graph_to_onnx`` wrote, as it is.

    Raises:
        ModelError: It is not an ONNX model, or damaged.
    """
    proto = parse_bytes(model)
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in proto.opset_import}
    check_graph(proto.graph, opsets)
    with refuse_damage(f"model '{proto.graph.name}'"):
        return _plain(proto, {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer})


def graph_to_onnx(graph: plain.Graph) -> bytes:
    """The graph as an ONNX model with its weights inside; the same graph gives the same bytes.

    Raises:
        ModelError: It is larger than an ONNX file can be.
    """
    model = graph_to_proto(graph)
    if model.ByteSize() > INLINE_LIMIT:
        raise ModelError(f"model '{graph.name}' has more than 2 GB, which no ONNX file can have")
    return bytes(model.SerializeToString(deterministic=True))


def graph_to_relax(graph: plain.Graph) -> Model:
    """The graph as Relax; the weights are those of the graph, not copies.

    Raises:
        UnsupportedOperatorError: It has nodes that cannot be compiled; all are listed.
    """
    outside = {
        name: array
        for name, array in graph.constants.items()
        if array.nbytes > SMALL and array.dtype.type.__module__ == "numpy" and array.dtype != object
    }
    inside = {name: array for name, array in graph.constants.items() if name not in outside}
    proto = graph_to_proto(replace(graph, constants=inside))
    for name, array in outside.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        proto.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return import_graph(prepare(read_proto(proto), LoadOptions(constants=outside), supports))


def graph_to_proto(graph: plain.Graph) -> ModelProto:
    """The graph as an ONNX model in memory, with its weights inside."""
    versions = _versions(graph)
    nodes = [_node_proto(node, versions[node.domain]) for node in graph.nodes]
    constants = [_initializer(name, array) for name, array in graph.constants.items()]
    shown = {spec.name for spec in (*graph.inputs, *graph.outputs)}
    infos = [_value_info(spec) for name, spec in graph.tensors.items() if name not in shown]
    proto = helper.make_graph(
        nodes,
        graph.name or "model",
        [_value_info(spec) for spec in graph.inputs],
        [_value_info(spec) for spec in graph.outputs],
        constants,
        value_info=infos,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    return helper.make_model(proto, producer_name="tvm_ipu", opset_imports=opsets, ir_version=max(version, 4))


def _in_opset(graph: Graph, name: str) -> Graph:
    """The graph in opset 21; its large weights, which the converter would copy, are inputs meanwhile."""
    proto = to_proto(graph, _OUTSIDE)
    outside = {t.name: t for t in proto.graph.initializer if t.data_location == TensorProto.EXTERNAL}
    inside = [t for t in proto.graph.initializer if t.name not in outside]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(inside)
    for one in outside.values():
        proto.graph.input.append(helper.make_tensor_value_info(one.name, one.data_type, one.dims))
    converted = change_opset(proto, OPSET, f"model '{name}'")
    weights = {c.name: c.array for c in graph.constants() if c.name in outside}
    return prepare(read_proto(converted, name=name), LoadOptions(constants=weights), supports)


def _plain(model: ModelProto, constants: dict[str, Array]) -> plain.Graph:
    """``model`` with the values that its initializers stand for."""
    proto = model.graph
    inputs = tuple(_specs(info for info in proto.input if info.name not in constants))
    outputs = tuple(_specs(proto.output))
    if (len(inputs), len(outputs)) != (len(proto.input), len(proto.output)):
        raise ModelError(f"model '{proto.name}' has an input or output of a type that images do not have")
    nodes, taken = [], set[str]()
    for node in proto.node:
        name = unique_name(node_label(node), taken)
        values = {key: _value(value) for key, value in attributes(node).items()}
        domain = domain_of(node)
        nodes.append(plain.Node(name, node.op_type, tuple(node.input), tuple(node.output), values, domain))
    tensors = {spec.name: spec for spec in _specs([*proto.value_info, *proto.output])}
    made = {name for node in nodes for name in node.outputs}
    known = {name: spec for name, spec in tensors.items() if name in made}
    versions = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    opset = versions.pop("", OPSET)
    facts: dict[str, object] = {"domains": versions} if versions else {}
    return plain.Graph(proto.name, tuple(nodes), constants, inputs, outputs, known, opset, facts)


def _versions(graph: plain.Graph) -> dict[str, int]:
    """Opset version of each operator domain."""
    domains = graph.source.get("domains")
    known = domains if isinstance(domains, dict) else {}
    used = dict.fromkeys(node.domain for node in graph.nodes if node.domain)
    return {"": graph.opset, **{domain: known.get(domain, 1) for domain in used}}


def _specs(infos: Iterable[ValueInfoProto]) -> list[TensorSpec]:
    """Those that have a static shape and a type of ``DType``."""
    found = []
    for info in infos:
        kind = info.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
        if kind.HasField("shape") and None not in dims and kind.elem_type in _DTYPES:
            found.append(TensorSpec(info.name, tuple(d or 0 for d in dims), _DTYPES[kind.elem_type]))
    return found


def _dtypes() -> dict[int, DType]:
    labels = {dtype.label: dtype for dtype in DType}
    return {t: labels[dtype_label(t)] for t in _ELEM_TYPES if dtype_label(t) in labels}


_OUTSIDE = "weights"
"""Stands for the file of the weights where ``to_proto`` shall leave them out."""

_ELEM_TYPES = [t for t in TensorProto.DataType.values() if t not in (0, TensorProto.STRING)]
_DTYPES = _dtypes()
_OF_DTYPE = {dtype: elem_type for elem_type, dtype in _DTYPES.items()}


def _value_info(spec: TensorSpec) -> ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _OF_DTYPE[spec.dtype], spec.shape)


def _initializer(name: str, array: Array) -> TensorProto:
    return numpy_helper.from_array(array, name)


def _value(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _node_proto(node: plain.Node, version: int) -> NodeProto:
    proto = helper.make_node(node.op_type, node.inputs, node.outputs, node.name, domain=node.domain)
    schema = find_schema(node.op_type, version, node.domain)
    for key in sorted(node.attributes):
        kind = schema.attributes[key].type.value if schema and key in schema.attributes else None
        proto.attribute.append(_attribute(key, node.attributes[key], kind))
    return proto


def _attribute(key: str, value: Any, kind: int | None) -> AttributeProto:
    """An attribute; ``kind`` tells what an empty list is a list of, and 1 from 1.0."""
    if isinstance(value, np.ndarray):
        value = numpy_helper.from_array(value)
    elif kind == AttributeProto.FLOAT:
        value = float(value)
    elif kind == AttributeProto.FLOATS:
        value = [float(v) for v in value]
    return helper.make_attribute(key, value, attr_type=kind)
