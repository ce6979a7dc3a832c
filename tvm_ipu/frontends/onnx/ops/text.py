"""Operators on tokens. Strings themselves have no place in an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import attr_text, number, required
from tvm_ipu.frontends.onnx.ops.shape import reshape


@converter("TfIdfVectorizer")
def tf_idf(ctx: Context, node: Node) -> relax.Expr:
    """int32 and int64 tokens, all modes."""
    x = required(node, 0, "X")
    if "pool_int64s" not in node.attrs:
        raise UnsupportedNode("its tokens are strings")
    mode = attr_text(node, "mode", "", ("TF", "IDF", "TFIDF"))
    dims = ctx.shape(x)
    rows, length = (dims[0], dims[1]) if len(dims) == 2 else (1, dims[0])
    grams, columns, weights = _read_pool(node)
    width = max(int(c) for c in node.attrs["ngram_indexes"]) + 1
    tokens = reshape(ctx, x, (rows, length))
    skips = int(node.attrs["max_skip_count"])
    dtype = ctx.dtype(x)
    # [n-gram, place] with the length of each; short n-grams are padded
    size = max(len(g) for g in grams) if grams else 1
    table = np.zeros((max(len(grams), 1), size), dtype)
    for i, gram in enumerate(grams):
        table[i, : len(gram)] = gram
    lengths = np.array([len(g) for g in grams] or [0], np.int32)
    source = np.full(width, -1, np.int32)
    source[columns] = np.arange(len(columns))
    factor = np.zeros(width, np.float32)
    factor[columns] = weights

    def compute(
        tensor: te.Tensor, pool: te.Tensor, sizes: te.Tensor, which: te.Tensor, weight: te.Tensor
    ) -> te.Tensor:
        start, skip = te.reduce_axis((0, length), name="start"), te.reduce_axis((0, skips + 1), name="skip")

        def count(r: Any, c: Any) -> Any:
            g = tirx.max(which(c), 0)
            # a single token has no gaps to count
            hits = [which(c) >= 0, tirx.any(sizes(g) > 1, skip.var == 0), sizes(g) > 0]
            for place in range(size):
                at = start.var + place * (skip.var + 1)
                same = tirx.all(at < length, tensor(r, tirx.min(at, length - 1)) == pool(g, place))
                hits.append(tirx.any(sizes(g) <= place, same))
            return te.sum(
                tirx.Select(tirx.all(*hits), number(1.0, "float32"), number(0.0, "float32")),
                axis=[start, skip],
            )

        total = te.compute((rows, width), count, name="counts")

        def element(r: Any, c: Any) -> Any:
            value = total(r, c)
            if mode == "TF":
                return value
            seen = tirx.Select(value > number(0.0, "float32"), number(1.0, "float32"), number(0.0, "float32"))
            return (seen if mode == "IDF" else value) * weight(c)

        return te.compute((rows, width), element, name="tf_idf")

    constants = [ctx.const(a) for a in (table, lengths, source, factor)]
    result = ctx.te(compute, tokens, *constants, name="tf_idf")
    return result if len(dims) == 2 else reshape(ctx, result, (width,))


def _read_pool(node: Node) -> tuple[list[list[int]], list[int], list[float]]:
    """The n-grams that count, with the column and weight of each."""
    pool = [int(v) for v in node.attrs["pool_int64s"]]
    starts = [int(v) for v in node.attrs["ngram_counts"]]
    indexes = [int(v) for v in node.attrs["ngram_indexes"]]
    given = node.attrs.get("weights", [1.0] * len(indexes))
    low, high = int(node.attrs["min_gram_length"]), int(node.attrs["max_gram_length"])
    grams, columns, weights, number_of = [], [], [], 0
    for n, start in enumerate(starts, 1):
        stop = starts[n] if n < len(starts) else len(pool)
        for at in range(start, stop, n):
            if low <= n <= high:
                grams.append(pool[at : at + n])
                columns.append(indexes[number_of])
                weights.append(float(given[number_of]))
            number_of += 1
    return grams, columns, weights


@converter("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch")
def strings(ctx: Context, node: Node) -> relax.Expr:
    """Not supported: images have no strings."""
    raise UnsupportedNode("images have no strings")
