"""A simplified graph as an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import whole_file
from tvm_ipu.frontends.onnx.evaluate import find_schema
from tvm_ipu.frontends.onnx.graph import Const, Graph, Op, domain_of, node_label
from tvm_ipu.frontends.onnx.tensors import PACKED_BITS

INLINE_LIMIT = 2**31 - 2**24
"""Bytes of weights up to which they are put inside the file."""

SMALL = 1024
"""Bytes up to which a tensor stays in the model file: shapes and axes, which shape inference has to read."""

_PAGE = 4096


def to_proto(graph: Graph, weights_file: str = "") -> ModelProto:
    """The graph as a model, with the shapes of all tensors.

    Args:
        graph: The graph.
        weights_file: Where ``save`` puts the weights; empty for weights inside the model.

    Raises:
        ModelError: Function bodies of other opsets than the model's do not go with it.
    """
    for op in graph.ops:
        _check_version(op, graph.opsets)
    names: dict[str, str] = {}
    computed = {t.name for op in graph.ops for t in op.outputs if t}
    for name, value in graph.outputs:
        if value.name in computed:
            names.setdefault(value.name, name)
    clashes = {new for old, new in names.items() if old != new} & (computed - set(names))
    names |= {old: f"{old}/inner" for old in clashes}
    nodes = [_renamed(op.node, names) for op in graph.ops]
    for name, value in graph.outputs:
        inner = names.get(value.name, value.name)
        if inner != name:
            nodes.append(helper.make_node("Identity", [inner], [name], f"{name}/Identity"))
    inputs = [helper.make_tensor_value_info(t.name, t.elem_type, t.shape) for t in graph.inputs]
    outputs = [helper.make_tensor_value_info(name, v.elem_type, v.shape) for name, v in graph.outputs]
    constants = [_initializer(c, offset, weights_file) for c, offset in _offsets(graph)]
    shown = {name for name, _ in graph.outputs}
    infos = [
        helper.make_tensor_value_info(names.get(t.name, t.name), t.elem_type, t.shape)
        for op in graph.ops
        for t in op.outputs
        if t and t.elem_type and names.get(t.name, t.name) not in shown
    ]
    proto = helper.make_graph(nodes, graph.name or "model", inputs, outputs, constants, value_info=infos)
    domains = {domain_of(node) for node in nodes} | {""}
    opsets = [helper.make_opsetid(d, v) for d, v in graph.opsets.items() if d in domains]
    version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    return helper.make_model(proto, producer_name="tvm_ipu", opset_imports=opsets, ir_version=max(version, 4))


def data_file(graph: Graph, path: Path) -> str:
    """Name of the file beside ``path`` for weights that are too large for the model file itself, or empty."""
    size = sum(c.array.nbytes for c in graph.constants())
    return f"{path.name}.data" if size > INLINE_LIMIT else ""


def save(model: ModelProto, graph: Graph, path: Path) -> None:
    """Write the model of ``to_proto``, and the weights of ``graph`` beside it where they are not in it.

    Raises:
        ModelError: A file cannot be written; nothing is left then.
    """
    name = data_file(graph, path)
    data = path.with_name(name or path.name)
    try:
        if name:
            with whole_file(data) as file:
                for constant, offset in _offsets(graph):
                    file.seek(offset)
                    file.write(constant.array.tobytes())
        with whole_file(path) as file:
            file.write(model.SerializeToString())
    except OSError as err:
        if name:
            data.unlink(missing_ok=True)
        raise ModelError(f"cannot write '{path}': {err.strerror}") from err


def _offsets(graph: Graph) -> Iterator[tuple[Const, int]]:
    """Place of each constant in the data file, on a page of its own."""
    offset = 0
    for constant in graph.constants():
        yield constant, offset
        offset += -(-constant.array.nbytes // _PAGE) * _PAGE


def _initializer(constant: Const, offset: int, location: str) -> TensorProto:
    inside = not location or constant.array.nbytes <= SMALL
    if inside or constant.array.dtype == object or constant.elem_type in PACKED_BITS:
        return numpy_helper.from_array(constant.array, constant.name)
    tensor = TensorProto(name=constant.name, data_type=constant.elem_type, dims=constant.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", constant.array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _check_version(op: Op, opsets: dict[str, int]) -> None:
    domain = domain_of(op.node)
    version = opsets.setdefault(domain, op.version)
    ours, theirs = (find_schema(op.node.op_type, v, domain) for v in (version, op.version))
    if version != op.version and (
        ours is None or theirs is None or ours.since_version != theirs.since_version
    ):
        raise ModelError(
            f"node '{node_label(op.node)}' ({op.node.op_type}) comes from a function of opset {op.version}, "
            f"which does not go with the model's opset {version}"
        )


def _renamed(node: NodeProto, names: dict[str, str]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    return copy
