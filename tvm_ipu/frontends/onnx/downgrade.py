"""Write a model for an older opset, where ONNX's own version converter has few adapters.

A node goes with an older definition of its operator if that allows its types and has its attributes and
inputs, once default values are dropped and constant inputs have become the attributes that they used to be
(``axes``, ``split`` ...).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from onnx import helper
from onnx.defs import OpSchema

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.evaluate import find_schema
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

_LAST_AXIS_BEFORE = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13}
"""Operators that older opsets define over all axes from ``axis`` on: the same for the last axis only."""

_FORMER_NAMES = {"constant_value": "value", "K": "k"}
"""Inputs whose name as an attribute was another one."""


def downgrade(graph: Graph, version: int) -> Graph:
    """The graph in opset ``version``, which is older than its own.

    Raises:
        ModelError: Nodes cannot be expressed in that opset; all of them are listed.
    """
    ops: list[Op] = []
    problems: list[str] = []
    for op in graph.ops:
        try:
            for part in _with_last_axis(op, version):
                ops.append(part if domain_of(op.node) else _rewrite(part, version))
        except _TooNew as err:
            problems.append(f"{op.node.op_type} '{node_label(op.node)}': {err}")
    if problems:
        raise ModelError(
            f"--convert-version: nodes cannot be expressed in opset {version}:\n  " + "\n  ".join(problems)
        )
    return replace(graph, ops=tuple(ops), opsets={**graph.opsets, "": version})


class _TooNew(Exception):  # noqa: N818  a finding, collected with others into one error
    """Why a node cannot be expressed."""


def _rewrite(op: Op, version: int) -> Op:
    new, old = (find_schema(op.node.op_type, v, "") for v in (op.version, version))
    if new is None or old is None:
        raise _TooNew("the opset does not have the operator")
    if new.since_version == old.since_version:
        return replace(op, version=version)
    attrs = attributes(op.node)
    kept = []
    for i, value in enumerate(op.inputs):
        name = new.inputs[min(i, len(new.inputs) - 1)].name
        former = _FORMER_NAMES.get(name, name)
        if former not in old.attributes:
            kept.append(value)
        elif value is not None:
            attrs[former] = _attribute(value, name, old.attributes[former].type)
    if op.node.op_type == "Split" and "num_outputs" in attrs:
        attrs["split"] = _part_sizes(op, attrs)
    if attrs.get("axes"):
        attrs.pop("noop_with_empty_axes", None)
    for name in [n for n in attrs if n not in old.attributes]:
        default = new.attributes[name].default_value
        if name != "num_outputs" and (not default.name or helper.get_attribute_value(default) != attrs[name]):
            raise _TooNew(f"attribute '{name}' is {attrs[name]}")
        del attrs[name]
    if len(kept) > old.max_input:
        raise _TooNew(f"the opset allows {old.max_input} inputs, it has {len(kept)}")
    for i, value in enumerate(kept):
        if (
            value is None
            and op.node.op_type == "Resize"
            and old.inputs[i].option == OpSchema.FormalParameterOption.Single
        ):
            kept[i] = Const(f"{node_label(op.node)}/{old.inputs[i].name}", np.empty(0, np.float32))
        _check_type(old, i, value)
    node = helper.make_node(
        op.node.op_type, [v.name if v else "" for v in kept], op.node.output, op.node.name, **attrs
    )
    return Op(node, version, tuple(kept), op.outputs)


def _with_last_axis(op: Op, version: int) -> list[Op]:
    """The node, between transpositions where its axis has to become the last one."""
    if not version < _LAST_AXIS_BEFORE.get(op.node.op_type, 0) <= op.version:
        return [op]
    value, result, axis = op.inputs[0], op.outputs[0], attributes(op.node).get("axis", -1)
    if value is None or result is None or value.shape is None:
        raise _TooNew("the shape of its input is not known")
    last = len(value.shape) - 1
    order = list(range(last + 1))
    order[axis], order[last] = last, order[axis]
    shape = tuple(value.shape[i] for i in order)
    before, after = (Tensor(f"{result.name}/{part}", value.elem_type, shape) for part in ("turned", "inner"))
    if axis % (last + 1) == last:
        return [_unary(op, op.node.op_type, value, result, axis=last)]
    return [
        _unary(op, "Transpose", value, before, perm=order),
        _unary(op, op.node.op_type, before, after, axis=last),
        _unary(op, "Transpose", after, result, perm=order),
    ]


def _unary(op: Op, op_type: str, value: Const | Tensor, result: Tensor, **attrs: Any) -> Op:
    node = helper.make_node(op_type, [value.name], [result.name], f"{result.name}/{op_type}", **attrs)
    return Op(node, op.version, (value,), (result,))


def _attribute(value: Const | Tensor, name: str, kind: Any) -> Any:
    """A constant input as the value of an attribute."""
    if not isinstance(value, Const):
        raise _TooNew(f"input '{name}' is not a constant")
    scalar = "S" not in str(kind.name)  # AttrType.INT or FLOAT, against INTS or FLOATS
    return value.array.reshape(-1)[0].item() if scalar else value.array.reshape(-1).tolist()


def _part_sizes(op: Op, attrs: dict[str, Any]) -> list[int]:
    axis = attrs.get("axis", 0)
    shapes = [t.shape for t in op.outputs if t]
    if len(shapes) != len(op.outputs) or None in shapes:
        raise _TooNew("the sizes of its parts are not known")
    return [shape[axis] for shape in shapes if shape is not None]


def _check_type(schema: OpSchema, index: int, value: Const | Tensor | None) -> None:
    if value is None:
        return
    parameter = schema.inputs[min(index, len(schema.inputs) - 1)]
    label = dtype_label(value.elem_type).replace("float32", "float").replace("float64", "double")
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    if f"tensor({label})" not in allowed.get(parameter.type_str, [parameter.type_str]):
        raise _TooNew(f"the opset does not allow {dtype_label(value.elem_type)} for input '{parameter.name}'")
