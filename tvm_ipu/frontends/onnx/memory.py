"""ONNX models in memory: read whole, cut, and with the shapes that a user gives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, external_data_helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.shapes import InputShapes
from tvm_ipu.frontends.onnx.crop import crop, known_types, reads
from tvm_ipu.frontends.onnx.inputs import set_shapes, static_shape
from tvm_ipu.frontends.onnx.load import parse_bytes, parse_file, read_proto, read_source
from tvm_ipu.frontends.onnx.tensors import read_tensor
from tvm_ipu.frontends.onnx.write import INLINE_LIMIT
from tvm_ipu.frontends.options import LoadOptions, OnnxSource


def in_memory(source: OnnxSource, options: LoadOptions, example_shapes: InputShapes = ()) -> ModelProto:
    """The part of a model that ``options`` ask for, all in one message.

    Args:
        source: The model, which stays as it is.
        options: Shapes and cuts; dimensions that are not given stay open.
        example_shapes: Shapes of inputs where ``options`` give none; names that are no inputs do not matter.

    Raises:
        ModelError: The model is missing or damaged.
        OptionError: An option does not fit the model.
    """
    if isinstance(source, Path):
        model = parse_file(source)
        _read_external(model, source.parent)
        model.graph.name = model.graph.name or source.stem
    else:
        model = parse_bytes(source) if isinstance(source, bytes) else copy.deepcopy(source)
    if options.inputs or options.outputs:
        _cut(model, options)
    weights = {t.name for t in model.graph.initializer}
    infos = [info for info in model.graph.input if info.name not in weights]
    set_shapes(infos, options.input_shapes or _known(example_shapes, [info.name for info in infos]))
    return model


def declared_shapes(source: OnnxSource, options: LoadOptions) -> dict[str, tuple[int, ...] | None]:
    """The shapes of the inputs by name, None where dimensions are open.

    Raises:
        ModelError: The model is missing or damaged.
        OptionError: ``options`` cut it at tensors that it does not have.
    """
    read = read_source(source)
    graph = crop(read, options.inputs, options.outputs).graph
    return {i.name: static_shape(i) for i in graph.input if i.name not in options.constants}


def save(model: ModelProto, path: Path) -> None:
    """Write a model, with its weights beside it where they are more than an ONNX file can hold.

    Raises:
        ModelError: The file cannot be written.
    """
    try:
        if model.ByteSize() > INLINE_LIMIT:
            onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}.data")
            return
        with whole_file(path) as file:
            file.write(model.SerializeToString())
    except OSError as err:
        raise ModelError(f"cannot write '{path}': {err.strerror}") from err


def _known(shapes: InputShapes, names: list[str]) -> InputShapes:
    if isinstance(shapes, Mapping):
        return {name: shape for name, shape in shapes.items() if name in names}
    return shapes if len(shapes) == len(names) else {}


def _read_external(model: ModelProto, folder: Path) -> None:
    for tensor in external_data_helper._get_all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = read_tensor(tensor, folder).tobytes()
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def _cut(model: ModelProto, options: LoadOptions) -> None:
    """Leave the part between two sets of tensors, with the weights that it still needs."""
    source = read_proto(model)
    part = crop(source, options.inputs, options.outputs).graph
    known = known_types(source)
    needed = {name for node in part.node for name in reads(node)} | {info.name for info in part.output}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    outputs = [known.get(info.name, info) for info in part.output]
    parts = {"node": part.node, "input": part.input, "output": outputs, "initializer": weights}
    for field, values in {**parts, "value_info": ()}.items():
        found = getattr(model.graph, field)
        del found[:]
        found.extend(values)
