"""Parts of a concatenation are its operands: detectors join boxes and scores, and take them apart again.

    Split(Concat(a, b))             ->  a, b
    Slice(Transpose(Concat(a, b)))  ->  Transpose(a)

Nothing is copied then, and fixed point needs no common grid for boxes in pixels and scores from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from tvm_ipu.frontends.onnx.graph import Const, Tensor, Value, attributes
from tvm_ipu.frontends.onnx.walker import Rule, Visit, Walker


def split(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Split whose parts are operands of a concatenation, or several of them."""
    value = visit.input(0)
    if not isinstance(value, Tensor) or value.shape is None:
        return None
    axis = visit.attrs.get("axis", 0) % max(len(value.shape), 1)
    sizes = [shape[axis] for _, shape in walker.types(visit) if shape is not None]
    if len(sizes) < len(visit.node.output):
        return None
    ends = list(accumulate(sizes))
    return _take(walker, visit, value, axis, list(zip([0, *ends], ends, strict=False)))


def slice_(walker: Walker, visit: Visit) -> Sequence[Value] | None:
    """Slice along one axis that is an operand of a concatenation, or several of them."""
    value, arrays = visit.input(0), [visit.array(i) for i in (1, 2, 3)]
    steps = visit.array(4)
    one_axis = all(array is not None and array.size == 1 for array in arrays)
    if not isinstance(value, Tensor) or value.shape is None or not one_axis:
        return None
    if visit.input(4) is not None and (steps is None or int(steps.reshape(-1)[0]) != 1):
        return None
    start, stop, axis = (int(np.asarray(array).reshape(-1)[0]) for array in arrays)
    axis %= len(value.shape)
    first, last, _ = slice(start, stop).indices(value.shape[axis])
    return _take(walker, visit, value, axis, [(first, last)])


def _take(
    walker: Walker, visit: Visit, value: Tensor, axis: int, parts: Sequence[tuple[int, int]]
) -> list[Value] | None:
    """The parts of a tensor, each from one index to another; None where they are not whole operands."""
    made = walker.made.get(value.name)
    perm: list[int] = []
    if made is not None and made.node.op_type == "Transpose":
        perm = list(attributes(made.node).get("perm", reversed(range(len(value.shape or ())))))
        inner = made.inputs[0]
        made = walker.made.get(inner.name) if inner is not None else None
    if made is None or made.node.op_type != "Concat":
        return None
    inside = perm[axis] if perm else axis
    if attributes(made.node)["axis"] % len(value.shape or ()) != inside:
        return None
    operands = [one for one in made.inputs if isinstance(one, Const | Tensor) and one.shape is not None]
    if len(operands) < len(made.inputs):
        return None
    ends = list(accumulate(one.shape[inside] for one in operands if one.shape is not None))
    starts = [0, *ends[:-1]]
    chosen = []
    for first, last in parts:
        if first not in starts or last not in ends or first >= last:
            return None
        chosen.append(operands[starts.index(first) : ends.index(last) + 1])
    found: list[Value] = []
    for some in chosen:
        one: Value = some[0] if len(some) == 1 else walker.emit("Concat", some, visit, axis=inside)
        found.append(walker.emit("Transpose", [one], visit, perm=perm) if perm else one)
    return found


RULES: dict[str, Rule] = {"Split": split, "Slice": slice_}
