"""Inputs and outputs of four dimensions that the source has as NHWC, fed and read as NCHW.

x[1,8,8,3] -> Conv2D -> y[1,8,8,4]
x[1,3,8,8] -> Transpose -> x/NHWC[1,8,8,3] -> Conv2D -> y/NHWC[1,8,8,4] -> Transpose -> y[1,4,8,8]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from tvm_ipu.base.errors import OptionError
from tvm_ipu.frontends.onnx.graph import subgraphs
from tvm_ipu.frontends.onnx.inputs import unknown_names

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)


def as_nchw(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Turn inputs and outputs of a model, in place; outputs of another rank stay as they are.

    Args:
        model: The model.
        inputs: Names of inputs to feed as NCHW.
        outputs: Names of outputs to read as NCHW.

    Raises:
        OptionError: A name is no input or output of the model, or an input has not four dimensions.
    """
    graph = model.graph
    fed = _named("--inputs-as-nchw: there is no input", graph.input, inputs)
    read = _named("--outputs-as-nchw: there is no output", graph.output, outputs)
    flat = [info.name for info in fed if len(info.type.tensor_type.shape.dim) != 4]
    if flat:
        raise OptionError(f"--inputs-as-nchw: input '{flat[0]}' has not four dimensions")
    read = [info for info in read if len(info.type.tensor_type.shape.dim) == 4]
    _rename(graph, {info.name: f"{info.name}/NHWC" for info in (*fed, *read)})
    for info in fed:
        graph.node.insert(0, _transpose(info.name, f"{info.name}/NHWC", TO_NHWC))
    for info in read:
        graph.node.append(_transpose(f"{info.name}/NHWC", info.name, TO_NCHW))
    for info in (*fed, *read):
        _turn(info)


def _named(what: str, infos: Sequence[ValueInfoProto], names: Sequence[str]) -> list[ValueInfoProto]:
    known = {info.name: info for info in infos}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise OptionError(unknown_names(what, unknown, list(known)))
    return [known[name] for name in dict.fromkeys(names)]


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors where nodes make and read them, in the bodies of nodes too."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for body in subgraphs(node):
            _rename(body, names)
            for info in body.output:
                info.name = names.get(info.name, info.name)


def _transpose(source: str, result: str, perm: Sequence[int]) -> NodeProto:
    return helper.make_node("Transpose", [source], [result], f"{source} -> {result}", perm=perm)


def _turn(info: ValueInfoProto) -> None:
    """Reorder the dimensions of a tensor from NHWC to NCHW."""
    shape = info.type.tensor_type.shape
    shape.CopyFrom(type(shape)(dim=[shape.dim[i] for i in TO_NCHW]))
