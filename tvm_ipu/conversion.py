"""A model of any framework as an ONNX model in memory, in the manner of OpenVINO's ``convert_model``.

model = convert_model(module, example_input=inputs, input=[("ids", [1, -1], "int64")])
serialize(model, "model.onnx")      # tvm_ipu.quantization; so are quantize and compile_model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.shapes import InputShapes, parse_input_shapes
from tvm_ipu.base.tensor import DType
from tvm_ipu.frontends.loaders import as_onnx
from tvm_ipu.frontends.options import LoadOptions

if TYPE_CHECKING:
    from onnx import ModelProto

Shapes = InputShapes | Sequence[int] | str
"""Shapes by input or in order, the shape of the only input, or text as the command line takes it."""


def convert_model(
    source: Any,
    example_input: Any = None,
    input: Any = None,  # noqa: A002 - the name that OpenVINO's users write
    input_shape: Shapes | None = None,
    *,
    input_arrays: Sequence[str] = (),
    output_arrays: Sequence[str] = (),
    loading: LoadOptions | None = None,
) -> ModelProto:
    """A model of any framework as an ONNX model in memory.

    The result is what ``quantization.serialize``, ``quantize`` and ``compile_model`` take, and any other
    function here that takes a model. Its inputs have the shapes that are given; without any, those of
    ``example_input``. Dimensions of -1 stay open until the model is quantised or compiled.

    Args:
        source: Path of a file or folder; ``torch.nn.Module``, ``ScriptModule``, ``ScriptFunction`` or
            ``ExportedProgram``; a Keras model; a jitted JAX function; an ONNX ``ModelProto``.
        example_input: Arguments to trace a function with: a tensor or array, several in a list or tuple, or
            a dict by argument.
        input: Tuples of name, shape and element type, an input each, in any order and without the parts that
            do not matter: ``[("ids", [1, -1], np.int64)]``.
        input_shape: Only the shapes; in place of ``input``.
        input_arrays: Tensors where the network begins; by default its inputs.
        output_arrays: Tensors where it ends; by default its outputs.
        loading: What else the conversion needs: a file of weights, trust in a pickle, a signature.

    Raises:
        TvmIpuError: Anything the user can mend.
    """
    from tvm_ipu.frontends.onnx.memory import in_memory

    shapes, types = _inputs(input) if input is not None else ({}, ())
    if input_shape is not None:
        if input is not None:
            raise OptionError("convert_model: give input or input_shape, not both")
        shapes = _shapes(input_shape)
    options = replace(
        loading or LoadOptions(),
        example_input=example_input,
        inputs=tuple(input_arrays),
        outputs=tuple(output_arrays),
    )
    if shapes or types:
        options = replace(options, input_shapes=shapes, input_types=types)
    if not options.input_shapes and example_input is not None:
        return in_memory(as_onnx(source, options), options, example_shapes(example_input))
    return in_memory(as_onnx(source, options), options)


def example_shapes(example: Any) -> InputShapes:
    """The shapes of an example's arrays; none where they are not arrays alone."""
    if isinstance(example, Mapping):
        named = {str(name): _shape_of(value) for name, value in example.items()}
        return {name: shape for name, shape in named.items() if shape is not None}
    values = example if isinstance(example, list | tuple) else [example]
    shapes = [_shape_of(value) for value in values]
    return [shape for shape in shapes if shape is not None] if None not in shapes else []


def _shape_of(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", () if isinstance(value, int | float | bool) else None)
    return None if shape is None else tuple(int(d) for d in shape)


def _shapes(given: Shapes) -> InputShapes:
    if isinstance(given, str):
        return parse_input_shapes([given], "input_shape")
    if isinstance(given, Mapping):
        return {name: _dims(shape) for name, shape in given.items()}
    if all(_is_int(d) for d in given):
        return [_dims(given)]
    return [_dims(shape) for shape in given]


def _dims(shape: Any) -> tuple[int, ...]:
    """A shape; anything that is no length of 0 or more is -1, an open dimension."""
    try:
        dims = tuple(-1 if d is None else int(d) for d in shape)
    except (TypeError, ValueError) as err:
        raise OptionError(f"convert_model: {shape!r} is not a shape", "a shape is a list of numbers") from err
    if any(d < -1 for d in dims):
        raise OptionError(f"convert_model: {list(dims)} has a dimension below -1", "an open dimension is -1")
    return dims


def _inputs(given: Any) -> tuple[InputShapes, Mapping[str, str] | Sequence[str]]:
    """Shapes and types that ``input`` states."""
    if isinstance(given, tuple) and any(isinstance(part, str) for part in given):
        given = [given]  # one input
    if isinstance(given, Mapping):
        return _shapes(given), {}
    if not isinstance(given, list | tuple):
        raise OptionError(f"convert_model: input is a {type(given).__name__}", _INPUT_HINT)
    if given and all(_is_int(part) for part in given):
        return [_dims(given)], ()
    parts = [_parts(one) for one in given]
    if all(name is None for name, _, _ in parts):
        shapes = [shape for _, shape, _ in parts if shape is not None]
        types = [kind for _, _, kind in parts if kind is not None]
        if len(shapes) not in (0, len(parts)) or len(types) not in (0, len(parts)):
            raise OptionError("convert_model: some inputs have a shape or type and others none", _INPUT_HINT)
        return shapes, tuple(types)
    names = [name for name, _, _ in parts]
    if None in names or len(set(names)) != len(names):
        raise OptionError("convert_model: inputs without a name, or with the same", _INPUT_HINT)
    return (
        {str(name): shape for name, shape, _ in parts if shape is not None},
        {str(name): kind for name, _, kind in parts if kind is not None},
    )


_INPUT_HINT = 'write input=[("name", [1, -1], "int64"), ...], a tuple an input'


def _parts(one: Any) -> tuple[str | None, tuple[int, ...] | None, str | None]:
    """Name, shape and element type of a description of an input, None where it says none."""
    if isinstance(one, str):
        return one, None, None
    if isinstance(one, list) or (isinstance(one, tuple) and all(d is None or _is_int(d) for d in one)):
        return None, _dims(one), None
    if not isinstance(one, tuple):
        raise OptionError(f"convert_model: {one!r} does not describe an input", _INPUT_HINT)
    name = shape = kind = None
    for place, part in enumerate(one):
        if isinstance(part, str) and place == 0:
            name = part
        elif isinstance(part, Sequence) and not isinstance(part, str):
            shape = _dims(part)
        else:
            kind = _type_name(part)
    return name, shape, kind


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer)


def _type_name(kind: Any) -> str:
    """numpy's name of an element type of any framework."""
    text = getattr(kind, "__name__", None) or getattr(kind, "name", None) or str(kind).rpartition(".")[2]
    try:
        return DType.parse(str(text).removesuffix("_")).label
    except ValueError as err:
        raise OptionError(f"convert_model: {err}", 'write "float32" or np.float32') from err
