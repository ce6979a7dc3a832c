"""A simplified ONNX graph as Relax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from onnx import TensorProto
from tvm import relax, te

import tvm_ipu.frontends.onnx.ops  # noqa: F401  registers the converters
from tvm_ipu.base.errors import ModelError, UnsupportedOperatorError
from tvm_ipu.base.model import Model
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.frontends.onnx.builder import NodeBuilder
from tvm_ipu.frontends.onnx.context import CONVERTERS, Context, Node, UnsupportedNode
from tvm_ipu.frontends.onnx.cut import suggest_cut
from tvm_ipu.frontends.onnx.evaluate import fold, infer_types
from tvm_ipu.frontends.onnx.graph import (
    Const,
    Graph,
    Op,
    Tensor,
    attributes,
    domain_of,
    dtype_label,
    node_label,
)
from tvm_ipu.frontends.onnx.ops import small
from tvm_ipu.frontends.onnx.simplify import expand_op
from tvm_ipu.frontends.onnx.tensors import read_tensor
from tvm_ipu.frontends.onnx.tvm_fallback import convert_by_tvm, has_tvm_converter


@dataclass(frozen=True)
class Unsupported:
    """A node that cannot be compiled.

    Attributes:
        op_type: Operator, with its domain where that is not the standard one.
        node: Name of the node.
        reason: Why.
    """

    op_type: str
    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.op_type} '{self.node}': {self.reason}"


def supports(domain: str, op_type: str) -> bool:
    """Whether a converter exists for the operator."""
    return (domain, op_type) in CONVERTERS or has_tvm_converter(domain, op_type)


def import_graph(graph: Graph) -> Model:
    """The graph as Relax: static shapes, weights as constants, one dataflow block, outputs as a tuple.

    No output is an input, a constant or another output: those are copied.

    Raises:
        UnsupportedOperatorError: Nodes cannot be converted; all of them are listed with their reasons.
        ModelError: An input has an element type that images lack.
    """
    inputs = tuple(_spec(t) for t in graph.inputs)
    importer = _Importer(graph)
    module = importer.run()
    if importer.unsupported:
        raise UnsupportedOperatorError(
            f"{len(importer.unsupported)} nodes of the model cannot be compiled:"
            + "".join(f"\n  {one}" for one in importer.unsupported),
            cut_hint(importer.cut())
            or "docs/SUPPORTED_OPS.md lists what can be; --output-arrays cuts the model before such nodes",
        )
    assert module is not None
    types = module["main"].ret_ty.fields
    outputs = tuple(
        TensorSpec(name, tuple(int(d) for d in t.shape), _output_type(value, str(t.dtype)))
        for (name, value), t in zip(graph.outputs, types, strict=True)
    )
    return Model(module, inputs, outputs, graph.name, graph.source)


def unsupported_nodes(graph: Graph) -> tuple[list[Unsupported], tuple[str, ...]]:
    """The nodes that cannot be converted, with reasons, and where to cut the model to be rid of them.

    Both are empty where the model can be compiled; the latter also where no cut is worth while. Where inputs
    have types that images do not have, these are all: nothing that reads them can be judged.
    """
    strange = [
        Unsupported("Input", tensor.name, reason) for tensor in graph.inputs if (reason := _fault(tensor))
    ]
    if strange:
        return strange, ()
    importer = _Importer(graph)
    importer.run()
    return importer.unsupported, importer.cut()


def _fault(tensor: Tensor) -> str:
    """Why a tensor cannot be an input of an image; empty where it can."""
    try:
        _spec(tensor)
    except ModelError as err:
        return err.message
    return ""


def _spec(tensor: Tensor) -> TensorSpec:
    try:
        return TensorSpec(tensor.name, tensor.shape or (), DType.parse(dtype_label(tensor.elem_type)))
    except (ValueError, KeyError) as err:
        label = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise ModelError(
            f"input '{tensor.name}' has element type {label}, which images do not have",
            "begin the model behind it, with --input-arrays, or feed it numbers",
        ) from err


def cut_hint(names: Sequence[str]) -> str:
    """Advice to cut a model at tensors; empty where there are none."""
    return (
        f"nearly all of its work comes before that; cut it: --output-arrays {','.join(names)}"
        if names
        else ""
    )


class _Importer:
    """Walks the nodes once; a failed node leaves its outputs without value, and the walk goes on."""

    def __init__(self, graph: Graph) -> None:
        self.unsupported: list[Unsupported] = []
        self._graph = graph
        self._bb = NodeBuilder()
        self._context = Context(self._bb)
        self._values: dict[Const | Tensor, relax.Expr] = {}

    def run(self) -> tvm.ir.IRModule | None:
        """The module, or None where nodes are unsupported."""
        bb, graph = self._bb, self._graph
        params = [
            relax.Var(t.name, relax.TensorType(t.shape, small.storage(dtype_label(t.elem_type))))
            for t in graph.inputs
        ]
        self._values |= zip(graph.inputs, params, strict=True)
        with bb.function("main", params):
            with bb.dataflow():
                for tensor, param in zip(graph.inputs, params, strict=True):
                    if small.is_small(label := dtype_label(tensor.elem_type)):
                        self._values[tensor] = small.decode(self._context, param, label)
                for op in graph.ops:
                    self._try(op)
                results = params if self.unsupported else self._outputs(params)
                result = bb.emit_output(relax.Tuple(results))
            bb.emit_func_output(result)
        if self.unsupported:
            return None
        return relax.transform.DeadCodeElimination(["main"])(bb.finalize())

    def cut(self) -> tuple[str, ...]:
        """Where to cut the model so that only its end is lost; empty where nothing is, or too much."""
        if not self.unsupported:
            return ()
        tensors = [t for op in self._graph.ops for t in op.outputs if t is not None]
        return suggest_cut(self._graph, [t for t in tensors if t not in self._values])

    def _try(self, op: Op) -> None:
        """Convert a node, or record why that cannot be done."""
        domain = domain_of(op.node)
        try:
            if all(v in self._values for v in op.inputs if isinstance(v, Tensor)):
                self._convert(op)
            elif op.refused or not supports(domain, op.node.op_type):
                raise UnsupportedNode(op.refused or _NO_CONVERTER)
        except UnsupportedNode as err:
            op_type = f"{domain}.{op.node.op_type}" if domain else op.node.op_type
            self.unsupported.append(Unsupported(op_type, node_label(op.node), err.reason))

    def _convert(self, op: Op) -> None:
        """Emit a node whose inputs have values; falls back to its function body."""
        if op.refused:
            raise UnsupportedNode(op.refused)
        try:
            results = self._known(op) or self._emit(op)
        except UnsupportedNode as err:
            try:
                body = expand_op(op, self._graph.opsets, supports)
                if body is None:
                    raise err
                for inner in body.ops:
                    self._convert(inner)
                self._values |= {
                    t: self._value(v) for t, (_, v) in zip(_wanted(op), body.outputs, strict=True)
                }
            except (ModelError, UnsupportedNode):
                raise err from None
        else:
            self._values |= {t: r for t, r in zip(op.outputs, results, strict=False) if t is not None}

    def _emit(self, op: Op) -> list[relax.Expr]:
        """The node's outputs by its converter, checked against what ONNX says of them."""
        self._bb.hint = node_label(op.node)
        domain, op_type = domain_of(op.node), op.node.op_type
        inputs = tuple(None if v is None else self._value(v) for v in op.inputs)
        attrs = {name: _array(value) for name, value in attributes(op.node).items()}
        outputs = tuple(op.node.output)
        types = tuple(dtype_label(v.elem_type) if v is not None and v.elem_type else "" for v in op.inputs)
        node = Node(op_type, domain, self._bb.hint, op.version, inputs, attrs, outputs, types)
        convert = CONVERTERS.get((domain, op_type))
        if convert is None and not has_tvm_converter(domain, op_type):
            raise UnsupportedNode(_NO_CONVERTER)
        try:
            result = convert(self._context, node) if convert else convert_by_tvm(self._bb, node, op.node)
            results = self._items(result)
        except UnsupportedNode:
            raise
        except Exception as err:  # TVM raises errors of all kinds where shapes or types do not suit it
            lines = str(err).strip().splitlines()
            raise UnsupportedNode(lines[-1] if lines else type(err).__name__) from err
        wanted = max(i for i, name in enumerate(outputs, 1) if name)
        if len(results) < wanted:
            raise UnsupportedNode(f"output {wanted} is not supported")
        for tensor, result in zip(op.outputs, results, strict=False):
            if tensor is not None:
                self._check(tensor, result)
        return results

    def _items(self, result: relax.Expr | Sequence[relax.Expr]) -> list[relax.Expr]:
        """A converter's result as bound tensors, one for each output."""
        if not isinstance(result, relax.Expr):
            return [item for part in result for item in self._items(part)]
        if isinstance(result, relax.Tuple):
            return [item for field in result.fields for item in self._items(field)]
        if not isinstance(result, relax.Var | tvm.ir.GenericConst):
            result = self._bb.emit(result)
        if isinstance(result.ty, relax.TupleType):
            return [self._bb.emit(relax.TupleGetItem(result, i)) for i in range(len(result.ty.fields))]
        return [result]

    def _check(self, tensor: Tensor, result: relax.Expr) -> None:
        try:
            shape, dtype = self._context.shape(result), self._context.dtype(result)
        except UnsupportedNode as err:
            raise UnsupportedNode("the shape of its output depends on data") from err
        expected = small.carrier(dtype_label(tensor.elem_type)) if tensor.elem_type else dtype
        if (tensor.shape or shape) != shape or expected != dtype:
            wanted = f"{expected}{list(tensor.shape or shape)}"
            raise UnsupportedNode(f"its converter gives {dtype}{list(shape)} where ONNX says {wanted}")

    def _known(self, op: Op) -> list[relax.Expr] | None:
        """Results that Relax's shapes give away where ONNX's shape inference did not."""
        if all(v is None or v.shape is not None for v in op.inputs):
            return None
        values = [None if v is None else self._value(v) for v in op.inputs]
        if domain_of(op.node) == "" and op.node.op_type == "Shape":
            dims = self._context.shape(values[0])
            attrs = attributes(op.node)
            part = dims[slice(attrs.get("start", 0), attrs.get("end"))]
            return [self._context.const(np.array(part, np.int64))]
        arrays = [self._context.value(v) for v in values]
        if any(a is None and v is not None for a, v in zip(arrays, values, strict=True)):
            return None
        consts = [None if a is None else Const(n, a) for n, a in zip(op.node.input, arrays, strict=True)]
        results = fold(op.node, op.version, consts, infer_types(op.node, op.version, consts))
        return None if results is None else [self._context.const(r) for r in results]

    def _value(self, value: Const | Tensor) -> relax.Expr:
        if value not in self._values:
            if not isinstance(value, Const):
                raise UnsupportedNode(f"its input '{value.name}' has no value")
            try:
                self._values[value] = self._context.const(small.carried(value.array))
            except Exception as err:  # numpy's and TVM's, for strings
                dtype = dtype_label(value.elem_type)
                raise UnsupportedNode(
                    f"input '{value.name}' has element type {dtype}, which images do not have"
                ) from err
        return self._values[value]

    def _outputs(self, params: list[relax.Var]) -> list[relax.Var]:
        results: list[relax.Var] = []
        for name, value in self._graph.outputs:
            result = self._value(value)
            self._bb.hint = name
            if small.is_small(label := _label(value)):
                result = small.encode(self._context, result, label)
            if isinstance(result, tvm.ir.GenericConst) or any(result.same_as(r) for r in params + results):
                result = self._context.te(_copy, result, name="copy")
            results.append(result)
        return results


_NO_CONVERTER = "no converter for this operator"


def _wanted(op: Op) -> list[Tensor]:
    return [tensor for tensor in op.outputs if tensor is not None]


def _copy(tensor: te.Tensor) -> te.Tensor:
    return te.compute(tensor.shape, lambda *index: tensor(*index), name="copy")


def _label(value: Const | Tensor) -> str:
    return dtype_label(value.elem_type) if value.elem_type else ""


def _output_type(value: Const | Tensor, dtype: str) -> DType:
    """The type of an output that the module gives as ``dtype``."""
    label = _label(value)
    return DType.parse(label if small.is_small(label) else dtype)


def _array(value: Any) -> Any:
    """Tensors in attributes as arrays."""
    if isinstance(value, TensorProto):
        return read_tensor(value, Path())
    return [_array(v) for v in value] if isinstance(value, list) else value
