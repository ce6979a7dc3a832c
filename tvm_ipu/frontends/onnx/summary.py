"""What a model is and costs, for ``tvm-ipu inspect``: nothing is compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.cost import Cost, node_cost
from tvm_ipu.frontends.onnx.crop import crop, reads
from tvm_ipu.frontends.onnx.graph import Graph, domain_of, dtype_label, node_label
from tvm_ipu.frontends.onnx.importer import Unsupported, supports, unsupported_nodes
from tvm_ipu.frontends.onnx.inputs import declared_shape
from tvm_ipu.frontends.onnx.load import Source, read_source
from tvm_ipu.frontends.onnx.prepare import prepare
from tvm_ipu.frontends.onnx.simplify import handles
from tvm_ipu.frontends.options import LoadOptions, OnnxSource


@dataclass(frozen=True)
class TensorSummary:
    """An input or output: element type, and shape as text (``[N,3,224,224]``)."""

    name: str
    dtype: str
    shape: str


@dataclass(frozen=True)
class OperatorSummary:
    """All nodes of one operator.

    Attributes:
        op_type: Operator, with its domain where that is not the standard one.
        count: How many nodes.
        macs: Their multiply-accumulates; None where shapes are not known.
        flops: Their arithmetic operations, as ``cost.Cost`` counts them; None where shapes are not known.
    """

    op_type: str
    count: int
    macs: int | None
    flops: int | None


@dataclass(frozen=True)
class ModelSummary:
    """A model, before compilation.

    Attributes:
        path: Its file, or what to call it.
        facts: Format, opset, producer.
        inputs: Its inputs, in the shapes asked for.
        outputs: Its outputs.
        operators: Operators that are left after simplification, the costliest first; of the model as it is
            where shapes are missing.
        parameters: Elements of all weights that are used, statistics of normalisations among them.
        parameter_bytes: Their size in bytes.
        macs: Multiply-accumulates in all, None where shapes are missing.
        flops: Arithmetic operations in all, None where shapes are missing.
        unsupported: Nodes that cannot be compiled, with reasons.
        note: What to do for the numbers that are missing; empty where none is.
        cut: Tensors to end the model at (``--output-arrays``), where what cannot be compiled is only its end.
    """

    path: str
    facts: dict[str, object]
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    operators: tuple[OperatorSummary, ...]
    parameters: int
    parameter_bytes: int
    macs: int | None
    flops: int | None
    unsupported: tuple[Unsupported, ...]
    note: str = ""
    cut: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The summary as JSON values."""
        return asdict(self)


def summarize(model: OnnxSource, options: LoadOptions | None = None, label: str = "") -> ModelSummary:
    """Summarise a model.

    Args:
        model: The model.
        options: Shapes and cuts; without shapes for a dynamic model, costs are left out.
        label: What to call it.

    Raises:
        ModelError: The file is missing or damaged, or the shapes given do not go together.
        OptionError: An option does not fit the model.
    """
    options = options or LoadOptions()
    source = crop(read_source(model), options.inputs, options.outputs)
    label = label or (str(model) if isinstance(model, Path) else source.name)
    try:
        graph = prepare(source, replace(options, inputs=(), outputs=()), supports)
    except ModelError as err:
        if options.input_shapes or options.batch:
            raise
        return _without_shapes(label, source, err)
    return _with_shapes(label, graph, _weights(source))


def _weights(source: Source) -> list[tuple[int, int]]:
    """Elements of each weight that a node reads, and bytes of one; integers of 64 bits are indices."""
    read = {name for node in source.graph.node for name in reads(node)}
    kinds = [(w.shape, w.dtype) for name, w in source.weights.items() if name in read]
    values = [a.t for node in source.graph.node if node.op_type == "Constant" for a in node.attribute]
    kinds += [(tuple(t.dims), helper.tensor_dtype_to_np_dtype(t.data_type)) for t in values if t.data_type]
    return [(math.prod(s), d.itemsize) for s, d in kinds if s and d.kind not in "bOU" and d != np.int64]


def _with_shapes(label: str, graph: Graph, weights: Sequence[tuple[int, int]]) -> ModelSummary:
    costs = [(_label(op.node), node_cost(op)) for op in graph.ops]
    known = [cost for _, cost in costs if cost is not None]
    unsupported, cut = unsupported_nodes(graph)
    return ModelSummary(
        label,
        graph.source,
        tuple(TensorSummary(t.name, dtype_label(t.elem_type), _text(t.shape)) for t in graph.inputs),
        tuple(TensorSummary(name, dtype_label(v.elem_type), _text(v.shape)) for name, v in graph.outputs),
        _by_operator(costs),
        sum(size for size, _ in weights),
        sum(size * itemsize for size, itemsize in weights),
        sum(cost.macs for cost in known),
        sum(cost.flops for cost in known),
        tuple(unsupported),
        cut=cut,
    )


def _without_shapes(label: str, source: Source, error: ModelError) -> ModelSummary:
    nodes = [node for node in source.graph.node if node.op_type != "Constant"]
    weights = _weights(source)
    return ModelSummary(
        label,
        source.facts,
        tuple(_declared(info) for info in source.graph.input if info.name not in source.weights),
        tuple(_declared(info) for info in source.graph.output),
        _by_operator([(_label(node), None) for node in nodes]),
        sum(size for size, _ in weights),
        sum(size * itemsize for size, itemsize in weights),
        None,
        None,
        tuple(
            Unsupported(_label(node), node_label(node), "no converter for this operator")
            for node in nodes
            if not handles(node, source, supports)
        ),
        f"{error.message}; {error.hint}" if error.hint else error.message,
    )


def _by_operator(costs: Sequence[tuple[str, Cost | None]]) -> tuple[OperatorSummary, ...]:
    groups: dict[str, list[Cost | None]] = {}
    for op_type, cost in costs:
        groups.setdefault(op_type, []).append(cost)
    summaries = [
        OperatorSummary(
            op_type,
            len(group),
            sum(c.macs for c in group if c) if all(group) else None,
            sum(c.flops for c in group if c) if all(group) else None,
        )
        for op_type, group in groups.items()
    ]
    return tuple(sorted(summaries, key=lambda s: (-(s.flops or 0), -s.count, s.op_type)))


def _declared(info: ValueInfoProto) -> TensorSummary:
    elem_type = info.type.tensor_type.elem_type
    dtype = dtype_label(elem_type) if elem_type else str(info.type.WhichOneof("value")).removesuffix("_type")
    return TensorSummary(info.name, dtype, declared_shape(info) if elem_type else "")


def _text(shape: tuple[int, ...] | None) -> str:
    return "?" if shape is None else f"[{','.join(map(str, shape))}]"


def _label(node: NodeProto) -> str:
    domain = domain_of(node)
    return f"{domain}.{node.op_type}" if domain else str(node.op_type)
