"""Nodes whose result is known from shapes alone, and nodes that change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import SparseTensorProto, TensorProto

from tvm_ipu.frontends.onnx.graph import Const, Tensor, Value
from tvm_ipu.frontends.onnx.tensors import densify, read_tensor
from tvm_ipu.frontends.onnx.walker import Refused, Rule, Visit, Walker


def constant(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Constant with a tensor or sparse tensor; the reference implementation does the other kinds."""
    tensor, sparse = visit.attrs.get("value"), visit.attrs.get("sparse_value")
    if isinstance(tensor, TensorProto):
        return [walker.known(visit, read_tensor(tensor, walker.folder))]
    if isinstance(sparse, SparseTensorProto):
        return [walker.known(visit, densify(sparse, walker.folder))]
    return None


def shape(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Shape of a tensor with static shape."""
    dims = _static_shape(visit.input(0))
    if dims is None:
        return None
    part = dims[slice(visit.attrs.get("start", 0), visit.attrs.get("end"))]
    return [walker.known(visit, np.array(part, np.int64))]


def size(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Size of a tensor with static shape."""
    dims = _static_shape(visit.input(0))
    if dims is None:
        return None
    return [walker.known(visit, np.array(math.prod(dims), np.int64))]


def identity(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Identity of any kind of value."""
    return [visit.input(0)]


def dropout(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Dropout outside training passes its input on; its mask is all true."""
    training, ratio = visit.array(2), visit.array(1)
    if (
        visit.input(2) is not None
        and (training is None or bool(training))
        and not (ratio is not None and ratio == 0)
    ):
        raise Refused("training mode is not supported")
    outputs: list[Value] = [visit.input(0)]
    if len(visit.node.output) > 1 and visit.node.output[1]:
        dims = _static_shape(visit.input(0))
        if dims is None:
            raise Refused("the shape of an input depends on data")
        outputs.append(walker.known(visit, np.ones(dims, np.bool_), 1))
    return outputs


def same_shape(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Reshape, Expand and their like where the output has the input's shape already."""
    value = visit.input(0)
    if not isinstance(value, Tensor) or value.shape is None:
        return None
    return [value] if walker.types(visit)[0] == (value.elem_type, value.shape) else None


def cast(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Cast to the type that the input has."""
    value = visit.input(0)
    same = isinstance(value, Tensor) and value.elem_type and walker.types(visit)[0][0] == value.elem_type
    return [value] if same else None


def transpose(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Transpose that keeps the order of all axes longer than one."""
    value = visit.input(0)
    if not isinstance(value, Tensor) or value.shape is None:
        return None
    rank = len(value.shape)
    return [value] if list(visit.attrs.get("perm", reversed(range(rank)))) == list(range(rank)) else None


def single_operand(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Concat, Sum, Max ... of one tensor."""
    return [visit.input(0)] if len(visit.inputs) == 1 else None


def _static_shape(value: Value) -> tuple[int, ...] | None:
    return value.shape if isinstance(value, Const | Tensor) else None


RULES: dict[str, Rule] = {
    "Constant": constant,
    "Shape": shape,
    "Size": size,
    "Identity": identity,
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast,
    "Transpose": transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Expand"), same_shape),
    **dict.fromkeys(("Concat", "Sum", "Mean", "Max", "Min"), single_operand),
}
