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

BLOCK = 128
"""Columns of weights that are rounded before their errors are spread over the others."""

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
        and (node.op_type == "Conv" or _is_matrix(graph.constants[name]))
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
    steps = _in_turn(rows, _factor_of_inverse(metric), limit)
    plain = np.clip(np.rint(rows), -limit, limit)
    costs = [np.einsum("gok,gok->go", d @ metric, d) for d in (steps - rows, plain - rows)]
    steps = np.where((costs[0] <= costs[1])[:, :, None], steps, plain)
    return _improved(rows, steps, metric, limit, iterations)


def _factor_of_inverse(metric: Array) -> Array:
    """Upper triangles U with U' U the inverse of each metric, [groups, depth, depth].

    Cholesky's lower triangle of a metric with its axes reversed is, reversed again, an upper triangle R with
    R R' the metric: U is R's inverse.
    """
    lower = np.linalg.cholesky(metric[:, ::-1, ::-1])
    return _inverse_of_upper(np.ascontiguousarray(lower[:, ::-1, ::-1]))


def _inverse_of_upper(upper: Array) -> Array:
    """Inverses of upper triangles, by halves: most of the work is products of matrices."""
    depth = upper.shape[-1]
    if depth <= BLOCK:
        return np.triu(np.linalg.inv(upper))
    half = depth // 2
    found = np.zeros_like(upper)
    first = found[:, :half, :half] = _inverse_of_upper(upper[:, :half, :half])
    last = found[:, half:, half:] = _inverse_of_upper(upper[:, half:, half:])
    found[:, :half, half:] = -first @ (upper[:, :half, half:] @ last)
    return found


def _in_turn(rows: Array, upper: Array, limit: int) -> Array:
    """Columns rounded one after the other, the errors spread over their block, then over the rest."""
    depth = rows.shape[-1]
    left, steps = rows.copy(), np.empty_like(rows)
    for start in range(0, depth, BLOCK):
        end = min(start + BLOCK, depth)
        block, errors = left[:, :, start:end].copy(), np.empty_like(left[:, :, start:end])
        for k in range(end - start):
            row = upper[:, start + k, start + k : end]
            steps[:, :, start + k] = np.clip(np.rint(block[:, :, k]), -limit, limit)
            errors[:, :, k] = (block[:, :, k] - steps[:, :, start + k]) / row[:, :1]
            block[:, :, k:] -= errors[:, :, k, None] * row[:, None]
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    return steps


def _improved(rows: Array, steps: Array, metric: Array, limit: int, iterations: int) -> Array:
    """Move single weights to where the squared change is least, until none moves."""
    for group, own in enumerate(metric):
        slope = (rows[group] - steps[group]) @ own
        for _ in range(iterations):
            if not _moved(steps[group], slope, own, limit):
                break
    return steps


def _moved(steps: Array, slope: Array, metric: Array, limit: int) -> bool:
    """One pass over the weights of a group: whether any was moved.

    Args:
        steps: Whole numbers, changed in place, [outputs, depth].
        slope: Half of the falling slope of the squared change, kept true to ``steps``.
        metric: [depth, depth].
        limit: Largest whole number.
    """
    depth, any_moved = len(metric), False
    for start in range(0, depth, BLOCK):
        block = slice(start, min(start + BLOCK, depth))
        before, near = steps[:, block].copy(), slope[:, block].copy()
        own = metric[block, block]
        for k in range(before.shape[1]):
            best = np.clip(np.rint(steps[:, start + k] + near[:, k] / own[k, k]), -limit, limit)
            delta = best - steps[:, start + k]
            (at,) = np.nonzero(delta)
            if at.size:
                near[at] -= delta[at, None] * own[k]
                steps[:, start + k] = best
        change = steps[:, block] - before
        outputs, columns = change.any(1), change.any(0)
        if outputs.any():
            any_moved = True
            slope[outputs] -= change[np.ix_(outputs, columns)] @ metric[block][columns]
    return any_moved


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


def _is_matrix(value: Array) -> bool:
    """Whether all of a product's input meets the same weights; a matrix for each batch stays as it is."""
    return value.size == int(np.prod(value.shape[-2:]))


def _to_rows(value: Array, node: Node, groups: int) -> Array:
    """Weights as float64 [groups, outputs of a group, depth]."""
    if node.op_type == "Conv":
        return value.reshape(groups, value.shape[0] // groups, -1).astype(np.float64)
    transposed = node.op_type == "Gemm" and int(node.attributes.get("transB", 0))
    matrix = value.reshape(value.shape[-2:])
    return (matrix if transposed else matrix.T).astype(np.float64)[None]


def _from_rows(rows: Array, node: Node, shape: tuple[int, ...]) -> Array:
    if node.op_type == "Conv":
        return rows.reshape(shape)
    transposed = node.op_type == "Gemm" and int(node.attributes.get("transB", 0))
    return np.asarray(rows[0] if transposed else rows[0].T).reshape(shape)
