"""A frozen graph as an ONNX model."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from onnx import ModelProto, defs

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.graph import subgraphs
from tvm_ipu.frontends.tensorflow.frozen import Frozen, node_of, unsupported
from tvm_ipu.frontends.tensorflow.operators import HANDLERS
from tvm_ipu.frontends.tensorflow.quiet import Failures

OPSET = 18
"""The newest opset that tf2onnx writes."""


def inlined(model: Frozen) -> Frozen:
    """The model with the bodies of functions in place of their calls.

    Raises:
        ModelError: TensorFlow cannot do that.
    """
    import tensorflow as tf
    from tf2onnx.tf_loader import tf_optimize

    try:
        with tf.Graph().as_default():
            tf.import_graph_def(model.graph, name="")
            graph = tf_optimize(list(model.inputs.values()), list(model.outputs.values()), model.graph)
    except (ValueError, tf.errors.OpError) as err:
        raise ModelError(f"{model.label}: {str(err).strip().splitlines()[0]}") from err
    return replace(model, graph=graph)


def export(model: Frozen, failures: Failures) -> ModelProto:
    """The model in ONNX, its inputs and outputs under the names that the user sees.

    Args:
        model: A graph of which all nodes are needed.
        failures: What tf2onnx reports of single nodes.

    Raises:
        UnsupportedOperatorError: Nodes of operators that tf2onnx knows cannot be converted; all are listed.
        ModelError: The graph cannot be converted for another reason.
    """
    import tensorflow as tf
    from tf2onnx import optimizer
    from tf2onnx.tfonnx import process_tf_graph

    inputs, outputs = list(model.inputs.values()), list(model.outputs.values())
    names = {tensor: name for part in (model.inputs, model.outputs) for name, tensor in part.items()}
    graph = inlined(model).graph
    failure: Exception | None = None
    try:
        with tf.Graph().as_default() as loaded, tf.device("/cpu:0"):
            tf.import_graph_def(graph, name="")
            converted = process_tf_graph(
                loaded,
                opset=OPSET,
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename=names,
                custom_op_handlers={operator: (handler, []) for operator, handler in HANDLERS.items()},
            )
        proto: ModelProto = optimizer.optimize_graph(converted).make_model(model.label)
    except Exception as err:  # anything, once a node has failed
        failure = err
    failed = _failed(graph, failures)
    if failed and failure is not None:
        raise unsupported(model.label, failed) from failure
    if failure is not None:
        raise ModelError(f"{model.label} cannot be converted to ONNX: {failure}") from failure
    _mark_left(proto, {name for name, _ in failed})
    _name_places(proto)
    for info in (*proto.graph.input, *proto.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param.startswith("unk__"):
                dim.ClearField("dim_param")
    return proto


def _failed(graph: Any, failures: Failures) -> list[tuple[str, str]]:
    """Name and operator of each node that an error was logged of: the first argument of the message."""
    operators = {node.name: node.op for node in graph.node}
    for function in graph.library.function:
        operators |= {node.name: node.op for node in function.node_def}
    first = [str(one.args[0]) for one in failures.records if isinstance(one.args, tuple) and one.args]
    return [(name, operators[name]) for name in first if name in operators]


def _mark_left(proto: ModelProto, left: set[str]) -> None:
    """Put the nodes that tf2onnx left as TensorFlow has them into a domain of their own.

    The importer lists them, unless the model is cut before them.
    """
    waiting = [proto.graph]
    while waiting:
        for node in waiting.pop().node:
            waiting += subgraphs(node)
            if node.name in left or not (node.domain or defs.has(node.op_type, OPSET)):
                node.domain = "tensorflow"


def _name_places(proto: ModelProto) -> None:
    """Name nodes that tf2onnx has numbered (``Conv__12``) after their results, else their weights."""
    taken = {node.name for node in proto.graph.node}
    for node in proto.graph.node:
        if _NUMBERED.fullmatch(node.name):
            places = [node_of(name) for name in (*node.output, *node.input[1:])]
            free = [one for one in places if one and one not in taken and not _NUMBERED.fullmatch(one)]
            node.name = free[0] if free else node.name
            taken.add(node.name)


_NUMBERED = re.compile(r"\w+__\d+")
