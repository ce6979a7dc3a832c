"""Cut the common axes of a group into tiles, and tiles into units of work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx

from tvm_ipu.kernels.core_model import MIN_CYCLES_PER_THREAD
from tvm_ipu.kernels.fusion.layout import Local, global_strides
from tvm_ipu.kernels.split import Group, inner_axes

MOST_UNITS = 4096
TILE_ELEMENTS = {True: 16384, False: 4096}
"""Elements of a tile, for one operation and for several, whose results in between should stay in level 1."""

TRANSPOSED_EDGE = 64
"""Edge of a tile whose rows are another tensor's columns: a few cache lines of each."""

WANTED_UNITS = 64


@dataclass(frozen=True)
class Tiles:
    """The common axes cut into tiles.

    Attributes:
        extents: Extents of the axes.
        sizes: Extent of a tile along each; the last tile of an axis may be shorter.
    """

    extents: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles along each axis."""
        return tuple(math.ceil(extent / size) for extent, size in zip(self.extents, self.sizes, strict=True))

    @property
    def total(self) -> int:
        """Tiles in all."""
        return math.prod(self.counts)

    @property
    def per_unit(self) -> int:
        """Tiles of a unit of work."""
        return math.ceil(self.total / MOST_UNITS)

    @property
    def units(self) -> int:
        """Units of work."""
        return math.ceil(self.total / self.per_unit)


def make_tiles(
    group: Group, local: dict[tirx.Buffer, Local], lanes: int, lane_is_common: bool, cycles: float
) -> Tiles:
    """Tiles of a group.

    Args:
        group: The group.
        local: Its results that stay within the kernel.
        lanes: Lanes of a vector.
        lane_is_common: Whether vectors run along the last common axis.
        cycles: Cycles of the whole group; with few of them there are fewer units.
    """
    extents = tuple(axes[0].extent for axes in group.common)
    across = transposed_axis(group, local) if lane_is_common else None
    if across is not None:
        sizes = [1] * len(extents)
        sizes[-1] = _part(extents[-1], TRANSPOSED_EDGE, lanes)
        sizes[across] = _part(extents[across], TRANSPOSED_EDGE * (TRANSPOSED_EDGE // sizes[-1]), lanes)
        return Tiles(extents, tuple(sizes))
    inner = max((math.prod(a.extent for a in inner_axes(group, op)) for op in group.ops), default=1)
    room = max(1, TILE_ELEMENTS[len(group.ops) == 1] // inner)
    units = min(WANTED_UNITS, math.ceil(cycles / MIN_CYCLES_PER_THREAD))
    room = min(room, math.ceil(math.prod(extents) / units))
    step = lanes if lane_is_common else 1
    return Tiles(extents, _trailing(extents, max(step, room), step))


def transposed_axis(group: Group, local: dict[tirx.Buffer, Local]) -> int | None:
    """Common axis, not the last, along which a lone elementwise operation reads neighbours, or None.

    Along the last axis it writes neighbours and reads with a stride: it transposes.
    """
    if len(group.ops) > 1 or group.ops[0].accumulators or len(group.common) < 2:
        return None
    (op,) = group.ops
    written, *read = global_strides(op, group.common[-1][0], local)
    if written != 1:
        return None
    for number, (axis,) in enumerate(group.common[:-1]):
        steps = global_strides(op, axis, local)[1:]
        if any(step == 1 and other not in (0, 1) for step, other in zip(steps, read, strict=True)):
            return number
    return None


def _trailing(extents: tuple[int, ...], room: int, step: int) -> tuple[int, ...]:
    """Whole inner axes and a part of the next one, together at most ``room`` points."""
    sizes = [1] * len(extents)
    for axis in reversed(range(len(extents))):
        if room <= 1:
            break
        sizes[axis] = _part(extents[axis], room, step if axis == len(extents) - 1 else 1)
        if sizes[axis] < extents[axis]:
            break
        room //= extents[axis]
    return tuple(sizes)


def _part(extent: int, most: int, step: int) -> int:
    """Length of an axis's parts: at most ``most``, a multiple of ``step``, if possible equal parts."""
    if extent <= most:
        return extent
    top = max(step, most // step * step)
    for size in range(top, top // 2, -step):
        if extent % size == 0:
            return size
    return top
