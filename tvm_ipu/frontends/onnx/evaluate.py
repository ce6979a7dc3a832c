"""What is known about one node before the model runs: types of its outputs, and their values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
from onnx import NodeProto, TypeProto, checker, helper, numpy_helper, shape_inference
from onnx.defs import OpSchema, SchemaError
from onnx.reference import ReferenceEvaluator

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.graph import (
    CHECK,
    Array,
    Const,
    Tensor,
    domain_of,
    nbytes,
    node_label,
    subgraphs,
    type_proto,
)

MAX_GROWTH = 64 * 2**20
"""Bytes by which folding may enlarge the model; a larger result is computed when the model runs."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_MISJUDGED = frozenset({"STFT"})
"""Operators for which ONNX infers wrong shapes (STFT with a window: all bins where half are asked for)."""

_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})

_SMALL = 4096
"""Constants of up to this many elements may decide shapes (Reshape's, Slice's ... inputs)."""

OutputType = tuple[int, tuple[int, ...] | None]
"""Element type (0 unknown) and static shape (None unknown)."""


@cache
def find_schema(op_type: str, version: int, domain: str) -> OpSchema | None:
    """The operator's definition in opset ``version`` of its domain, or None where ONNX has none."""
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except SchemaError:
        return None


def infer_types(node: NodeProto, version: int, inputs: Sequence[Const | Tensor | None]) -> list[OutputType]:
    """Element types and shapes of the node's outputs, one for each output name.

    Args:
        node: Its input names are the names of ``inputs``.
        version: Opset version of its domain.
        inputs: Its inputs; small constants take part with their values.

    Raises:
        ModelError: The inputs' types or shapes do not go together.
    """
    unknown: list[OutputType] = [(0, None)] * len(node.output)
    schema = find_schema(node.op_type, version, domain_of(node))
    present = [v for v in inputs if v is not None]
    misjudged = node.op_type in _MISJUDGED
    if schema is None or misjudged or subgraphs(node) or any(v.elem_type == 0 for v in present):
        return unknown
    data = {
        v.name: numpy_helper.from_array(v.array, v.name)
        for v in present
        if isinstance(v, Const) and v.array.size <= _SMALL
    }
    opsets = [helper.make_opsetid(domain_of(node), version)]
    if node.op_type == "STFT" and all(a.name != "onesided" for a in node.attribute):
        # ONNX's inference takes 0 for a missing 'onesided', its schema says 1
        node = helper.make_node("STFT", node.input, node.output, onesided=1)
    try:
        types = shape_inference.infer_node_outputs(
            schema, node, {v.name: type_proto(v) for v in present}, data, opset_imports=opsets
        )
    except (shape_inference.InferenceError, checker.ValidationError, ValueError) as err:
        reason = str(err).removeprefix("[ShapeInferenceError] ").removeprefix("[TypeInferenceError] ")
        shapes = ", ".join("?" if v.shape is None else str(list(v.shape)) for v in present)
        raise ModelError(
            f"node '{node_label(node)}' ({node.op_type}) with inputs {shapes}: {reason.strip()}",
            f"do the input shapes suit the model? {CHECK}",
        ) from err
    found = [_output_type(types[name]) if name in types else (0, None) for name in node.output]
    return _pooled(node, present[0].shape, found) if node.op_type in _POOLS else found


def _pooled(node: NodeProto, shape: tuple[int, ...] | None, types: Sequence[OutputType]) -> list[OutputType]:
    """Without windows that start in the padding behind, which ONNX's inference counts in ceiling mode."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if shape is None or not attributes.get("ceil_mode"):
        return list(types)
    rank = len(shape) - 2
    strides, begins = attributes.get("strides", [1] * rank), attributes.get("pads", [0] * 2 * rank)[:rank]

    def kept(found: tuple[int, ...]) -> tuple[int, ...]:
        axes = zip(found[2:], shape[2:], strides, begins, strict=True)
        return (*found[:2], *(n - ((n - 1) * step >= size + begin) for n, size, step, begin in axes))

    return [(kind, None if found is None else kept(found)) for kind, found in types]


def _output_type(proto: TypeProto) -> OutputType:
    tensor = proto.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in dims):
        return tensor.elem_type, None
    return tensor.elem_type, tuple(d.dim_value for d in dims)


def fold(
    node: NodeProto, version: int, inputs: Sequence[Const | None], types: list[OutputType]
) -> list[Array] | None:
    """The values of the node's outputs, computed by ONNX's reference implementation.

    Args:
        node: A node whose inputs are all constant.
        version: Opset version of its domain.
        inputs: Their values.
        types: What is known of its outputs.

    Returns:
        An array for each output name, or None where the node is random, has subgraphs, would enlarge the
        model by more than ``MAX_GROWTH``, or is beyond the reference implementation.
    """
    if node.op_type in RANDOM or subgraphs(node):
        return None
    size = sum(nbytes(elem, shape) for elem, shape in types if elem and shape is not None)
    if size > MAX_GROWTH + sum(v.array.nbytes for v in inputs if v is not None):
        return None
    present = {v.name: v for v in inputs if v is not None}
    graph = helper.make_graph(
        [node],
        "fold",
        [helper.make_value_info(v.name, type_proto(v)) for v in present.values()],
        [helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name],
    )
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(graph, opsets={domain_of(node): version})
            results = iter(evaluator.run(None, {name: v.array for name, v in present.items()}))
    except Exception:  # the reference implementation is incomplete and raises errors of all kinds
        return None
    arrays = [np.asarray(next(results)) if name else np.empty(0) for name in node.output]
    fits = all(
        not name or not elem or a.dtype == helper.tensor_dtype_to_np_dtype(elem)
        for name, a, (elem, _) in zip(node.output, arrays, types, strict=True)
    )
    return arrays if fits else None
