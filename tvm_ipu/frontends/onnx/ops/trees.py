"""Ensembles of decision trees, walked by one kernel over tables of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import is_float, local, loops, number, required, scalar
from tvm_ipu.frontends.onnx.ops.types import convert

R = relax.op
_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass
class _Forest:
    """Nodes of all trees. A child is a node's number, or for a leaf -1 minus its row in ``votes``.

    Attributes:
        features: Feature that a node looks at.
        splits: What it is compared with.
        modes: How, as an index into ``_MODES``; sets are chains of equality nodes here.
        children: Next node [nodes, 2]: where the comparison is false, where it is true.
        nan_true: Whether NaN counts as true.
        roots: First child of every tree.
        votes: What each leaf adds to each target [leaves, targets], NaN for nothing.
    """

    features: list[int]
    splits: list[float]
    modes: list[int]
    children: list[list[int]]
    nan_true: list[bool]
    roots: list[int]
    votes: NDArray[np.float64]


def _attr_list(node: Node, name: str, default: Sequence[Any] = ()) -> list[Any]:
    """A list attribute that may be given as a tensor."""
    tensor = node.attrs.get(f"{name}_as_tensor")
    value = node.attrs.get(name, default) if tensor is None else tensor
    return list(np.asarray(value).ravel().tolist()) if isinstance(value, np.ndarray) else list(value)


def _choice(value: Any, names: Sequence[str], what: str) -> str:
    name = names[value] if isinstance(value, int) and 0 <= value < len(names) else str(value)
    if name not in names:
        raise UnsupportedNode(f"attribute '{what}' is '{name}'; allowed are {', '.join(names)}")
    return name


@converter("TreeEnsemble", domain="ai.onnx.ml")
def tree_ensemble(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; all comparisons and aggregations, every transform except PROBIT."""
    x, a = required(node, 0, "X"), node.attrs
    modes = [int(m) for m in a["nodes_modes"]]
    targets, ids = int(a.get("n_targets", 1)), [int(t) for t in a["leaf_targetids"]]
    votes = np.full((len(ids), targets), np.nan)
    votes[range(len(ids)), ids] = np.asarray(a["leaf_weights"], np.float64)

    def child(side: str, i: int) -> int:
        target = int(a[f"nodes_{side}nodeids"][i])
        return -1 - target if a[f"nodes_{side}leafs"][i] else target

    forest = _Forest(
        [int(f) for f in a["nodes_featureids"]],
        [float(s) for s in a["nodes_splits"]],
        modes,
        [[child("false", i), child("true", i)] for i in range(len(modes))],
        [bool(t) for t in a.get("nodes_missing_value_tracks_true", [0] * len(modes))],
        [int(r) for r in a["tree_roots"]],
        votes,
    )
    _unroll_sets(forest, a.get("membership_values", np.empty(0)))
    aggregate = _choice(int(a.get("aggregate_function", 1)), _AGGREGATES, "aggregate_function")
    transform = _choice(int(a.get("post_transform", 0)), _TRANSFORMS, "post_transform")
    scores = _walk(ctx, x, forest, aggregate, np.zeros(targets), ctx.dtype(x))
    return _transformed(ctx, scores, transform)


def _unroll_sets(forest: _Forest, members: NDArray[Any]) -> None:
    """Replace every node that asks for membership in a set by one node for each member."""
    sets: list[list[float]] = [[]]
    for value in np.asarray(members, np.float64):
        if np.isnan(value):
            sets.append([])
        else:
            sets[-1].append(float(value))
    pending = iter(sets)
    equal, member = _MODES.index("BRANCH_EQ"), _MODES.index("BRANCH_MEMBER")
    for i in range(len(forest.modes)):
        if forest.modes[i] != member:
            continue
        values = next(pending, None)
        if not values:
            raise UnsupportedNode("attribute 'membership_values' has fewer sets than there are set nodes")
        other, hit = forest.children[i]
        at = i
        for value in values[:-1]:
            forest.modes[at], forest.splits[at] = equal, value
            forest.children[at] = [len(forest.modes), hit]
            forest.features.append(forest.features[i])
            forest.splits.append(0.0)
            forest.modes.append(equal)
            forest.nan_true.append(forest.nan_true[i])
            forest.children.append([other, hit])
            at = len(forest.modes) - 1
        forest.modes[at], forest.splits[at] = equal, values[-1]


