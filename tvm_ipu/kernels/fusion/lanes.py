"""Choose the axis that vectors run along: the one along which an operation's data lie next to each other."""

from __future__ import annotations

from collections.abc import Sequence

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.emit import item_bytes
from tvm_ipu.kernels.expressions import is_branch, loads, variables

SCALAR_ACCESS = 1.5
"""Instructions for each lane of a vector whose elements do not lie together."""

HORIZONTAL = 12.0
"""Instructions to reduce a vector to a scalar."""


def lanes_for(values: Sequence[Expr], targets: Sequence[tirx.Buffer], target: Target) -> int:
    """Lanes of the vectors that an operation works on: the widest type that takes part fills a register."""
    widest = max(item_bytes(str(t.ty.dtype.dtype)) for t in targets)
    for value in values:
        for load in loads(value):
            widest = max(widest, item_bytes(str(load.ty)))
        widest = max(widest, _widest_computed(value))
    return target.lanes(8 * min(widest, 8))


def _widest_computed(value: Expr) -> int:
    widest = 1

    def visit(node: Expr) -> None:
        nonlocal widest
        name = str(node.ty)
        if name == "float16" or name == "bfloat16":
            widest = max(widest, 4)  # computed in float32
        elif name in ("float32", "float64", "int64", "uint64"):
            widest = max(widest, item_bytes(name))

    def skip_indices(node: Expr) -> object:
        visit(node)
        return tvm_ffi.WalkResult.SKIP if isinstance(node, ir.TensorLoad) else None

    tvm_ffi.structural_walk(value, (tirx.Expr, skip_indices), order="pre")
    return widest


def pieces(extent: int, lanes: int) -> list[tuple[int, int, int]]:
    """(first element, lanes, how many) of the vectors that cover an axis: full ones, then powers of two."""
    full = extent // lanes
    cover = [(0, lanes, full)] if full else []
    at, width = full * lanes, lanes
    while at < extent:
        width //= 2
        if at + width <= extent:
            cover.append((at, width, 1))
            at += width
    return cover


def vectors(extent: int, lanes: int) -> int:
    """Number of vectors that cover an axis."""
    return sum(count for _, _, count in pieces(extent, lanes))


def lane_cost(
    steps: Sequence[int | None], work: float, extent: int, lanes: int, is_reduced: bool, in_branch: bool
) -> float:
    """Instructions for each element when vectors run along an axis.

    Args:
        steps: Distance between neighbours of each access along the axis.
        work: Instructions besides the accesses.
        extent: Length of the axis.
        lanes: Lanes of a full vector.
        is_reduced: Whether the axis is reduced over.
        in_branch: Whether a branch depends on the axis, which makes vectors impossible.
    """
    if in_branch:
        return work + len(steps)
    count = vectors(extent, lanes)
    each = extent / count
    total = work
    for step in steps:
        if step == 0:
            total += 0.25
        elif step == 1:
            total += 1.0
        else:
            total += SCALAR_ACCESS * each
    return (total * count + (HORIZONTAL if is_reduced else 0.0)) / extent


def branches_on(values: Sequence[Expr], var: tirx.Var) -> bool:
    """Whether the condition of a branch depends on a variable."""
    found = False

    def visit(call: ir.Call) -> None:
        nonlocal found
        if is_branch(call) and var in variables(call.args[0]):
            found = True

    for value in values:
        tvm_ffi.structural_walk(value, (ir.Call, visit))
    return found
