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

LATENCY = 4.0
"""Cycles from one multiply-add to the next that needs its result."""

TILE_OVERHEAD = 20.0
"""Cycles to set up a tile: addresses, loop, branch mispredicted at its end."""

L2_BYTES_PER_CYCLE = 40.0
L3_BYTES_PER_CYCLE = 12.0

SET_SPAN = 4096
"""Bytes after which addresses fall into the same set of a level-1 cache again."""

MIN_CYCLES_PER_THREAD = 20_000
"""Work below this is not worth waking another thread."""


@dataclass(frozen=True)
class Traffic:
    """Bytes of the two operands of a product, and of the parts that one unit and one block of it touch."""

    left: int
    right: int
    left_unit: int
    right_unit: int
    left_block: int
    right_block: int


def tile_shapes(target: Target) -> Iterator[tuple[int, int]]:
    """(rows, vectors) of the register tiles that fit, with a row of operands and one broadcast scalar."""
    for vectors in range(1, 9):
        for rows in range(1, 29):
            if rows * vectors + vectors + 1 <= target.vector_registers:
                yield rows, vectors


def step_cycles(rows: int, vectors: int) -> float:
    """Cycles of one step along the reduction: multiply-adds, loads, latency, instructions."""
    products = rows * vectors
    return max(products / 2, (rows + vectors) / 2, LATENCY, (products + rows + vectors + 2) / 6)


def conflicts(rows: int, pitch: int, target: Target) -> float:
    """Factor on the time of a tile whose rows, ``pitch`` bytes apart, may fight for the same cache sets."""
    places = SET_SPAN // math.gcd(pitch, SET_SPAN)
    ways = target.l1_bytes // SET_SPAN
    return 1.5 if math.ceil(rows / places) + 2 > ways else 1.0


def compute_cycles(rows: Sequence[tuple[int, int]], columns: Sequence[tuple[int, int]], depth: int) -> float:
    """Cycles of a product cut into tiles.

    Args:
        rows: (rows of a tile, how many such).
        columns: (vectors of a tile, how many such).
        depth: Length of the reduction.
    """
    return sum(
        n * k * (depth * step_cycles(r, c) + TILE_OVERHEAD + 2 * r * c) for r, n in rows for c, k in columns
    )


def traffic_cycles(traffic: Traffic, rows: Blocks, columns: Blocks, target: Target) -> float:
    """Cycles that moving the operands adds, units taken with columns fastest and rows innermost.

    Args:
        traffic: Sizes of the operands.
        rows: Cut of the left operand.
        columns: Cut of the right operand.
        target: Chip whose caches hold them.
    """
    room = target.l2_bytes * 0.7
    from_l3 = traffic.left * (1 if traffic.left_unit + traffic.right_block <= room else columns.count)
    from_l3 += traffic.right * (1 if traffic.right + traffic.left_block <= room else rows.units)
    if traffic.right_block + traffic.left_block > room:
        from_l3 += traffic.right * (rows.count - rows.units)
    from_l2 = traffic.right * rows.count
    if traffic.left_unit + traffic.right_block > target.l1_bytes * 0.8:
        from_l2 += traffic.left * columns.count
    if traffic.left_block + traffic.right_block <= target.l1_bytes * 0.8:
        from_l2 -= traffic.right * (rows.count - rows.units)
    return from_l3 / L3_BYTES_PER_CYCLE + 0.5 * from_l2 / L2_BYTES_PER_CYCLE


def imbalance(units: int, cores: int) -> float:
    """Time of the slowest core over the mean, with whole units dealt to cores."""
    return math.ceil(units / cores) * cores / units


def grain(cycles: float, units: int) -> int:
    """Fewest units that keep a thread busy long enough."""
    return max(1, min(units, math.ceil(MIN_CYCLES_PER_THREAD * units / max(cycles, 1.0))))


def powers(limit: int) -> list[int]:
    """1, 2, 4 ... up to ``limit``, and ``limit`` itself."""
    return [*(1 << i for i in range(max(limit - 1, 0).bit_length())), limit]
