"""Weights fetched before their use: while one column block is multiplied, the next one's come closer.

The weights of a block are gone through once for each of its row tiles, and the next block's follow in memory.
Each row tile fetches its share of them, a few cache lines every ``STRETCH`` multiplications: the more tiles
there are, the less a fetch costs. The last block of a layer fetches the next layer's weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.dot import Dot
from tvm_ipu.kernels.emit import LINE_BYTES, Emitter, Index, item_bytes
from tvm_ipu.kernels.registers import STRETCH

FEWEST_TILES = 3
"""With fewer row tiles, fetching takes more instructions than it saves time."""


@dataclass(frozen=True)
class Ahead:
    """What one row tile fetches.

    Attributes:
        e: Where the statements go.
        buffer: The weights.
        dot: How they are multiplied.
        own: First element of the block's own weights.
        share: First element of what the tile fetches.
        lines: Cache lines every ``STRETCH`` multiplications.
    """

    e: Emitter
    buffer: tirx.Buffer
    dot: Dot
    own: Expr
    share: Expr
    lines: int

    def meanwhile(self, right: Expr) -> Callable[[Index], None]:
        """What ``RegisterTile.add_dots`` is to emit along a run whose weights start at ``right``."""
        line = LINE_BYTES // _item(self.dot)
        done = self.e.bind("done", tirx.floordiv(right - self.own, STRETCH * self.dot.panel))

        def fetch(stretch: Index) -> None:
            for i in range(self.lines):
                self.e.prefetch(self.buffer, self.share + ((done + stretch) * self.lines + i) * line)

        return fetch


def lines_ahead(dot: Dot, vectors: int, row_tiles: int) -> float:
    """Cache lines that each of a block's row tiles has to fetch every ``STRETCH`` multiplications."""
    return vectors * STRETCH * dot.panel * _item(dot) / (LINE_BYTES * row_tiles)


def ahead(
    e: Emitter, buffer: tirx.Buffer, dot: Dot, own: Expr, vectors: int, steps: int, tile: Expr, lines: float
) -> Ahead:
    """The share of a row tile.

    Args:
        e: Where the statements go.
        buffer: The weights.
        dot: How they are multiplied.
        own: First element of the column block's own weights.
        vectors: Vectors of the block.
        steps: Multiplications of a tile for each of its accumulators.
        tile: Number of the tile among those of its column block.
        lines: What ``lines_ahead`` says.
    """
    count = math.ceil(lines)
    line = LINE_BYTES // _item(dot)
    following = own + vectors * steps * dot.panel
    share = e.bind("share", following + tile * (steps // STRETCH * count * line))
    return Ahead(e, buffer, dot, own, share, count)


def _item(dot: Dot) -> int:
    """Bytes of an element of the weights in memory."""
    return item_bytes(dot.stored or dot.right)
