"""Analytic model of the tile unit: cycles of the blocks of a product, epilogue included.

As in ``core_model``, it ranks decisions and does not predict times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tvm_ipu.kernels.isa import amx

EPILOGUE_CYCLES = 6.0
"""Cycles in which the vector units finish a row of 16 sums."""

BLOCK_OVERHEAD = 30.0
"""Cycles between two blocks: addresses, the pending block's state, a branch mispredicted."""

COLD_BYTES_PER_CYCLE = 8.0
"""Reading of memory, fetched ahead."""

CALL_OVERHEAD = 100.0
"""Cycles at the start and end of a unit, with the first block's latency."""


def with_cold_weights(cycles: float, weights: float) -> float:
    """``cycles`` while ``weights`` bytes come from memory, whence others push them between two inferences."""
    return math.hypot(cycles, weights / COLD_BYTES_PER_CYCLE)


@dataclass(frozen=True)
class Blocks:
    """Blocks of equal shape.

    Attributes:
        shape: Shape of a block.
        steps: Steps along the reduction.
        rows: Blocks below each other.
        columns: Blocks side by side.
    """

    shape: amx.Shape
    steps: int
    rows: int
    columns: int

    def cycles(self, units: int) -> float:
        """Cycles with operands in the level-1 cache; a unit's last epilogue overlaps with nothing."""
        shape = self.shape
        tiles = shape.rows * shape.columns
        epilogue = shape.height * shape.columns * EPILOGUE_CYCLES
        products = self.steps * shape.step_cycles
        block = max(products, epilogue) + tiles * amx.STORE_CYCLES + BLOCK_OVERHEAD
        return self.rows * self.columns * block + units * (epilogue + CALL_OVERHEAD)


def tile_heights(rows: int, tiles: int) -> Iterator[int]:
    """Rows of a tile worth trying, where ``tiles`` lie below each other in a block.

    A block has no more rows than there are. Rows that make no whole number of full tiles may be shared out
    evenly.
    """
    heights = {amx.ROWS, math.ceil(rows / (tiles * math.ceil(rows / (tiles * amx.ROWS))))}
    yield from sorted(height for height in heights if height * tiles <= rows)
