"""Control flow: branches are chosen or computed both, loops of known length are unrolled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, TypeProto, helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.graph import Array, Const, List, Tensor, Value, node_label
from tvm_ipu.frontends.onnx.walker import Refused, Rule, Visit, Walker

MAX_ITERATIONS = 1024
"""Longest loop that is unrolled."""


def if_(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """If: the branch that runs, or both and a choice of each output where that depends on data."""
    condition = visit.array(0)
    label = node_label(visit.node)
    if condition is not None:
        branch = visit.attrs["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]
        return walker.graph(branch, visit.scope.inner({}, label))
    then = run_body(walker, visit, visit.attrs["then_branch"], [], "then")
    other = run_body(walker, visit, visit.attrs["else_branch"], [], "else")
    scalar = walker.emit("Reshape", [visit.input(0), walker.constant("scalar", np.empty(0, np.int64))], visit)
    return [_choose(walker, visit, scalar, a, b) for a, b in zip(then, other, strict=True)]


def loop(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Loop, unrolled. Its trip count must not depend on data."""
    body: GraphProto = visit.attrs["body"]
    limit, condition = visit.array(0), visit.input(1)
    if visit.input(0) is not None and limit is None:
        raise Refused("its trip count depends on data")
    trips = None if limit is None else int(limit.reshape(-1)[0])
    state = list(visit.inputs[2:])
    scans: list[list[Value]] = [[] for _ in body.output[1 + len(state) :]]
    iteration = 0
    while (trips is None or iteration < trips) and _holds(condition):
        if iteration >= MAX_ITERATIONS:
            raise Refused(f"it runs more than {MAX_ITERATIONS} times")
        number = walker.constant("iteration", np.array(iteration, np.int64))
        running = condition or walker.constant("condition", np.array(True))
        results = run_body(walker, visit, body, [number, running, *state], str(iteration))
        condition, state = results[0], results[1 : 1 + len(state)]
        for items, item in zip(scans, results[1 + len(state) :], strict=True):
            items.append(item)
        iteration += 1
    outputs = body.output[1 + len(state) :]
    return state + [
        stack(walker, visit, items, 0, info.type.tensor_type)
        for items, info in zip(scans, outputs, strict=True)
    ]


def scan(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Scan, unrolled over the length of its sequences."""
    if visit.version < 9:
        raise Refused("the form of opset 8 is not supported")
    body: GraphProto = visit.attrs["body"]
    count = visit.attrs["num_scan_inputs"]
    state, sequences = list(visit.inputs[:-count]), visit.inputs[-count:]
    in_axes = visit.attrs.get("scan_input_axes", [0] * count)
    in_reversed = visit.attrs.get("scan_input_directions", [0] * count)
    scans: list[list[Value]] = [[] for _ in body.output[len(state) :]]
    out_axes = visit.attrs.get("scan_output_axes", [0] * len(scans))
    out_reversed = visit.attrs.get("scan_output_directions", [0] * len(scans))
    length = _dims(sequences[0])[in_axes[0]]
    if length > MAX_ITERATIONS:
        raise Refused(f"it runs more than {MAX_ITERATIONS} times")
    for i in range(length):
        items = [
            piece(walker, visit, sequence, axis, length - 1 - i if back else i)
            for sequence, axis, back in zip(sequences, in_axes, in_reversed, strict=True)
        ]
        results = run_body(walker, visit, body, [*state, *items], str(i))
        state = results[: len(state)]
        for collected, item in zip(scans, results[len(state) :], strict=True):
            collected.append(item)
    outputs = body.output[len(state) :]
    return state + [
        stack(walker, visit, items[::-1] if back else items, axis, info.type.tensor_type)
        for items, axis, back, info in zip(scans, out_axes, out_reversed, outputs, strict=True)
    ]


def run_body(
    walker: Walker, visit: Visit, body: GraphProto, inputs: Sequence[Value], part: str
) -> list[Value]:
    """Walk a subgraph of the node with the given inputs; ``part`` tells it from the node's others."""
    if len(inputs) != len(body.input):
        label = f"node '{node_label(visit.node)}' ({visit.node.op_type})"
        raise ModelError(f"{label}: its body takes {len(body.input)} inputs, it gives {len(inputs)}")
    env = dict(zip([info.name for info in body.input], inputs, strict=True))
    return walker.graph(body, visit.scope.inner(env, f"{node_label(visit.node)}/{part}"))


def stack(
    walker: Walker, visit: Visit, items: Sequence[Value], axis: int, kind: TypeProto.Tensor | None = None
) -> Value:
    """One tensor of equally shaped ones, along a new axis.

    Without items it has length 0 along ``axis``, and ``kind`` is the type of an item.
    """
    if not items:
        return walker.constant("empty", _empty(kind, axis))
    dims = _dims(items[0])
    if any(_dims(item) != dims for item in items):
        raise Refused("its iterations give tensors of different shapes")
    axis %= len(dims) + 1
    shape = walker.constant("shape", np.array([*dims[:axis], 1, *dims[axis:]], np.int64))
    parts = [walker.emit("Reshape", [item, shape], visit) for item in items]
    return walker.emit("Concat", parts, visit, axis=axis)


def piece(
    walker: Walker, visit: Visit, value: Value, axis: int, start: int, count: int | None = None
) -> Value:
    """``count`` elements of a tensor along ``axis``; None takes one and drops the axis."""
    dims = list(_dims(value))
    axis %= len(dims)
    stop = start + (1 if count is None else count)
    if visit.scope.opsets.get("", 1) < 10:
        part = walker.emit("Slice", [value], visit, axes=[axis], starts=[start], ends=[stop])
    else:
        bounds = {"starts": start, "ends": stop, "axes": axis}
        inputs = [walker.constant(name, np.array([bound], np.int64)) for name, bound in bounds.items()]
        part = walker.emit("Slice", [value, *inputs], visit)
    if count is not None:
        return part
    shape = walker.constant("shape", np.array(dims[:axis] + dims[axis + 1 :], np.int64))
    return walker.emit("Reshape", [part, shape], visit)


def _empty(kind: TypeProto.Tensor | None, axis: int) -> Array:
    dims = [d.dim_value for d in kind.shape.dim if d.HasField("dim_value")] if kind else []
    if kind is None or not kind.HasField("shape") or len(dims) != len(kind.shape.dim):
        raise Refused("it never runs, and the shape of its result is not known")
    dims.insert(axis % (len(dims) + 1), 0)
    return np.empty(dims, helper.tensor_dtype_to_np_dtype(kind.elem_type))


def _holds(condition: Value) -> bool:
    if condition is None:
        return True
    if not isinstance(condition, Const):
        raise Refused("how often it runs depends on data")
    return bool(condition.array.reshape(-1)[0])


def _choose(walker: Walker, visit: Visit, condition: Value, then: Value, other: Value) -> Value:
    if isinstance(then, List) and isinstance(other, List) and len(then.items) == len(other.items):
        return List(
            tuple(
                _choose(walker, visit, condition, a, b) for a, b in zip(then.items, other.items, strict=True)
            )
        )
    if _dims(then) != _dims(other):
        raise Refused("its condition depends on data and its branches give different shapes")
    return walker.emit("Where", [condition, then, other], visit)


def _dims(value: Value) -> tuple[int, ...]:
    if isinstance(value, Const | Tensor) and value.shape is not None:
        return value.shape
    raise Refused("the shape of a tensor in it depends on data")


RULES: dict[str, Rule] = {"If": if_, "Loop": loop, "Scan": scan}
