"""Sequences of known length and optional values: they exist only while the graph is walked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvm_ipu.frontends.onnx.graph import Const, List, Tensor, Value
from tvm_ipu.frontends.onnx.rules_control import piece, run_body, stack
from tvm_ipu.frontends.onnx.walker import Refused, Rule, Visit, Walker


def construct(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """SequenceConstruct and SequenceEmpty: the inputs, as a list."""
    return [List(visit.inputs)]


def insert(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """SequenceInsert, at the end by default."""
    items = list(_items(visit))
    position = len(items) if visit.input(2) is None else _position(visit, 2)
    if not -len(items) <= position <= len(items):
        raise Refused(f"position {position} is outside a sequence of {len(items)}")
    items.insert(position, visit.input(1))
    return [List(tuple(items))]


def erase(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """SequenceErase, at the end by default."""
    items = list(_items(visit))
    del items[_existing(visit, -1 if visit.input(1) is None else _position(visit, 1))]
    return [List(tuple(items))]


def at(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """SequenceAt a known position."""
    return [_items(visit)[_existing(visit, _position(visit, 1))]]


def length(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """SequenceLength."""
    return [walker.known(visit, np.array(len(_items(visit)), np.int64))]


def concat(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """ConcatFromSequence, along an axis or a new one."""
    items, axis = _items(visit), visit.attrs["axis"]
    if visit.attrs.get("new_axis", 0):
        return [stack(walker, visit, items, axis)]
    return [walker.emit("Concat", items, visit, axis=axis)]


def split(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """SplitToSequence into pieces of known lengths."""
    value, axis = visit.input(0), visit.attrs.get("axis", 0)
    if not isinstance(value, Const | Tensor) or value.shape is None:
        raise Refused("the shape of an input depends on data")
    if visit.input(1) is not None and visit.array(1) is None:
        raise Refused("input 'split' must be a constant")
    axis %= len(value.shape)
    total, sizes = value.shape[axis], visit.array(1)
    if sizes is None or sizes.ndim == 0:
        step = 1 if sizes is None else int(sizes)
        lengths = [min(step, total - start) for start in range(0, total, step)]
    else:
        lengths = [int(n) for n in sizes]
    stops = np.cumsum(lengths)
    keep = visit.attrs.get("keepdims", 1) or sizes is not None
    items = [
        piece(walker, visit, value, axis, int(stop) - n, n if keep else None)
        for stop, n in zip(stops, lengths, strict=True)
    ]
    return [List(tuple(items))]


def map_(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """SequenceMap: its body, once for each element."""
    body = visit.attrs["body"]
    results = []
    for i in range(len(_items(visit))):
        inputs = [v.items[i] if isinstance(v, List) else v for v in visit.inputs]
        results.append(run_body(walker, visit, body, inputs, str(i)))
    return [List(tuple(column)) for column in zip(*results, strict=True)] or [List(()) for _ in body.output]


def optional(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Optional: its element, or nothing."""
    return [visit.input(0)]


def optional_has(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """OptionalHasElement: known, because nothing here is absent by data."""
    return [walker.known(visit, np.array(visit.input(0) is not None))]


def optional_get(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """OptionalGetElement."""
    if visit.input(0) is None:
        raise Refused("its input is an empty optional")
    return [visit.input(0)]


def _items(visit: Visit) -> tuple[Value, ...]:
    value = visit.input(0)
    if not isinstance(value, List):
        raise Refused("the length of its sequence is not known")
    return value.items


def _position(visit: Visit, index: int) -> int:
    array = visit.array(index)
    if array is None:
        raise Refused("a position in a sequence depends on data")
    return int(array.reshape(-1)[0])


def _existing(visit: Visit, position: int) -> int:
    count = len(_items(visit))
    if not -count <= position < count:
        raise Refused(f"position {position} is outside a sequence of {count}")
    return position


RULES: dict[str, Rule] = {
    "SequenceConstruct": construct,
    "SequenceEmpty": construct,
    "SequenceInsert": insert,
    "SequenceErase": erase,
    "SequenceAt": at,
    "SequenceLength": length,
    "ConcatFromSequence": concat,
    "SplitToSequence": split,
    "SequenceMap": map_,
    "Optional": optional,
    "OptionalHasElement": optional_has,
    "OptionalGetElement": optional_get,
}
