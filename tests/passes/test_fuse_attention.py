"""Attention as exporters write it becomes one kernel that computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.passes.test_passes import build, constant, image_like, operators, run
from tvm_ipu.passes.fuse_attention import fuse_attention
from tvm_ipu.passes.simplify_transposes import simplify_transposes

R = relax.op
Builder = relax.BlockBuilder
TOKENS, HEADS, SIZE = 7, 3, 4
HIDDEN = HEADS * SIZE


def projected(b: Builder, x: relax.Expr, seed: int, tokens: int = TOKENS) -> relax.Expr:
    dense = b.emit(R.matmul(x, constant(HIDDEN, HIDDEN, seed=seed)))
    return b.emit(R.reshape(dense, (2, tokens, HEADS, SIZE)))


def heads(b: Builder, x: relax.Expr, axes: tuple[int, ...] = (0, 2, 1, 3)) -> relax.Expr:
    return b.emit(R.permute_dims(x, axes))


def merged(b: Builder, context: relax.Expr) -> relax.Expr:
    return b.emit(R.reshape(b.emit(R.permute_dims(context, (0, 2, 1, 3))), (2, TOKENS, HIDDEN)))


def scalar(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


def bert(b: Builder, x: relax.Var) -> relax.Expr:
    q, k, v = heads(b, projected(b, x, 1)), heads(b, projected(b, x, 2), (0, 2, 3, 1)), projected(b, x, 3)
    scores = b.emit(R.divide(b.emit(R.matmul(q, k)), scalar(2)))
    masked = b.emit(R.add(scores, constant(2, 1, 1, TOKENS, seed=4)))
    return merged(b, b.emit(R.matmul(b.emit(R.nn.softmax(masked, -1)), heads(b, v))))


def scaled_operands(b: Builder, x: relax.Var) -> relax.Expr:
    """PyTorch's scaled_dot_product_attention."""
    q, k, v = (heads(b, projected(b, x, seed)) for seed in (1, 2, 3))
    q = b.emit(R.multiply(q, scalar(0.7)))
    k = b.emit(R.multiply(heads(b, k, (0, 1, 3, 2)), scalar(0.7)))
    return merged(b, b.emit(R.matmul(b.emit(R.nn.softmax(b.emit(R.matmul(q, k)), 3)), v)))


def causal(b: Builder, x: relax.Var) -> relax.Expr:
    q, k, v = (heads(b, projected(b, x, seed)) for seed in (1, 2, 3))
    scores = b.emit(R.matmul(q, heads(b, k, (0, 1, 3, 2))))
    seen = relax.const(np.tril(np.ones((1, 1, TOKENS, TOKENS), bool)))
    masked = b.emit(R.where(seen, scores, scalar(-np.inf)))
    return merged(b, b.emit(R.matmul(b.emit(R.nn.softmax(masked, -1)), v)))


def cross(b: Builder, x: relax.Var) -> relax.Expr:
    """More keys than queries; the result stays as it is; the mask comes first in the sum."""
    keys = b.emit(R.concat([x, x], axis=1))
    q = heads(b, projected(b, x, 1))
    k, v = (heads(b, projected(b, keys, seed, 2 * TOKENS)) for seed in (2, 3))
    scores = b.emit(R.matmul(q, heads(b, k, (0, 1, 3, 2))))
    masked = b.emit(R.add(constant(TOKENS, 2 * TOKENS), b.emit(R.multiply(scores, scalar(0.3)))))
    return b.emit(R.tanh(b.emit(R.matmul(b.emit(R.nn.softmax(masked, -1)), v))))


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (bert, ["matmul", "reshape"] * 3 + ["call_tir", "reshape"]),
        (scaled_operands, None),
        (causal, ["matmul", "reshape"] * 3 + ["call_tir", "reshape"]),
        (cross, ["concat"] + ["matmul", "reshape"] * 3 + ["call_tir", "tanh"]),
    ],
)
def test_one_kernel_computes_the_same(
    body: Callable[[Builder, relax.Var], relax.Expr], left: list[str] | None
) -> None:
    before = build(body, 2, TOKENS, HIDDEN)
    after = simplify_transposes(fuse_attention(simplify_transposes(before)))
    names = operators(after)
    assert names.count("call_tir") == 1
    assert "nn.softmax" not in names
    if left is not None:
        assert sorted(names) == sorted(left)
    x = image_like(2, TOKENS, HIDDEN)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


def _scores_twice(b: Builder, x: relax.Var) -> relax.Expr:
    scores = b.emit(R.matmul(x, heads(b, x, (0, 2, 1))))
    context = b.emit(R.matmul(b.emit(R.nn.softmax(scores, -1)), x))
    return b.emit(R.add(context, b.emit(R.sum(scores, [2], True))))


def _softmax_over_queries(b: Builder, x: relax.Var) -> relax.Expr:
    scores = b.emit(R.matmul(x, heads(b, x, (0, 2, 1))))
    return b.emit(R.matmul(b.emit(R.nn.softmax(scores, 1)), x))


def _weights_without_scores(b: Builder, x: relax.Var) -> relax.Expr:
    return b.emit(R.matmul(b.emit(R.nn.softmax(x, -1)), constant(2, 5, 5)))


@pytest.mark.parametrize("body", [_scores_twice, _softmax_over_queries, _weights_without_scores])
def test_what_is_not_attention_stays(body: Callable[[Builder, relax.Var], relax.Expr]) -> None:
    before = build(body, 2, 5, 5)
    tvm.ir.assert_structural_equal(fuse_attention(before), before)
