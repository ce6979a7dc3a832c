"""A Keras model as a frozen graph, whose nodes are named after the layers that made them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.frontends.options import LoadOptions
from tvm_ipu.frontends.tensorflow.frozen import Frozen, node_of


@dataclass
class _Trace:
    """What happened while a model's function was traced.

    Attributes:
        scopes: Layer, as a path from the model, that TensorFlow's name scope stands for.
        tensors: Output tensor of each layer that gives one.
        results: Tensors that the model returned.
        keys: Keys of the outputs where they are a dict.
    """

    scopes: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def trace(model: Any, options: LoadOptions) -> Frozen:
    """The graph of a model's inference.

    Inputs are named as the model's input layers, outputs by their keys or by the layers that they come from;
    the output of every layer can be named by the layer's path.

    Args:
        model: A ``keras.Model``.
        options: With an example where the model does not say what its inputs are.

    Raises:
        OptionError: The model's inputs are not known.
        ModelError: It cannot be traced.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    label = f"Keras model '{model.name}'"
    specs = _signature(model, options, label)
    seen = _Trace()

    def infer(inputs: Any) -> Any:
        seen.scopes.clear()
        seen.tensors.clear()
        results = model(inputs, training=False)
        seen.keys = sorted(results) if isinstance(results, Mapping) else []
        flat = tf.nest.flatten(results)
        seen.results = [tensor.name for tensor in flat]
        return flat

    try:
        with _followed(model, seen):
            function = tf.function(infer, autograph=False).get_concrete_function(specs)
        frozen = convert_variables_to_constants_v2(
            function, lower_control_flow=False, aggressive_inlining=True
        )
    except Exception as err:  # whatever the layers' code raises
        reason = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise ModelError(f"{label} cannot be traced: {reason}") from err
    flat = tf.nest.flatten(specs)
    names = _output_names(model, seen)
    renamed = _Renaming(seen.scopes)
    return Frozen(
        renamed.graph(frozen.graph.as_graph_def()),
        {spec.name: renamed.name(tensor.name) for spec, tensor in zip(flat, function.inputs, strict=False)},
        {name: renamed.name(tensor.name) for name, tensor in zip(names, frozen.outputs, strict=True)},
        label,
        {name: renamed.name(tensor) for name, tensor in seen.tensors.items()},
    )


def _signature(model: Any, options: LoadOptions, label: str) -> Any:
    """Type of each input, in the structure in which the model takes them."""
    import tensorflow as tf

    declared = getattr(model, "inputs", None)
    if declared:
        taken = getattr(model, "input", declared[0] if len(declared) == 1 else declared)
        return tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype, t.name), taken)
    example = options.example_input
    if example is None:
        raise OptionError(
            f"{label} does not say what its inputs are", "give example_input, arrays as it takes them"
        )
    flat = tf.nest.flatten(example)
    if isinstance(example, Mapping):
        names = sorted(example)
    elif isinstance(example, list | tuple):
        names = [f"input_{i}" for i in range(len(flat))]
    else:
        names = [*inspect.signature(model.call).parameters][:1]
    specs = [
        tf.TensorSpec(array.shape, tf.as_dtype(array.dtype), name)
        for array, name in zip(flat, names, strict=True)
    ]
    return tf.nest.pack_sequence_as(example, specs)


def _output_names(model: Any, seen: _Trace) -> list[str]:
    """A name for each output."""
    declared = list(getattr(model, "output_names", None) or ())
    layers = {tensor: layer for layer, tensor in seen.tensors.items()}
    for names in (seen.keys, declared, [layers.get(tensor, "") for tensor in seen.results]):
        if len(set(names)) == len(seen.results) and all(names):
            return names
    return [f"output_{i}" for i in range(len(seen.results))]


@contextmanager
def _followed(model: Any, seen: _Trace) -> Iterator[None]:
    """Note the name scope and the result of every layer that is called meanwhile."""
    with ExitStack() as stack:
        for path, layer in _layers(model):
            own = vars(layer).get("call")
            object.__setattr__(layer, "call", _noted(layer.call, path, seen))
            if own is None:
                stack.callback(object.__delattr__, layer, "call")
            else:
                stack.callback(object.__setattr__, layer, "call", own)
        yield


def _layers(model: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All layers, those inside of layers too, by their paths; a shared layer by its first."""
    waiting, seen = [(path, model)], {id(model)}
    while waiting:
        path, parent = waiting.pop(0)
        for layer in [*getattr(parent, "layers", ())]:
            if id(layer) not in seen:
                seen.add(id(layer))
                inner = f"{path}/{layer.name}" if path else layer.name
                waiting.append((inner, layer))
                yield inner, layer


def _noted(call: Callable[..., Any], path: str, seen: _Trace) -> Callable[..., Any]:
    def noted(*args: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        graph = tf.compat.v1.get_default_graph()
        seen.scopes[graph.get_name_scope()] = path
        result = call(*args, **kwargs)
        if isinstance(result, tf.Tensor) and result.graph is graph:
            seen.tensors[path] = result.name
        return result

    return noted


class _Renaming:
    """Names of nodes in which the scopes of layers are the layers' paths.

    Keras opens the scope of a layer twice, so that TensorFlow calls the nodes of the layer ``conv``
    ``conv_1/..``, and those of the next, ``conv_1``, ``conv_1_2/..``.
    """

    def __init__(self, scopes: Mapping[str, str]) -> None:
        calls: dict[str, int] = {}
        self._paths: dict[str, str] = {}
        for scope, path in scopes.items():
            calls[path] = calls.get(path, 0) + 1
            self._paths[scope] = path if calls[path] == 1 else f"{path}#{calls[path]}"

    def name(self, name: str) -> str:
        """A node or tensor."""
        scope = node_of(name)
        while scope:
            scope = scope.rpartition("/")[0]
            if scope in self._paths:
                return self._paths[scope] + name[len(scope) :]
        return name

    def graph(self, graph: Any) -> Any:
        """A GraphDef, in place."""
        for node in graph.node:
            node.name = self.name(node.name)
            node.input[:] = [
                f"^{self.name(one[1:])}" if one.startswith("^") else self.name(one) for one in node.input
            ]
        return graph