@converter("TreeEnsembleRegressor", domain="ai.onnx.ml")
def tree_regressor(ctx: Context, node: Node) -> relax.Expr:
    """Numeric types; every transform except PROBIT."""
    x = required(node, 0, "X")
    targets = int(node.attrs.get("n_targets", 1))
    forest, base = _read_forest(node, "target", targets)
    aggregate = _choice(node.attrs.get("aggregate_function", "SUM"), _AGGREGATES, "aggregate_function")
    transform = _choice(node.attrs.get("post_transform", "NONE"), _TRANSFORMS, "post_transform")
    return _transformed(ctx, _walk(ctx, x, forest, aggregate, base, "float32"), transform)


@converter("TreeEnsembleClassifier", domain="ai.onnx.ml")
def tree_classifier(ctx: Context, node: Node) -> list[relax.Expr]:
    """Numeric types, integer labels; every transform except PROBIT."""
    x = required(node, 0, "X")
    labels = [int(v) for v in node.attrs.get("classlabels_int64s", ())]
    if not labels:
        raise UnsupportedNode("its labels are strings")
    forest, base = _read_forest(node, "class", len(labels))
    binary = len(labels) == 2 and np.isnan(forest.votes[:, 0]).all() != np.isnan(forest.votes[:, 1]).all()
    transform = _choice(node.attrs.get("post_transform", "NONE"), _TRANSFORMS, "post_transform")
    scores = _walk(ctx, x, forest, "SUM", base, "float32")
    if binary:  # one score stands for both classes
        if transform not in ("NONE", "LOGISTIC"):
            raise UnsupportedNode(
                f"attribute 'post_transform' is '{transform}' with one score for two classes"
            )
        column = 0 if np.isnan(forest.votes[:, 1]).all() else 1
        return _binary(ctx, scores, column, labels, transform)
    return [_label(ctx, scores, labels), _transformed(ctx, scores, transform)]


def _label(ctx: Context, scores: relax.Expr, labels: Sequence[int]) -> relax.Expr:
    """Label of the largest score of each sample."""
    from tvm_ipu.frontends.onnx.ops.index import gather_axis

    best = ctx.emit(R.argmax(scores, 1, False))
    return gather_axis(ctx, ctx.const(np.array(labels, np.int64)), best, 0)


def _binary(
    ctx: Context, scores: relax.Expr, column: int, labels: Sequence[int], transform: str
) -> list[relax.Expr]:
    one = ctx.emit(R.strided_slice(scores, [1], [column], [column + 1]))
    threshold = 0.5 if transform == "NONE" else 0.0
    positive = R.greater(one, scalar(ctx, threshold, "float32"))
    label = ctx.emit(
        R.squeeze(R.where(positive, scalar(ctx, labels[1], "int64"), scalar(ctx, labels[0], "int64")), [1])
    )
    score = ctx.emit(R.sigmoid(one)) if transform == "LOGISTIC" else one
    rest = ctx.emit(R.subtract(scalar(ctx, 1.0, "float32"), score))
    return [label, ctx.emit(R.concat([rest, score], 1))]


def _read_forest(node: Node, votes: str, targets: int) -> tuple[_Forest, NDArray[np.float64]]:
    """The form before opset 5: leaves among the nodes, numbered in each tree; votes apart."""
    trees, ids = (_attr_list(node, f"nodes_{n}") for n in ("treeids", "nodeids"))
    modes = _attr_list(node, "nodes_modes")
    leaf = [m == "LEAF" for m in modes]
    position: dict[tuple[int, int], int] = {}
    counts = [0, 0]
    for tree, identifier, is_leaf in zip(trees, ids, leaf, strict=True):
        position[tree, identifier] = -1 - counts[1] if is_leaf else counts[0]
        counts[is_leaf] += 1
    table = np.full((max(counts[1], 1), targets), np.nan)
    columns = [_attr_list(node, f"{votes}_{n}") for n in ("treeids", "nodeids", "ids", "weights")]
    for tree, identifier, target, weight in zip(*columns, strict=True):
        row = -1 - position[tree, identifier]
        table[row, target] = weight + (0.0 if np.isnan(table[row, target]) else table[row, target])
    inner = [i for i, is_leaf in enumerate(leaf) if not is_leaf]
    features, splits = _attr_list(node, "nodes_featureids"), _attr_list(node, "nodes_values")
    sides = [_attr_list(node, f"nodes_{side}nodeids") for side in ("false", "true")]
    tracks = _attr_list(node, "nodes_missing_value_tracks_true", [0] * len(modes))
    first: dict[int, int] = {}
    for tree, identifier in zip(trees, ids, strict=True):
        first.setdefault(tree, position[tree, identifier])
    forest = _Forest(
        [features[i] for i in inner],
        [splits[i] for i in inner],
        [_MODES.index(_choice(modes[i], _MODES[:-1], "nodes_modes")) for i in inner],
        [[position[trees[i], side[i]] for side in sides] for i in inner],
        [bool(tracks[i]) for i in inner],
        list(first.values()),
        table,
    )
    base = np.asarray(_attr_list(node, "base_values") or [0.0] * targets, np.float64)
    return forest, base if base.size == targets else np.resize(base, targets)


