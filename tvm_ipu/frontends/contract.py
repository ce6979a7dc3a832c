"""A float graph whose inputs and outputs are as ``input_config.ini`` says: checked, and in its layouts.

images[1,3,8,8] -> Conv -> y[1,4,8,8]
images[1,8,8,3] -> Transpose -> images/NCHW[1,3,8,8] -> Conv -> y/NCHW[1,4,8,8] -> Transpose -> y[1,8,8,4]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvm_ipu.base.contract import Contract, InputContract
from tvm_ipu.base.graph import Graph, Node
from tvm_ipu.base.ini import IniFile, suggest
from tvm_ipu.base.input_config import CONV, INPUT, OUTPUT, refuse
from tvm_ipu.base.tensor import TensorSpec

_OTHER = {"NCHW": "NHWC", "NHWC": "NCHW"}
_FROM = {"NCHW": (0, 2, 3, 1), "NHWC": (0, 3, 1, 2)}
"""Dimensions of the other layout in each one."""


def check_contract(graph: Graph, contract: Contract, file: IniFile, layout: str = "NCHW") -> None:
    """Compare a contract with the model that it is for.

    Args:
        graph: The model as its file has it.
        contract: What ``file`` states.
        file: For the messages.
        layout: Of data of four dimensions in the model file.

    Raises:
        ConfigError: Names, order, ranks or channels do not agree, or a tensor does not exist.
    """
    raw = [one.name for one in contract.inputs if one.is_raw]
    order = sorted((spec.name for spec in graph.inputs), key=lambda name: name in raw)
    _check_names(file, INPUT, "inputs", [one.name for one in contract.inputs], order)
    names = [spec.name for spec in graph.outputs]
    _check_names(file, OUTPUT, "outputs", [one.name for one in contract.outputs], names)
    specs = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
    for one in contract.inputs:
        _check_input(file, graph, one, specs[one.name], layout)
    for result in contract.outputs:
        if result.layout == "NCHW" and len(specs[result.name].shape) != 4:
            what = f"'{result.name}' has {len(specs[result.name].shape)} dimensions and cannot be NCHW"
            refuse(file, OUTPUT, "output_layouts", what)
    convolutions = [node.inputs[0] for node in graph.nodes if node.op_type in ("Conv", "ConvTranspose")]
    for name in contract.conv.tensors:
        if name not in convolutions:
            what = f"'{name}' is not the first input of a convolution"
            refuse(file, CONV, "tensor_arrays", what, suggest(name, convolutions))


def _check_names(file: IniFile, section: str, key: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    what = key[:-1]
    for name in found:
        if name not in wanted:
            hint = f"{suggest(name, wanted)}it has {', '.join(wanted)}"
            refuse(file, section, key, f"the model has no {what} '{name}'", hint)
    missing = [name for name in wanted if name not in found]
    if missing:
        refuse(file, section, key, f"the model's {what} '{missing[0]}' is not named")
    if list(found) != list(wanted):
        refuse(file, section, key, f"the order is not the model's, {','.join(wanted)}")


def _check_input(file: IniFile, graph: Graph, one: InputContract, spec: TensorSpec, layout: str) -> None:
    rank = len(spec.shape)
    if one.layout == "NCHW" and rank != 4:
        refuse(file, INPUT, "input_layouts", f"'{one.name}' has {rank} dimensions and cannot be NCHW")
    if not one.is_raw and _layout_of(one, spec, layout) is None:
        what = f"'{one.name}' has the shape {list(spec.shape)}, which is no {one.training_format} picture"
        refuse(file, INPUT, "training_input_formats", what, "data that are no picture have a RAWDATA format")
    if one.input_format == "RAWDATA_U16_NHWC" and not _is_index(graph, one.name):
        what = f"'{one.name}' is RAWDATA_U16_NHWC, but it is not the index of an embedding"
        refuse(file, INPUT, "input_formats", what)


def _is_index(graph: Graph, name: str) -> bool:
    """Whether all that reads a tensor are embeddings, maybe behind a change of its type."""
    readers = graph.readers().get(name, [])
    return bool(readers) and all(
        (node.op_type == "Cast" and _is_index(graph, node.outputs[0]))
        or (node.op_type == "Gather" and node.inputs[1] == name and node.inputs[0] in graph.constants)
        for node in readers
    )


def _layout_of(one: InputContract, spec: TensorSpec, layout: str) -> str | None:
    """The layout of an input of four dimensions in the model file; None where it is no picture."""
    if len(spec.shape) != 4:
        return None
    if one.is_raw:
        return layout
    channels = one.channels
    places = {"NCHW": spec.shape[1], "NHWC": spec.shape[3]}
    return next((name for name in (layout, _OTHER[layout]) if places[name] == channels), None)


def apply_layouts(graph: Graph, contract: Contract, layout: str = "NCHW") -> Graph:
    """The graph with inputs and outputs of four dimensions in the contract's layouts.

    Outputs are taken to be in the layout of the model's pictures, where it has some.

    Args:
        graph: The model as its file has it, which ``check_contract`` let pass.
        contract: What the board feeds and reads.
        layout: Of data of four dimensions in the model file.
    """
    specs = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
    pictures = [_layout_of(one, specs[one.name], layout) for one in contract.inputs if not one.is_raw]
    turned: dict[str, str] = {}
    before, after = [], []
    tensors = dict(graph.tensors)
    for one in contract.inputs:
        own = _layout_of(one, specs[one.name], layout)
        if own and own != one.layout:
            inner = turned[one.name] = f"{one.name}/{own}"
            tensors[inner] = replace(specs[one.name], name=inner)
            specs[one.name] = _turned(specs[one.name], own)
            before.append(_transpose(one.name, inner, _FROM[one.layout]))
    inside = next((own for own in pictures if own), layout)
    for result in contract.outputs:
        if len(specs[result.name].shape) == 4 and inside != result.layout and result.name not in turned:
            inner = turned[result.name] = f"{result.name}/{inside}"
            tensors[inner] = replace(specs[result.name], name=inner)
            specs[result.name] = tensors[result.name] = _turned(specs[result.name], inside)
            after.append(_transpose(inner, result.name, _FROM[inside]))
    nodes = [_renamed(node, turned) for node in graph.nodes]
    return replace(
        graph,
        nodes=(*before, *nodes, *after),
        inputs=tuple(specs[spec.name] for spec in graph.inputs),
        outputs=tuple(specs[spec.name] for spec in graph.outputs),
        constants={turned.get(name, name): value for name, value in graph.constants.items()},
        tensors=tensors,
    )


def _turned(spec: TensorSpec, layout: str) -> TensorSpec:
    """A tensor in ``layout`` as it is in the other one."""
    return replace(spec, shape=tuple(spec.shape[i] for i in _FROM[layout]))


def _transpose(source: str, result: str, perm: tuple[int, ...]) -> Node:
    return Node(f"{source} -> {result}", "Transpose", (source,), (result,), {"perm": list(perm)})


def _renamed(node: Node, names: dict[str, str]) -> Node:
    return replace(
        node,
        inputs=tuple(names.get(name, name) for name in node.inputs),
        outputs=tuple(names.get(name, name) for name in node.outputs),
    )
