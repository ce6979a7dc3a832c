"""What a template emits."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx


@dataclass(frozen=True)
class Kernel:
    """A function over flat buffers, and what a launch says about it.

    Attributes:
        func: The kernel, one parallel loop outermost.
        extent: Extent of that loop.
        grain: Fewest units worth a thread of their own.
        flops: Arithmetic operations.
    """

    func: tirx.PrimFunc
    extent: int
    grain: int
    flops: int