def _walk(
    ctx: Context, x: relax.Expr, forest: _Forest, aggregate: str, base: NDArray[np.float64], dtype: str
) -> relax.Expr:
    """Scores [samples, targets] of all trees together."""
    x = x if is_float(ctx.dtype(x)) else convert(ctx, x, "float32")
    samples, width = ctx.shape(x)
    work, targets, count = ctx.dtype(x), forest.votes.shape[1], len(forest.modes)
    low = {"MIN": np.inf, "MAX": -np.inf}.get(aggregate, 0.0)
    tables = [
        np.array(forest.features or [0], np.int32).clip(0, width - 1),
        np.array(forest.splits or [0.0], work),
        np.array(forest.modes or [0], np.int32),
        np.array(forest.children or [[-1, -1]], np.int32).clip(-len(forest.votes), max(count - 1, 0)),
        np.array(forest.nan_true or [False], np.int32),
        np.array(forest.roots, np.int32).clip(-len(forest.votes), max(count - 1, 0)),
        np.where(np.isnan(forest.votes), low if low else 0.0, forest.votes),
    ]

    def body(
        source: Any, feature: Any, split: Any, mode: Any, child: Any, nan: Any, root: Any, *rest: Any
    ) -> None:
        votes, target = rest
        with T.parallel(samples) as n:
            total, at, steps = local("float64", targets), local("int32"), local("int32")
            with T.serial(targets) as k:
                total[k] = number(low, "float64")
            with T.serial(len(forest.roots)) as tree:
                at[0], steps[0] = root[tree], number(0, "int32")
                with T.While(tirx.all(at[0] >= 0, steps[0] < count)):
                    value, bound = source[n, feature[at[0]]], split[at[0]]
                    hits = [value <= bound, value < bound, value >= bound, value > bound, value == bound]
                    taken: Any = value != bound
                    for i, hit in enumerate(hits):
                        taken = tirx.Select(mode[at[0]] == i, hit, taken)
                    taken = tirx.any(taken, tirx.all(tirx.isnan(value), nan[at[0]] == 1))
                    at[0] = child[at[0], tirx.Select(taken, number(1, "int32"), number(0, "int32"))]
                    steps[0] = steps[0] + 1
                leaf = tirx.max(-1 - at[0], 0)
                with T.serial(targets) as k:
                    vote = votes[leaf, k]
                    merged = {"MIN": tirx.min, "MAX": tirx.max}.get(aggregate, lambda a, b: a + b)
                    total[k] = merged(total[k], vote)
            with T.serial(targets) as k:
                scale = 1.0 / len(forest.roots) if aggregate == "AVERAGE" else 1.0
                value = total[k] * number(scale, "float64")
                value = tirx.Select(tirx.isinf(value), number(0.0, "float64"), value)
                target[n, k] = value.astype(dtype)

    operands = [x, *(ctx.const(np.ascontiguousarray(t)) for t in tables)]
    (scores,) = loops(ctx, "trees", operands, [((samples, targets), dtype)], body)
    return ctx.emit(R.add(scores, ctx.const(base.astype(dtype)))) if base.any() else scores


def _transformed(ctx: Context, scores: relax.Expr, transform: str) -> relax.Expr:
    """Scores after the transform that the node asks for."""
    if transform == "LOGISTIC":
        return ctx.emit(R.sigmoid(scores))
    if transform == "SOFTMAX":
        return ctx.emit(R.nn.softmax(scores, -1))
    if transform == "SOFTMAX_ZERO":
        zero = scalar(ctx, 0.0, ctx.dtype(scores))
        return ctx.emit(R.where(R.equal(scores, zero), zero, R.nn.softmax(scores, -1)))
    if transform == "PROBIT":
        raise UnsupportedNode("attribute 'post_transform' is 'PROBIT'")
    return scores
