"""Put the expressions of operations in place of the loads of their results.

    a[i] = x[i] + y[i]
    b[i] = max(a[i], 0)        ->        b[i] = max(x[i] + y[i], 0)

An operation is kept where its value is expensive and read more than once: repeated work costs more than a
pass over memory that a cache holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tvm import ir, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import (
    contains,
    cost,
    is_branch,
    loads,
    op_name,
    replace_loads,
    substitute,
)
from tvm_ipu.kernels.fusion.ops import Op, Opaque

CHEAP = 10.0
"""Instructions that may be repeated ``FEW`` times rather than kept."""

FEW = 16.0
MOST = 400.0
"""An expression is not made longer than this."""


def inline(ops: list[Op | Opaque], outputs: Iterable[tirx.Buffer]) -> list[Op | Opaque]:
    """The operations without those that the others can take in.

    Args:
        ops: In order.
        outputs: Buffers that must be written.
    """
    keep = set(outputs)
    result = list(ops)
    for op in ops:
        if not isinstance(op, Op) or op.is_reduction or op.targets[0] in keep or len(op.targets) > 1:
            continue
        (target,) = op.targets
        if sum(target in other.targets for other in ops) > 1:
            continue
        users = {
            i: other for i, other in enumerate(result) if target in other.reads and isinstance(other, Op)
        }
        if not users or len(users) < sum(target in other.reads for other in result):
            continue
        current = next(o for o in result if o.targets == op.targets)
        assert isinstance(current, Op)
        if _is_written_after_read(current, result):
            continue
        if _worth_inlining(current, list(users.values())):
            for i, user in users.items():
                result[i] = _inlined(current, user)
            result = [o for o in result if o is not current]
    return result


def _is_written_after_read(op: Op, ops: list[Op | Opaque]) -> bool:
    """Whether something that ``op`` reads is written later (by an opaque statement that works in place)."""
    later = ops[ops.index(op) + 1 :]
    return any(buffer in other.targets for buffer in op.reads for other in later)


def _worth_inlining(op: Op, users: list[Op]) -> bool:
    (target,) = op.targets
    price = op.cost
    if price <= 1:
        return True
    reads = sum(
        user.iterations * [load.source for load in loads(value)].count(target)
        for user in users
        for value in user.values
    )
    repeats = reads / max(op.iterations, 1)
    if any(user.cost + price > MOST for user in users):
        return False
    if _has_function(op.values[0]) and any(
        _in_branch(target, value) for user in users for value in user.values
    ):
        return repeats <= 1
    return repeats <= 1 or (price <= CHEAP and repeats <= FEW)


def _has_function(value: Expr) -> bool:
    return contains(value, (ir.Call,), lambda call: cost(call) >= 8 and op_name(call) != "if_then_else")


def _in_branch(target: tirx.Buffer, value: Expr) -> bool:
    return contains(
        value, (ir.Call,), lambda call: is_branch(call) and target in {x.source for x in loads(call)}
    )


def _inlined(op: Op, user: Op) -> Op:
    (target,), (value,) = op.targets, op.values
    dims = {at: dim for dim, at in enumerate(op.indices) if isinstance(at, ir.Var)}

    def load(node: ir.TensorLoad) -> Expr:
        if node.source != target:
            return node
        return substitute(value, {var: node.indices[dim] for var, dim in dims.items()})

    return replace(user, values=tuple(replace_loads(v, load) for v in user.values))
