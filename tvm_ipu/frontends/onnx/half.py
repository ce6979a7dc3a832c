"""float16 inside, the model's own types outside.

Which inputs of an operator may be float16 is read from its ONNX definition; where that allows none, the node
stays in float32 between casts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto, TensorProto, helper
from onnx.defs import OpSchema

from tvm_ipu.frontends.onnx.evaluate import find_schema
from tvm_ipu.frontends.onnx.graph import Const, Graph, Op, Tensor, attributes, domain_of

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)

_WIDE = frozenset(
    [
        "CumSum",
        "Exp",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softplus",
        "Sqrt",
    ]
)
"""Operators whose operands or results easily leave float16's range: they stay in float32."""


def to_half(graph: Graph) -> Graph:
    """The graph with float16 in place of float32; inputs and outputs keep their types.

    Constants beyond float16's range become its largest numbers.
    """
    return _Halver(graph).run()


class _Halver:
    """Walks the nodes; casts between the two types of a tensor are made where they are first needed."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._ops: list[Op] = []
        self._halves: dict[Const | Tensor, Const | Tensor] = {}
        self._only_half: set[Tensor] = set()

    def run(self) -> Graph:
        for op in self._graph.ops:
            self._convert(op)
        outputs = tuple((name, self._float(value)) for name, value in self._graph.outputs)
        return replace(self._graph, ops=tuple(self._ops), outputs=outputs)

    def _convert(self, op: Op) -> None:
        schema = find_schema(op.node.op_type, op.version, domain_of(op.node))
        halved = set() if _stays_wide(op) else _half_variables(schema)
        bound: set[str] = set()
        inputs: list[Const | Tensor | None] = []
        for i, value in enumerate(op.inputs):
            if value is not None and value.elem_type == FLOAT and _variable(schema, i, "inputs") in halved:
                bound.add(_variable(schema, i, "inputs"))
                inputs.append(self._half(value))
            else:
                inputs.append(value and self._float(value))
        node = NodeProto()
        node.CopyFrom(op.node)
        if op.node.op_type == "Cast" and attributes(op.node)["to"] == FLOAT:
            node = helper.make_node("Cast", [""], op.node.output, op.node.name, to=HALF)
            bound.add(_variable(schema, 0, "outputs"))
        node.input[:] = [v.name if v else "" for v in inputs]
        outputs = list(op.outputs)
        for i, tensor in enumerate(op.outputs):
            if tensor and tensor.elem_type == FLOAT and _variable(schema, i, "outputs") in bound:
                half = Tensor(f"{tensor.name}/fp16", HALF, tensor.shape)
                self._halves[tensor] = outputs[i] = half
                self._only_half.add(tensor)
                node.output[i] = half.name
        self._ops.append(Op(node, op.version, tuple(inputs), tuple(outputs), op.refused))

    def _half(self, value: Const | Tensor) -> Const | Tensor:
        """The float16 tensor with the value of a float32 one."""
        if value not in self._halves:
            name = f"{value.name}/fp16"
            if isinstance(value, Const):
                self._halves[value] = Const(
                    name, np.clip(value.array, -_LARGEST, _LARGEST).astype(np.float16)
                )
            else:
                self._halves[value] = self._cast(value, Tensor(name, HALF, value.shape))
        return self._halves[value]

    def _float(self, value: Const | Tensor) -> Const | Tensor:
        """``value`` itself, computed from its float16 tensor where there is only that."""
        if isinstance(value, Tensor) and value in self._only_half:
            self._only_half.remove(value)
            self._cast(self._halves[value], value)
        return value

    def _cast(self, source: Const | Tensor, target: Tensor) -> Tensor:
        node = helper.make_node(
            "Cast", [source.name], [target.name], f"{target.name}/Cast", to=target.elem_type
        )
        self._ops.append(Op(node, self._graph.opsets.get("", 1), (source,), (target,)))
        return target


def _stays_wide(op: Op) -> bool:
    """Whether float16 has not the range for a node: a square, say, or an epsilon that would become zero."""
    if op.node.op_type in _WIDE or (op.node.op_type == "Mul" and op.inputs[0] is op.inputs[1]):
        return True
    constants = (
        v.array for v in op.inputs if isinstance(v, Const) and v.elem_type == FLOAT and v.array.size == 1
    )
    return any(0 < abs(float(array.item())) < _SMALLEST for array in constants)


def _half_variables(schema: OpSchema | None) -> set[str]:
    """Type variables of an operator that may stand for float16; none for an unknown operator."""
    constraints = schema.type_constraints if schema else ()
    return {c.type_param_str for c in constraints if "tensor(float16)" in c.allowed_type_strs}


def _variable(schema: OpSchema | None, index: int, side: str) -> str:
    """Type variable, or type, of an operator's input or output; the last of a variadic operator repeats."""
    parameters = getattr(schema, side, ())
    return str(parameters[min(index, len(parameters) - 1)].type_str) if parameters else ""
