"""A dimension cut into blocks of equal size and a shorter last one, some blocks to each unit of work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.emit import Emitter, Index, index


@dataclass(frozen=True)
class Blocks:
    """``size`` elements in blocks of ``block``.

    Attributes:
        size: Elements.
        block: Elements of every block but the last, which may be shorter.
        per_unit: Blocks that one unit of work takes.
    """

    size: int
    block: int
    per_unit: int = 1

    @property
    def full(self) -> int:
        """Number of blocks with ``block`` elements."""
        return self.size // self.block

    @property
    def tail(self) -> int:
        """Elements of the shorter last block; 0 where there is none."""
        return self.size % self.block

    @property
    def count(self) -> int:
        """Number of blocks."""
        return math.ceil(self.size / self.block)

    @property
    def units(self) -> int:
        """Units that the blocks make."""
        return math.ceil(self.count / self.per_unit)

    @property
    def filled(self) -> float:
        """Blocks of the mean unit as a share of the largest one's."""
        return self.count / (self.units * min(self.per_unit, self.count))

    def pieces(self) -> list[tuple[int, int]]:
        """(length, how many) of the blocks."""
        return [(length, n) for length, n in ((self.block, self.full), (self.tail, 1)) if length and n]

    def emit(
        self,
        e: Emitter,
        name: str,
        unit: Index,
        body: Callable[[Expr, int], None],
        after: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Emit ``body(first element, number of elements)`` for every block of ``unit``.

        The body is emitted at most twice: in a loop over full blocks, and for the last block. Behind each,
        ``after(number of elements)`` is emitted.
        """
        first = unit * self.per_unit
        if self.full:
            extent: Index = min(self.per_unit, self.full)
            if self.units > 1 and self.units * self.per_unit > self.full:
                extent = tirx.min(index(self.per_unit), self.full - first)
            with e.loop(name, first, extent) as number:
                body(e.bind(name, number * self.block), self.block)
            after(self.block)
        if self.tail:
            start = self.full * self.block
            if self.units == 1:
                body(index(start), self.tail)
                after(self.tail)
            else:
                with e.when(index(unit) == self.units - 1):
                    body(index(start), self.tail)
                    after(self.tail)
