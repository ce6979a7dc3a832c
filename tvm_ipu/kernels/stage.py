"""A stage: one kernel of the image, as the templates and the generic rule hand it to code generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm import tirx

ArgRef = tuple[str, int]
"""Where an argument comes from: ``("param", i)`` of the fused function or ``("temp", k)``."""

TempSpec = tuple[tuple[int, ...], str]
"""Shape and TVM dtype of an intermediate tensor that lives from one stage to a later one."""


@dataclass(frozen=True)
class Stage:
    """One kernel.

    Attributes:
        func: Its parameters are buffers in argument order. The body has one outermost loop of kind PARALLEL
            with static extent, and everything else inside it; or no such loop, and then ``extent`` is 1.
        args: For each parameter of ``func``, the tensor that it is bound to.
        extent: Extent of the parallel loop: units of work that may run at the same time, in any order.
        grain: Fewest units that are worth a thread of their own; ``extent`` where it must not be split.
        template: Name of the template that made it, or ``generic``.
        flops: Arithmetic operations of the whole kernel (a multiply-add counts two).
    """

    func: tirx.PrimFunc
    args: tuple[ArgRef, ...]
    extent: int
    grain: int
    template: str
    flops: int
