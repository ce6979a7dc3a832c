"""Instructions of the chips: one module an instruction set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.dot import Dot, plain_dot
from tvm_ipu.kernels.isa import arm, hexagon, riscv, x86

_DOTS: dict[str, Callable[[Target], list[Dot]]] = {
    "x86_64": x86.dots,
    "aarch64": arm.dots,
    "arm": arm.dots,
    "riscv64": riscv.dots,
    "hexagon": hexagon.dots,
}
"""By architecture: the dot products of a target, best first."""


@cache
def find_dot(left: str, right: str, target: Target) -> Dot:
    """The target's best dot product for a pair of element types; the plain one where it has no other."""
    known = _DOTS[target.arch](target) if target.arch in _DOTS else []
    return next((dot for dot in known if (dot.left, dot.right) == (left, right)), None) or plain_dot(
        left, right, target
    )
