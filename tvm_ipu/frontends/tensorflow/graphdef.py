"""A frozen ``.pb`` file; and any frozen graph cut to the part between given tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.base.files import read_model_file
from tvm_ipu.frontends.onnx.inputs import unknown_names
from tvm_ipu.frontends.onnx.nchw import TO_NHWC
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.frontends.tensorflow.frozen import Frozen, canonical, check, data_inputs, live_nodes, node_of

_NORMALIZATIONS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
"""Only the first of their outputs means something outside of training."""

_WITHOUT_VALUE = ("Assert", "Const", "NoOp", "Placeholder", "PlaceholderWithDefault", "SaveV2")


def read_graphdef(path: Path) -> Frozen:
    """The frozen graph in a file; inputs are its placeholders, outputs the tensors that nothing reads.

    Raises:
        ModelError: It is missing, empty, truncated or no GraphDef.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.framework.graph_pb2 import GraphDef

    try:
        graph = GraphDef.FromString(read_model_file(path))
    except DecodeError as err:
        raise ModelError(f"'{path}' is not a TensorFlow GraphDef, or it is truncated", _hint(path)) from err
    if not graph.node or not all(node.name and node.op for node in graph.node):
        raise ModelError(f"'{path}' is not a TensorFlow GraphDef", _hint(path))
    inputs = {node.name: f"{node.name}:0" for node in graph.node if node.op == "Placeholder"}
    return Frozen(graph, inputs, _unread(graph, set(inputs.values())), f"'{path}'")


def _hint(path: Path) -> str:
    return "give the folder of the SavedModel" if path.name == "saved_model.pb" else ""


def _unread(graph: Any, inputs: set[str]) -> dict[str, str]:
    """Outputs of the nodes that nothing reads and that depend on an input."""
    from tensorflow.python.framework import op_def_registry

    read = {node_of(name) for node in graph.node for name in node.input}
    found: dict[str, str] = {}
    for node in graph.node:
        if node.name in read or node.op in _WITHOUT_VALUE:
            continue
        needed = live_nodes(graph, [f"{node.name}:0"], set())
        if not any(name in inputs for one in needed for name in data_inputs(one)):
            continue
        known = op_def_registry.get(node.op)
        count = 1 if node.op in _NORMALIZATIONS or known is None else _count(known, node)
        found |= {node.name if i == 0 else f"{node.name}:{i}": f"{node.name}:{i}" for i in range(count)}
    return found


def _count(definition: Any, node: Any) -> int:
    """Number of outputs of a node."""
    count = 0
    for output in definition.output_arg:
        if output.number_attr:
            count += node.attr[output.number_attr].i
        elif output.type_list_attr:
            count += len(node.attr[output.type_list_attr].list.type)
        else:
            count += 1
    return count


def crop(model: Frozen, options: LoadOptions) -> Frozen:
    """The part of a model between two sets of tensors, with the inputs' shapes set as far as they are given.

    Args:
        model: The model.
        options: Inputs and outputs, tensors with or without ``:0``; shapes by input or in order.

    Raises:
        OptionError: A name is none of the model's tensors.
        ModelError: The part is not whole, or does not fit the shapes.
        UnsupportedOperatorError: It has operators that TensorFlow does not know.
    """
    sources = _resolve(model, "--input-arrays", options.inputs, model.inputs)
    results = _resolve(model, "--output-arrays", options.outputs, model.outputs)
    if not results:
        raise ModelError(f"{model.label} has no outputs", "name them with --output-arrays")
    stops = set(sources.values())
    live = live_nodes(model.graph, list(results.values()), stops)
    check(model.graph, live, model.label, stops)
    used = {name for node in live for name in data_inputs(node)} | set(results.values())
    sources = {name: tensor for name, tensor in sources.items() if tensor in used}
    free = [node.name for node in live if node.op == "Placeholder"]
    if free:
        raise OptionError(f"--input-arrays: the outputs also depend on the input '{free[0]}'", "name it too")
    return _import(model, live, sources, results, _shapes(list(sources), options))


