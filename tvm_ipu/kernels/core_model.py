"""Analytic model of a core: cycles that a way of cutting a product into tiles and units takes.

It ranks decisions; it does not predict times. Costs are for a core with two multiply-add units and two load
ports, which holds for the CPUs of ``targets/`` within the model's precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.dot import Dot

LATENCY = 4.0
"""Cycles from one multiply-add to the next that needs its result."""

TILE_OVERHEAD = 20.0
"""Cycles to set up a tile: addresses, loop, branch mispredicted at its end."""

L2_BYTES_PER_CYCLE = 40.0
L3_BYTES_PER_CYCLE = 16.0
MEMORY_BYTES_PER_CYCLE = 6.0

SET_SPAN = 4096
"""Bytes after which addresses fall into the same set of a level-1 cache again."""

NEAR = 0.8
"""Part of the level-1 cache that operands may fill."""

MIN_CYCLES_PER_THREAD = 5_000
"""Work below this is not worth another thread: handing it over and waiting for it takes some 500 cycles."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of the two operands of a product, and how often parts of them are gone through.

    Attributes:
        left: Bytes of the left operand.
        right: Bytes of the right operand.
        left_unit: Bytes of the left operand that a unit touches.
        left_tile: Bytes of the left operand that a register tile touches.
        right_block: Bytes of the right operand that a register tile touches.
        row_units: Units along the rows.
        row_tiles: Register tiles along the rows, each of which goes through ``right_block``.
        column_blocks: Register tiles along the columns.
        left_streams: Whether the left operand is loaded past the level-1 cache.
    """

    left: float
    right: float
    left_unit: float
    left_tile: float
    right_block: float
    row_units: int
    row_tiles: int
    column_blocks: int
    left_streams: bool = False

    @classmethod
    def of_matrices(
        cls, rows: Blocks, columns: Blocks, left: float, right: float, left_streams: bool = False
    ) -> Traffic:
        """Of a product of matrices, with ``left`` bytes a row and ``right`` bytes a column."""
        return cls(
            left=left * rows.size,
            right=right * columns.size,
            left_unit=left * rows.block * rows.per_unit,
            left_tile=left * rows.block,
            right_block=right * columns.block,
            row_units=rows.units,
            row_tiles=rows.count,
            column_blocks=columns.count,
            left_streams=left_streams,
        )

    def cycles(self, target: Target) -> float:
        """Cycles that moving the operands takes, units taken with columns fastest and rows innermost."""
        room = target.l2_bytes * 0.7
        near = target.l1_bytes * NEAR
        from_l3 = self.left * (1 if self.left_unit + self.right_block <= room else self.column_blocks)
        from_l3 += self.right * (1 if self.right + self.left_tile <= room else self.row_units)
        if self.right_block + self.left_tile > room:
            from_l3 += self.right * (self.row_tiles - self.row_units)
        stays = self.right_block + (0 if self.left_streams else self.left_tile) <= near
        from_l2 = self.right * (self.row_units if stays else self.row_tiles)
        if self.left_unit + self.right_block > near:
            from_l2 += self.left * self.column_blocks
        return from_l3 / L3_BYTES_PER_CYCLE + from_l2 / L2_BYTES_PER_CYCLE


def tile_shapes(target: Target, dot: Dot) -> Iterator[tuple[int, int]]:
    """(rows, vectors) of the register tiles that fit, with a row of operands and one broadcast scalar."""
    registers = dot.registers or target.vector_registers
    for vectors in range(1, 9):
        for rows in range(1, 29):
            operands = dot.parts * (vectors * dot.digits * dot.halves + 1)
            unadded = 1 if dot.cost > dot.parts and vectors > 1 else 0  # a product that is added next
            if rows * vectors * dot.digits + operands + unadded <= registers:
                yield rows, vectors


def step_cycles(rows: int, vectors: int, dot: Dot) -> float:
    """Cycles of one multiplication of a tile: multiply-adds, loads, latency, instructions."""
    products = rows * vectors * dot.digits * dot.halves * dot.cost
    products += (rows * dot.halves + vectors) * dot.prepare_cost
    width = 6 if dot.cost == 1 else 4  # old cores have no dot products, and issue fewer instructions
    return max(
        products / (2 if dot.cost == 1 else 3),
        (rows + vectors) / 2,
        LATENCY,
        (products + rows + vectors + 2) / width,
    )


def conflicts(rows: int, pitch: int, target: Target) -> float:
    """Factor on the time of a tile whose rows, ``pitch`` bytes apart, may fight for the same cache sets."""
    places = SET_SPAN // math.gcd(pitch, SET_SPAN)
    ways = target.l1_bytes // SET_SPAN
    crowd = math.ceil(rows / places) + 2 - ways
    return 1 + 0.5 * max(crowd, 0) / ways


def compute_cycles(
    rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]], steps: int, dot: Dot
) -> float:
    """Cycles of a product cut into tiles.

    Args:
        rows: (rows of a tile, how many such).
        columns: (vectors of a tile, how many such).
        steps: Multiplications along the reduction.
        dot: How to multiply.
    """
    return sum(
        n * k * (steps * step_cycles(r, c, dot) + TILE_OVERHEAD + 2 * r * c)
        for r, n in rows
        for c, k in columns
    )


def overlapped(compute: float, traffic: float) -> float:
    """Cycles of computing while operands move: mostly the larger of the two."""
    return math.hypot(compute, traffic)


def imbalance(units: int, cores: int, filled: float = 1.0) -> float:
    """Time of the slowest core over the mean, with whole units dealt to cores.

    Args:
        units: Units of work.
        cores: Cores that share them.
        filled: Work of the mean unit as a share of the largest one's (``Blocks.filled``).
    """
    return min(math.ceil(units / cores) / filled, units) * cores / units


def grain(cycles: float, units: int) -> int:
    """Fewest units that keep a thread busy long enough."""
    return max(1, min(units, math.ceil(MIN_CYCLES_PER_THREAD * units / max(cycles, 1.0))))


def per_unit(blocks: int) -> list[int]:
    """How many of ``blocks`` blocks a unit may take: powers of two, and what makes 1, 2, 4 or 8 units."""
    powers = {1 << i for i in range(max(blocks - 1, 0).bit_length())}
    return sorted(powers | {math.ceil(blocks / units) for units in (1, 2, 4, 8)})
