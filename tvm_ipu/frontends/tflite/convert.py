"""A TensorFlow Lite model as ONNX. Quantised tensors keep their scales, which QuantizeLinear nodes hold.

x[1,8,8,3] -> CONV_2D -> y[1,8,8,4]
x[1,8,8,3] -> DequantizeLinear -> Transpose -> Conv -> Transpose -> QuantizeLinear -> y[1,8,8,4]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onnx import ModelProto, helper

from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.base.shapes import InputShapes, Shape
from tvm_ipu.frontends.damage import refuse_damage
from tvm_ipu.frontends.onnx.inputs import fix_inputs, unknown_names
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.frontends.tflite.builder import Builder
from tvm_ipu.frontends.tflite.call import Call, Refused
from tvm_ipu.frontends.tflite.model import Operator, Subgraph, Tensor, numpy_type
from tvm_ipu.frontends.tflite.ops import conv, elementwise, index, quantize, reduce, resize, rnn, shape
from tvm_ipu.frontends.tflite.ops.table import Table
from tvm_ipu.frontends.tflite.reader import read_bytes, read_file

TABLE: Table = {
    **conv.TABLE,
    **elementwise.TABLE,
    **index.TABLE,
    **quantize.TABLE,
    **reduce.TABLE,
    **resize.TABLE,
    **rnn.TABLE,
    **shape.TABLE,
}
"""All operators."""


def to_onnx(source: Path | bytes, options: LoadOptions) -> ModelProto:
    """The part of a TensorFlow Lite model that ``options`` ask for.

    Args:
        source: The file, or what is in it.
        options: Shapes and cuts. Dimensions that the file leaves open are what the file proposes, mostly 1,
            unless shapes or a batch are given.

    Raises:
        ModelError: The file is missing, truncated or damaged, or the shapes do not fit the model.
        UnsupportedOperatorError: Operators have no ONNX form; all of them are listed.
        OptionError: An option does not fit the model.
    """
    graph = _read(source, options.signature)
    name = "model" if isinstance(source, bytes) else source.stem
    inputs, outputs, operators = _cut(graph, options)
    builder = Builder(tensor.name for tensor in graph.tensors)
    _add_inputs(builder, inputs, options)
    _convert(graph, operators, builder)
    for tensor in outputs:
        if not builder.has(tensor.name) and tensor.data is not None:
            builder.source_constant(tensor.name, tensor.data)
    return builder.model(name, [t.name for t in inputs], [t.name for t in outputs])


def _read(source: Path | bytes, signature: str) -> Subgraph:
    return (
        read_file(source, signature) if isinstance(source, Path) else read_bytes(source, "model", signature)
    )


def _cut(graph: Subgraph, options: LoadOptions) -> tuple[list[Tensor], list[Tensor], list[Operator]]:
    """Inputs, outputs and operators of the wanted part."""
    places = {tensor.name: i for i, tensor in enumerate(graph.tensors)}
    computed = {i for operator in graph.operators for i in operator.outputs} | {*graph.inputs}
    known = [graph.tensors[i].name for i in sorted(computed)]
    given = {"--input-arrays": options.inputs, "--output-arrays": options.outputs}
    for flag, names in given.items():
        unknown = [name for name in names if places.get(name) not in computed]
        if unknown:
            raise OptionError(unknown_names(f"{flag}: there is no tensor", unknown, known))
    starts = [places[name] for name in options.inputs] or [*dict.fromkeys(graph.inputs)]
    wanted = [places[name] for name in options.outputs] or [*dict.fromkeys(graph.outputs)]
    if not wanted or any(i not in computed and graph.tensors[i].data is None for i in wanted):
        raise ModelError("the model has no outputs, or some that nothing computes")
    needed, live = set(wanted), []
    for operator in reversed(graph.operators):
        if (needed - set(starts)).intersection(operator.outputs):
            live.append(operator)
            needed.update(i for i in operator.inputs if i >= 0)
    if options.inputs or options.outputs:
        starts = [i for i in starts if i in needed]
    reached = {i for operator in live for i in operator.inputs}
    missing = [i for i in graph.inputs if i in reached and i not in starts]
    if missing:
        listed = ", ".join(f"'{graph.tensors[i].name}'" for i in missing)
        raise OptionError(f"--input-arrays: the outputs also need {listed}")
    return [graph.tensors[i] for i in starts], [graph.tensors[i] for i in wanted], live[::-1]


def _add_inputs(builder: Builder, inputs: Sequence[Tensor], options: LoadOptions) -> None:
    """The inputs in the shapes that are asked for."""
    infos = []
    for tensor in inputs:
        dtype = numpy_type(tensor.dtype)
        if dtype is None:
            raise ModelError(f"input '{tensor.name}' is {tensor.dtype}, which images do not have")
        dims: list[int | None] = [*tensor.shape]
        if dims and tensor.is_open[0] and options.batch is not None:
            dims[0] = None
        elem = helper.np_dtype_to_tensor_dtype(dtype)
        infos.append(helper.make_tensor_value_info(tensor.name, elem, dims))
    shapes = _shapes(options.input_shapes, {tensor.name: tensor.shape for tensor in inputs})
    for fixed in fix_inputs(infos, shapes, options.batch):
        builder.input(fixed)


def _shapes(given: InputShapes, own: Mapping[str, Shape]) -> InputShapes:
    """The given shapes, with the file's own dimension for each -1."""

    def filled(shape: Shape, default: Shape) -> Shape:
        known = [*default, *shape[len(default) :]]
        return tuple(known[i] if d == -1 else d for i, d in enumerate(shape))

    if isinstance(given, Mapping):
        return {name: filled(tuple(shape), own.get(name, ())) for name, shape in given.items()}
    defaults = [*own.values(), *[()] * len(given)]
    return [filled(tuple(shape), default) for shape, default in zip(given, defaults, strict=False)]


def _convert(graph: Subgraph, operators: Iterable[Operator], builder: Builder) -> None:
    """Add the nodes of all operators."""
    refused: list[str] = []
    lacking: set[int] = set()
    cuts: dict[str, None] = {}
    reals: dict[str, str] = {}
    for operator in operators:
        if lacking.intersection(operator.inputs):
            lacking.update(operator.outputs)
            if operator.is_custom or operator.code not in TABLE:
                refused.append(graph.label(operator))
            continue
        try:
            with refuse_damage(graph.label(operator)):
                _convert_one(Call(graph, operator, builder, reals))
        except Refused as err:
            refused.append(f"{graph.label(operator)}" + (f": {err}" if str(err) else ""))
            lacking.update(operator.outputs)
            cuts |= dict.fromkeys(
                graph.tensors[i].name for i in operator.inputs if i >= 0 and graph.tensors[i].data is None
            )
    if refused:
        raise UnsupportedOperatorError(
            f"{len(refused)} operators of the model cannot be converted:"
            + "".join(f"\n  {one}" for one in refused),
            f"cut the model before them: --output-arrays {','.join(cuts)}" if cuts else "",
        )


def _convert_one(call: Call) -> None:
    operator = call.operator
    call.builder.place = call.result().name
    if operator.is_custom or operator.code not in TABLE:
        raise Refused
    results = TABLE[operator.code](call)
    call.finish([results] if isinstance(results, str) else results)
