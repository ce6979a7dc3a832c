"""Weights rounded up or down so that each layer's outputs stay what they were (layer-wise reconstruction).

The squared change of a layer's outputs over the samples is ``(w - q) C (w - q)'``, C being the covariance
of its
inputs; what the mean of the inputs contributes is taken off the bias. Columns are rounded one after the
other, the
error of each spread over those that follow; then single weights are moved while that makes the sum smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ipu.base.graph import Array, Graph, Node
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.quantize.collect import CollectOptions, Progress, Runner, Samples, observe
from tvm_ipu.quantize.grid import along, weight_grid
from tvm_ipu.quantize.moments import POSITIONS, Moments
from tvm_ipu.quantize.places import Places

DAMPING = 0.01
"""Share of a covariance's mean that is added to its diagonal: unseen directions count a little."""

MEMORY = 2**28
"""Bytes of covariances that are collected in one pass over the samples."""

_WIDE = 16
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Reconstructed:
    """New values of a weight.

    Attributes:
        data: float32, on the weight's grid.
        error: Mean change of the product's result in each output channel, float32.
    """

    data: Array
    error: Array


def reconstruct(
    graph: Graph,
    places: Places,
    ranges: Mapping[str, TensorRange],
    samples: Samples,
    run: Runner,
    options: CollectOptions,
    iterations: int,
    progress: Progress | None = None,
) -> dict[str, Reconstructed]:
    """Round the weights of fewer than 16 bits of all convolutions and matrix products; by name.

    Args:
        graph: Float network.
        places: What of it is quantised.
        ranges: Of the weights, with their bits.
        samples: Gives the samples.
        run: Computes a network.
        options: How statistics are made.
        iterations: Passes over a layer's weights at most.
        progress: Told which layer is done.
    """
    names = [
        name
        for name, (_, node) in places.products.items()
        if ranges[name].bits < _WIDE
        and (places.weights[name] is not None)
        and node.op_type != "ConvTranspose"
    ]
    found: dict[str, Reconstructed] = {}
    each = max(POSITIONS // max(options.total, 1), 4) if options.total else POSITIONS // 32
    for group in _passes(graph, places, names):
        moments = {
            name: Moments(places.products[name][1], graph.constants[name].shape, each) for name in group
        }
        inputs: dict[str, list[Moments]] = {}
        for one in moments.values():
            inputs.setdefault(one.node.inputs[0], []).append(one)
        observe(graph, inputs, samples, run, options)
        for name, one in moments.items():
            if progress is not None:
                progress("reconstruction", len(found), len(names))
            found[name] = _rounded(graph.constants[name], places, ranges[name], one, iterations)
    return found


def _rounded(
    value: Array, places: Places, ranges: TensorRange, moments: Moments, iterations: int
) -> Reconstructed:
    axis = places.weights[ranges.name]
    grid = weight_grid(np.squeeze(np.asarray(ranges.high)), ranges.bits)
    rows = _to_rows(value, moments.node, len(moments.total))
    scale = np.broadcast_to(along(grid.scale, axis, value.ndim), value.shape)
    scales = _to_rows(np.asarray(scale), moments.node, len(moments.total))[:, :, :1].astype(np.float64)
    steps = round_rows(rows / scales, moments.covariance, grid.limits[1], iterations)
    change = steps * scales - rows
    error = np.einsum("gok,gk->go", change, moments.mean).reshape(-1)
    data = _from_rows(steps * scales, moments.node, value.shape)
    return Reconstructed(data.astype(np.float32), error.astype(np.float32))


def round_rows(rows: Array, covariance: Array, limit: int, iterations: int) -> Array:
    """Whole numbers for weights in steps, float64.

    Args:
        rows: Weights divided by their scales, [groups, outputs, depth].
        covariance: Of the inputs, [groups, depth, depth].
        limit: Largest whole number.
        iterations: Passes of improvement at most.
    """
    depth = rows.shape[-1]
    diagonal = np.einsum("gkk->gk", covariance)
    damping = DAMPING * np.maximum(diagonal.mean(1), 1e-12)
    metric = covariance + damping[:, None, None] * np.eye(depth)
    upper = np.linalg.cholesky(np.linalg.inv(metric)).swapaxes(1, 2)
    left, steps = rows.copy(), np.empty_like(rows)
    for k in range(depth):
        steps[:, :, k] = np.clip(np.rint(left[:, :, k]), -limit, limit)
        error = (left[:, :, k] - steps[:, :, k]) / upper[:, k, k][:, None]
        left[:, :, k:] -= error[:, :, None] * upper[:, None, k, k:]
    plain = np.clip(np.rint(rows), -limit, limit)
    costs = [np.einsum("gok,gkl,gol->go", d, metric, d, optimize=True) for d in (steps - rows, plain - rows)]
    steps = np.where((costs[0] <= costs[1])[:, :, None], steps, plain)
    return _improved(rows, steps, metric, limit, iterations)


def _improved(rows: Array, steps: Array, metric: Array, limit: int, iterations: int) -> Array:
    """Move single weights to where the squared change is least, until none moves."""
    slope = (rows - steps) @ metric
    own = np.einsum("gkk->gk", metric)
    for _ in range(iterations):
        moved = False
        for k in range(rows.shape[-1]):
            best = np.clip(np.rint(steps[:, :, k] + slope[:, :, k] / own[:, k][:, None]), -limit, limit)
            delta = best - steps[:, :, k]
            at = np.nonzero(delta)
            if at[0].size:
                moved = True
                slope[at] -= delta[at][:, None] * metric[at[0], k]
                steps[:, :, k] = best
        if not moved:
            break
    return steps


def _passes(graph: Graph, places: Places, names: Sequence[str]) -> list[list[str]]:
    """Weights whose covariances are collected together."""
    passes: list[list[str]] = []
    room = 0
    for name in names:
        node, value = places.products[name][1], graph.constants[name]
        groups = int(node.attributes.get("group", 1))
        depth = value.size // value.shape[places.weights[name] or 0]
        size = groups * depth * depth * _FLOAT_BYTES
        if not passes or size > room:
            passes.append([])
            room = MEMORY
        passes[-1].append(name)
        room -= size
    return passes


def _to_rows(value: Array, node: Node, groups: int) -> Array:
    """Weights as float64 [groups, outputs of a group, depth]."""
    if node.op_type == "Conv":
        return value.reshape(groups, value.shape[0] // groups, -1).astype(np.float64)
    transposed = node.op_type == "Gemm" and int(node.attributes.get("transB", 0))
    return (value if transposed else value.swapaxes(-1, -2)).astype(np.float64)[None]


def _from_rows(rows: Array, node: Node, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Conv":
        return rows.reshape(shape)
    transposed = node.op_type == "Gemm" and int(node.attributes.get("transB", 0))
    return np.asarray(rows[0] if transposed else rows[0].swapaxes(-1, -2))
