"""A SavedModel folder: one of its signatures as a frozen graph."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.base.files import read_model_file
from tvm_ipu.frontends.tensorflow.frozen import Frozen, check_nodes, node_of

DEFAULT_SIGNATURE = "serving_default"


def read_saved_model(folder: Path, signature: str = "") -> Frozen:
    """A signature of the SavedModel in ``folder``, with its variables as constants.

    Args:
        folder: The folder, in which ``saved_model.pb`` lies.
        signature: Name of the signature; empty for ``serving_default``, or for the only one.

    Raises:
        ModelError: It is no SavedModel, or it is truncated.
        UnsupportedOperatorError: TensorFlow does not know some of its operators; all are listed.
        OptionError: It has no such signature.
    """
    import tensorflow as tf

    graph = _meta_graph(folder)
    label = f"SavedModel '{folder}'"
    check_nodes(graph.graph_def, graph.graph_def.node, label)
    name = _choose(graph.signature_def, signature, label)
    try:
        loaded = tf.saved_model.load(str(folder), list(graph.meta_info_def.tags))
        return _from_function(loaded.signatures[name], label)
    except Exception:  # objects of other versions of Keras fail in many ways; the graph needs none of them
        return _from_graph(folder, graph, name, label)


def _from_function(function: Any, label: str) -> Frozen:
    """A signature as the function that TensorFlow 2 loads."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    specs, results = function.structured_input_signature[1], function.structured_outputs
    inputs = tf.nest.flatten({name: name for name in specs})
    outputs = tf.nest.flatten({name: name for name in results})
    return Frozen(
        frozen.graph.as_graph_def(),
        {name: tensor.name for name, tensor in zip(inputs, frozen.inputs, strict=True)},
        {name: tensor.name for name, tensor in zip(outputs, frozen.outputs, strict=True)},
        label,
    )


def _from_graph(folder: Path, meta: Any, name: str, label: str) -> Frozen:
    """A signature as the graph and the checkpoint in the folder, without the objects that they belong to."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    chosen = meta.signature_def[name]
    inputs, outputs = _tensors(chosen.inputs, label), _tensors(chosen.outputs, label)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        try:
            tf.compat.v1.saved_model.load(session, list(meta.meta_info_def.tags), str(folder))
            frozen = convert_to_constants.convert_variables_to_constants_from_session_graph(
                session, graph.as_graph_def(), _nodes(outputs.values())
            )
        except (KeyError, OSError, RuntimeError, ValueError, tf.errors.OpError) as err:
            lines = [line for line in str(err).splitlines() if line.strip()]
            reason = next((line for line in lines if line != "Graph execution error:"), type(err).__name__)
            raise ModelError(f"{label} cannot be read: {reason.strip()}") from err
    return Frozen(frozen, inputs, outputs, label)


def _meta_graph(folder: Path) -> Any:
    """The graph with the tag ``serve``, or the only graph."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = folder / "saved_model.pb"
    if not path.exists():
        raise ModelError(f"'{folder}' is not a SavedModel: there is no 'saved_model.pb' in it")
    try:
        model = SavedModel.FromString(read_model_file(path))
    except DecodeError as err:
        raise ModelError(f"'{path}' is not a SavedModel, or it is truncated") from err
    graphs = {" and ".join(graph.meta_info_def.tags): graph for graph in model.meta_graphs}
    if not graphs:
        raise ModelError(f"'{path}' is not a SavedModel, or it is truncated: it has no graph")
    if "serve" not in graphs and len(graphs) > 1:
        raise ModelError(f"SavedModel '{folder}' has no graph with the tag 'serve', only {', '.join(graphs)}")
    return graphs.get("serve") or next(iter(graphs.values()))


def _choose(signatures: Any, wanted: str, label: str) -> str:
    """The signature that is wanted."""
    known = [name for name in signatures if not name.startswith("__")]
    if not known:
        raise ModelError(
            f"{label} has no signatures", "save the model with tf.saved_model.save(..., signatures=...)"
        )
    name = wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in known or len(known) > 1 else known[0])
    if name not in known:
        raise OptionError(f"--signature: {label} has no signature '{name}', only {', '.join(sorted(known))}")
    return name


def _tensors(infos: Any, label: str) -> dict[str, str]:
    """Tensor of each of a signature's inputs or outputs."""
    sparse = [name for name, info in infos.items() if not info.name]
    if sparse:
        raise ModelError(f"{label}: '{sparse[0]}' is not a dense tensor")
    found = {name: info.name for name, info in infos.items()}
    return dict(sorted(found.items(), key=operator.itemgetter(1, 0)))


def _nodes(tensors: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(node_of(name) for name in tensors))