def _shapes(names: Sequence[str], options: LoadOptions) -> dict[str, Sequence[int]]:
    """The shapes that are given, by input, as the model has them; a dimension of -1 stays the model's."""
    given = options.input_shapes
    shapes = dict(given if isinstance(given, Mapping) else zip(names, given, strict=False))
    for name in options.inputs_as_nchw:
        if len(shapes.get(name, ())) == 4:
            shapes[name] = [shapes[name][i] for i in TO_NHWC]
    return shapes


def _resolve(model: Frozen, option: str, names: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    """The tensors that are meant, by the names that the user gives them."""
    if not names:
        return dict(own)
    nodes = {node.name for node in model.graph.node}
    declared = {**model.others, **model.outputs, **model.inputs}
    found = {name: declared.get(name, canonical(name)) for name in names}
    unknown = [name for name, tensor in found.items() if node_of(tensor) not in nodes]
    if unknown:
        known = [*declared, *(node for node in nodes if node not in declared)]
        raise OptionError(unknown_names(f"{option}: there is no tensor", unknown, known))
    return found


def _import(
    model: Frozen,
    live: Sequence[Any],
    sources: Mapping[str, str],
    results: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
) -> Frozen:
    """The nodes that live as a graph of their own, in which TensorFlow has inferred all shapes."""
    import tensorflow as tf

    try:
        types = _tensor_types(model, sources.values())
        with tf.Graph().as_default() as graph:
            fed = {
                tensor: _placeholder(f"tvm_ipu/input_{i}", *types[tensor], shapes.get(name))
                for i, (name, tensor) in enumerate(sources.items())
            }
            read = {name for node in live for name in data_inputs(node)}
            replaced = {tensor: one for tensor, one in fed.items() if tensor in read}
            tf.import_graph_def(_part(model.graph, live), replaced, name="")
            made: dict[str, str] = {}
            for name, tensor in results.items():
                one = fed[tensor] if tensor in fed else graph.get_tensor_by_name(tensor)
                made[name] = tf.identity(one).name if tensor in fed or one.name in made.values() else one.name
    except (KeyError, ValueError, tf.errors.OpError) as err:
        raise ModelError(f"{model.label}: {_reason(err)}") from err
    named = {name: fed[tensor].name for name, tensor in sources.items()}
    return Frozen(graph.as_graph_def(), named, made, model.label)


def _placeholder(name: str, dtype: Any, shape: Any, given: Sequence[int] | None) -> Any:
    """An input; of its shape, the dimensions that are given replace the model's."""
    import tensorflow as tf

    if given is not None and (shape.rank is None or shape.rank == len(given)):
        own = shape.as_list() if shape.rank is not None else [None] * len(given)
        shape = [old if new == -1 else new for old, new in zip(own, given, strict=True)]
    return tf.compat.v1.placeholder(dtype, shape, name)


def _tensor_types(model: Frozen, tensors: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Type and shape of tensors; inside the graph, those that TensorFlow infers from the model's inputs."""
    import tensorflow as tf

    wanted = list(tensors)
    live = live_nodes(model.graph, wanted, set())
    check(model.graph, live, model.label, set())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(_part(model.graph, live, defaults=False), name="")
        found = {name: graph.get_tensor_by_name(name) for name in wanted}
    return {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()}


def _part(graph: Any, nodes: Iterable[Any], defaults: bool = True) -> Any:
    """A graph of some of the nodes: without control edges; placeholders have their default values."""
    part = type(graph)()
    part.versions.CopyFrom(graph.versions)
    part.library.CopyFrom(graph.library)
    for node in nodes:
        copy = part.node.add()
        copy.CopyFrom(node)
        copy.attr.pop("_output_shapes", None)
        copy.attr.pop("_class", None)
        copy.input[:] = [name for name in node.input if not name.startswith("^")]
        if defaults and node.op == "PlaceholderWithDefault":
            copy.op = "Identity"
            copy.attr["T"].CopyFrom(node.attr["dtype"])
            del copy.attr["dtype"], copy.attr["shape"]
    return part


def _reason(err: Exception) -> str:
    """The first line of TensorFlow's message."""
    return str(err).strip().splitlines()[0]
