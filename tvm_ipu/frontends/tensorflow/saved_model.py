"""A SavedModel folder, through the graph that its signatures are stored as.

The graph and its variables are read as they lie in the file, without the Python objects around them: these
need the very versions of the packages that wrote them.
"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import ModelError, OptionError
from tvm_ipu.frontends.tensorflow.frozen import Frozen

DEFAULT_SIGNATURE = "serving_default"


def read_saved_model(folder: Path, signature: str = "") -> Frozen:
    """A signature of the SavedModel in ``folder``, with its variables as constants.

    Args:
        folder: The folder, in which ``saved_model.pb`` lies.
        signature: Name of the signature; empty for ``serving_default``, or for the only one.

    Raises:
        ModelError: It is no SavedModel, or it is truncated.
        OptionError: It has no such signature.
    """
    import tensorflow as tf

    label = f"SavedModel '{folder}'"
    tags = _tags(folder)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        try:
            meta = tf.compat.v1.saved_model.load(session, tags, str(folder))
        except (OSError, RuntimeError, ValueError, tf.errors.OpError) as err:
            raise ModelError(f"{label} cannot be read: {str(err).strip().splitlines()[0]}") from err
        name = _choose(meta.signature_def, signature, label)
        chosen = meta.signature_def[name]
        inputs, outputs = _tensors(chosen.inputs, label), _tensors(chosen.outputs, label)
        return Frozen(_freeze(session, graph, outputs.values()), inputs, outputs, label)


def _tags(folder: Path) -> list[str]:
    """The tags of the graph to load: ``serve``, or those of the only graph."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = folder / "saved_model.pb"
    if not path.exists():
        raise ModelError(f"'{folder}' is not a SavedModel: there is no 'saved_model.pb' in it")
    try:
        model = SavedModel.FromString(path.read_bytes())
    except DecodeError as err:
        raise ModelError(f"'{path}' is not a SavedModel, or it is truncated") from err
    found = [list(graph.meta_info_def.tags) for graph in model.meta_graphs]
    if not found:
        raise ModelError(f"'{path}' is not a SavedModel, or it is truncated: it has no graph")
    if ["serve"] not in found and len(found) > 1:
        listed = ", ".join(" and ".join(tags) for tags in found)
        raise ModelError(f"SavedModel '{folder}' has no graph with the tag 'serve', only {listed}")
    return ["serve"] if ["serve"] in found else found[0]


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


def _freeze(session: Any, graph: Any, outputs: Any) -> Any:
    """The graph with the variables' values in it."""
    from tensorflow.python.framework import convert_to_constants

    nodes = list(dict.fromkeys(name.partition(":")[0] for name in outputs))
    return convert_to_constants.convert_variables_to_constants_from_session_graph(
        session, graph.as_graph_def(), nodes
    )
