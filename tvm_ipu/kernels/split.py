"""Group the operations of a fused function into kernels.

Operations share a kernel when they have axes in common: axes that all of them run over, and along which each
reads of the others' results only what has its own coordinate. A kernel takes one tile of those axes through
all its operations, and what lies between them stays in a core's cache. Softmax has its rows in common::

    m[i] = max_k x[i, k]                  s[i] = sum_k e[i, k]
    e[i, k] = exp(x[i, k] - m[i])         y[i, k] = e[i, k] / s[i]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvm import ir, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.core_model import MIN_CYCLES_PER_THREAD
from tvm_ipu.kernels.emit import item_bytes
from tvm_ipu.kernels.expressions import dtype_of, loads
from tvm_ipu.kernels.fusion.ops import Axis, Op, Opaque

MANY_UNITS = 32
"""With as many units of work, fewer than before is no loss."""


@dataclass(frozen=True)
class Group:
    """Operations of one kernel.

    Attributes:
        ops: In order.
        common: For each common axis the operations' own axes, one for each operation.
    """

    ops: tuple[Op, ...]
    common: tuple[tuple[Axis, ...], ...]

    @property
    def units(self) -> int:
        """Points of the common axes."""
        return math.prod(axes[0].extent for axes in self.common)

    def common_of(self, op: Op) -> tuple[Axis, ...]:
        """An operation's own common axes."""
        at = next(i for i, own in enumerate(self.ops) if own is op)
        return tuple(axes[at] for axes in self.common)


def split(ops: Sequence[Op | Opaque], outputs: Iterable[tirx.Buffer], target: Target) -> list[Group | Opaque]:
    """Groups in order.

    Args:
        ops: Operations of the function, in order.
        outputs: Its outputs.
        target: Chip, for its caches.
    """
    keep = set(outputs)
    groups: list[Group | Opaque] = []
    for op in ops:
        if isinstance(op, Opaque):
            groups.append(op)
            continue
        last = groups[-1] if groups else None
        joined = _join(last, op, keep, target) if isinstance(last, Group) else None
        if joined is None:
            groups.append(make_group([op]))
        else:
            groups[-1] = joined
    return groups


def make_group(ops: Sequence[Op]) -> Group:
    """A group of operations with all axes that they have in common."""
    parent: dict[tirx.Var, tirx.Var] = {axis.var: axis.var for op in ops for axis in op.axes}
    extents = {axis.var: axis.extent for op in ops for axis in op.axes}
    blocked: set[tirx.Var] = set()

    def root(var: tirx.Var) -> tirx.Var:
        while not parent[var].same_as(var):
            var = parent[var]
        return var

    def relate(own: ir.Expr, other: ir.Expr) -> None:
        """The two are indices of the same dimension of a buffer, in different operations."""
        known = [at in extents if isinstance(at, ir.Var) else False for at in (own, other)]
        if all(known) and extents[own] == extents[other]:
            parent[root(own)] = root(other)
            return
        for at, is_axis in zip((own, other), known, strict=True):
            if is_axis:
                blocked.add(at)

    for number, op in enumerate(ops):
        for earlier in ops[:number]:
            for value in op.values:
                for load in loads(value):
                    if load.source in earlier.targets:
                        for own, other in zip(load.indices, earlier.indices, strict=True):
                            relate(own, other)
            if set(op.targets) & set(earlier.targets):
                for own, other in zip(op.indices, earlier.indices, strict=True):
                    relate(own, other)

    classes: dict[tirx.Var, list[list[Axis]]] = {}
    for number, op in enumerate(ops):
        for axis in op.axes:
            classes.setdefault(root(axis.var), [[] for _ in ops])[number].append(axis)
    bad = {root(var) for var in blocked}
    common = [
        tuple(axes[0] for axes in members)
        for name, members in classes.items()
        if name not in bad and all(len(axes) == 1 for axes in members)
    ]
    order = [axis.var for axis in ops[-1].axes]
    common.sort(key=lambda axes: order.index(axes[-1].var))
    return Group(tuple(ops), tuple(common))


def _join(group: Group, op: Op, keep: set[tirx.Buffer], target: Target) -> Group | None:
    """The group with one more operation; None where two kernels are better."""
    joined = make_group([*group.ops, op])
    return joined if _is_better(group, joined, op, keep, target) else None


def _is_better(group: Group, joined: Group, op: Op, keep: set[tirx.Buffer], target: Target) -> bool:
    """Whether one kernel is better than two: with enough units of work, and intermediate results in cache."""
    if sum(cycles(one) for one in joined.ops) < 2 * MIN_CYCLES_PER_THREAD:
        return True
    alone = math.prod(axis.extent for axis in op.axes)
    before = [(sum(cycles(one) for one in group.ops), group.units), (cycles(op), alone)]
    if any(work > MIN_CYCLES_PER_THREAD and joined.units < min(MANY_UNITS, units) for work, units in before):
        return False
    return point_bytes(joined, keep) <= target.l2_bytes // 4


def point_bytes(group: Group, keep: set[tirx.Buffer]) -> int:
    """Bytes of the intermediate results that belong to one point of the common axes."""
    return sum(
        math.prod(axis.extent for axis in inner_axes(group, op)) * item_bytes(dtype_of(target))
        for op in group.ops
        for target in op.targets
        if target not in keep
    )


def inner_axes(group: Group, op: Op) -> list[Axis]:
    """Spatial axes of an operation that are not common."""
    common = group.common_of(op)
    return [axis for axis in op.axes if axis not in common]


def cycles(op: Op) -> float:
    """Rough number of cycles, on eight lanes and two units."""
    return op.iterations * op.cost / 16
