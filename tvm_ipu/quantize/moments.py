"""Means and covariances of what a product's weights are multiplied by, from positions drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvm_ipu.base.graph import Array, Node

POSITIONS = 8192
"""Positions of all samples together."""


@dataclass
class Moments:
    """Of the rows of numbers that one output is a product of.

    Attributes:
        node: Convolution or matrix product.
        kernel: Shape of its weights.
        each: Positions of one sample.
        seed: Of the generator that draws them.
        origin: What is taken off all rows, for constant ones have no covariance: the first sample's mean,
            float32 [groups, 1, depth].
        total: Sum of the rows, float64 [groups, depth].
        squares: Sum of their outer products, float32 [groups, depth, depth].
        count: Rows.
    """

    node: Node
    kernel: tuple[int, ...]
    each: int
    seed: int = 0
    origin: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    total: Array = field(default_factory=lambda: np.zeros(0))
    squares: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    count: int = 0

    def observe(self, values: Array, sample: int) -> bool:
        """Add a sample's input of the product, float32; False where a number is not finite."""
        if not np.isfinite(values).all():
            return False
        random = np.random.default_rng([self.seed, sample])
        rows = self._patches(values, random) if self.node.op_type == "Conv" else self._rows(values, random)
        if not self.count:
            groups, _, depth = rows.shape
            self.origin = rows.mean(1, dtype=np.float64, keepdims=True).astype(np.float32)
            self.total = np.zeros((groups, depth))
            self.squares = np.zeros((groups, depth, depth), np.float32)
        rows = rows - self.origin
        self.total += rows.sum(1, dtype=np.float64)
        self.squares += rows.transpose(0, 2, 1) @ rows
        self.count += rows.shape[1]
        return True

    @property
    def mean(self) -> Array:
        """Mean row, float64 [groups, depth]."""
        return np.asarray(self.origin[:, 0] + self.total / max(self.count, 1))

    @property
    def covariance(self) -> Array:
        """float64 [groups, depth, depth]."""
        mean = self.total / max(self.count, 1)
        return np.asarray(
            self.squares.astype(np.float64) / max(self.count, 1) - mean[:, :, None] * mean[:, None, :]
        )

    def _rows(self, values: Array, random: np.random.Generator) -> Array:
        values = values.T if self.node.attributes.get("transA", 0) else values
        flat = values.reshape(-1, values.shape[-1])
        chosen = random.integers(0, len(flat), min(self.each, len(flat)))
        return flat[None, chosen]

    def _patches(self, values: Array, random: np.random.Generator) -> Array:
        """float32 [groups, positions, channels of a group * elements of the kernel]."""
        attributes, extents = self.node.attributes, self.kernel[2:]
        strides, dilations, pads = conv_geometry(self.node, values.shape[2:], extents)
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, extents, strict=True)]
        rank = len(extents)
        edges = [(0, 0), (0, 0), *((pads[a], pads[a + rank]) for a in range(rank))]
        padded = np.pad(values, edges)
        sizes = [(padded.shape[a + 2] - spans[a]) // strides[a] + 1 for a in range(rank)]
        count = min(self.each, int(np.prod(sizes)))
        batch = random.integers(0, len(values), count)
        index: list[Array] = []
        for axis in range(rank):
            start = random.integers(0, sizes[axis], count) * strides[axis]
            offsets = np.arange(extents[axis]) * dilations[axis]
            shape = [1] * (rank + 1)
            shape[0], shape[axis + 1] = count, extents[axis]
            index.append((start[:, None] + offsets).reshape(shape))
        at_batch = batch.reshape((count,) + (1,) * rank)
        at: tuple[Any, ...] = (slice(None), at_batch, *index)
        patches = padded.swapaxes(0, 1)[at]  # [channels, positions, kernel...]
        groups = int(attributes.get("group", 1))
        split = patches.reshape(groups, -1, count, int(np.prod(extents)))
        return np.ascontiguousarray(split.transpose(0, 2, 1, 3).reshape(groups, count, -1))


def conv_geometry(
    node: Node, sizes: Sequence[int], extents: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads (all starts, then all ends) of a convolution.

    Args:
        node: The convolution.
        sizes: Extents of its input along the kernel's axes.
        extents: Extents of its kernel.
    """
    rank = len(extents)
    strides = list(node.attributes.get("strides", [1] * rank))
    dilations = list(node.attributes.get("dilations", [1] * rank))
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        return strides, dilations, list(node.attributes.get("pads", [0] * (2 * rank)))
    starts, ends = [], []
    for size, extent, stride, dilation in zip(sizes, extents, strides, dilations, strict=True):
        span = dilation * (extent - 1) + 1
        whole = max((-(-size // stride) - 1) * stride + span - size, 0)
        start = whole // 2 if auto == "SAME_UPPER" else -(-whole // 2)
        starts.append(start)
        ends.append(whole - start)
    return strides, dilations, starts + ends
