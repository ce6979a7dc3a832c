"""Instructions of the chips: one module an instruction set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.digits import LARGEST_DIGIT, with_digits
from tvm_ipu.kernels.dot import Dot, accumulator, plain_dot
from tvm_ipu.kernels.isa import arm, hexagon, riscv, x86
from tvm_ipu.kernels.nibbles import INT4, with_nibbles

_DOTS: dict[str, Callable[[Target], list[Dot]]] = {
    "x86_64": x86.dots,
    "aarch64": arm.dots,
    "arm": arm.dots,
    "riscv64": riscv.dots,
    "hexagon": hexagon.dots,
}
"""By architecture: the dot products of a target, best first."""


@cache
def storage_for(left: str, right: str, target: Target) -> str:
    """The type in which a left operand should lie in memory.

    It is int16 where bytes would have to be taken apart each time they are used. Tile registers take bytes of
    any sign.
    """
    if "amx" in target.isa:
        return left
    dot, wide = find_dot(left, right, target), find_dot("int16", right, target)
    is_better = dot.prepare_cost > 0 and wide.group > 1 and wide.cost / wide.group <= dot.cost / dot.group
    return "int16" if is_better else left


@cache
def widens_slowly(left: str, right: str, target: Target) -> bool:
    """Whether extending the right operand to the left one's 16 bits competes with the multiplications.

    It does where the additions are instructions of their own: then all vector units are busy without it.
    """
    dot = find_dot(left, right, target)
    wide = find_dot(left, left, target)
    return (left, right) == ("int16", "int8") and 1 < dot.cost == wide.cost and 1 < dot.group == wide.group


@cache
def find_dot(left: str, right: str, target: Target, acc: str = "") -> Dot:
    """The target's best dot product for a pair of element types; the plain one where it has no other.

    Args:
        left: Type of the left operand.
        right: Type of the right operand.
        target: Chip to compile for.
        acc: Type of the accumulators; empty for the usual one.
    """
    acc = acc or accumulator(left)
    if right == INT4:
        return with_nibbles(find_dot(left, "int8", target, acc))
    if acc == "int64" and left == "int16" and right in LARGEST_DIGIT:
        narrow = find_dot(left, right, target)
        return with_digits(narrow) if narrow.lanes > 1 else plain_dot(left, right, target, acc)
    known = _DOTS[target.arch](target) if target.arch in _DOTS else []
    found = (dot for dot in known if (dot.left, dot.right, dot.acc) == (left, right, acc))
    return next(found, None) or plain_dot(left, right, target, acc)
