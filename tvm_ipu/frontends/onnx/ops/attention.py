"""Scaled dot-product attention and rotary position embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_bool,
    broadcast_index,
    choose,
    elementwise,
    in_float32,
    kind,
    number,
    required,
    scalar,
    wrap_index,
)
from tvm_ipu.frontends.onnx.ops.norm import working_type
from tvm_ipu.frontends.onnx.ops.shape import permute, reshape
from tvm_ipu.frontends.onnx.ops.types import convert, element_type

R = relax.op


@dataclass(frozen=True)
class _Mask:
    """Which keys a query sees, beyond what its scores say.

    Attributes:
        tensor: Boolean or additive mask that broadcasts to the scores, its last axis possibly shorter.
        valid: Number of valid keys of each sequence, or None.
        causal: A query sees no key behind its own position.
        past: Keys before the first query; used where ``valid`` is None.
        left: Keys that a query sees before its own position; -1 for all.
        right: Keys that a query sees behind its own position; -1 for all.
    """

    tensor: relax.Expr | None
    valid: relax.Expr | None
    causal: bool
    past: int
    left: int
    right: int

    @property
    def empty(self) -> bool:
        """Every query sees every key."""
        bounded = self.causal or self.left >= 0 or self.right >= 0
        return self.tensor is None and self.valid is None and not bounded


@converter("Attention")
def attention(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types; all inputs, outputs and attributes of opsets 23 to 25."""
    q, k, v = (required(node, i, n) for i, n in enumerate("QKV"))
    out_dtype = ctx.dtype(q)
    work = working_type(out_dtype)
    flat = len(ctx.shape(q)) == 3
    if flat:
        q_heads, kv_heads = int(node.attrs["q_num_heads"]), int(node.attrs["kv_num_heads"])
        q, k, v = (_split_heads(ctx, e, h) for e, h in ((q, q_heads), (k, kv_heads), (v, kv_heads)))
    past_key, past_value, valid = node.input(4), node.input(5), node.input(6)
    past = 0
    if past_key is not None and past_value is not None:
        past = ctx.shape(past_key)[2]
        k, v = ctx.emit(R.concat([past_key, k], 2)), ctx.emit(R.concat([past_value, v], 2))
    present = [k, v]
    q, k, v = (convert(ctx, e, work) for e in (q, k, v))
    mask = _Mask(
        node.input(3),
        valid,
        attr_bool(node, "is_causal"),
        past,
        int(node.attrs.get("left_window_size", -1)),
        int(node.attrs.get("right_window_size", -1)),
    )
    factor = float(node.attrs.get("scale", ctx.shape(q)[3] ** -0.5))
    scaled = ctx.emit(R.multiply(q, scalar(ctx, factor, work)))
    scores = _grouped_product(ctx, scaled, permute(ctx, k, (0, 1, 3, 2)))
    shown = [scores]
    cap = float(node.attrs.get("softcap", 0.0))
    if cap:
        scores = elementwise(
            ctx,
            "softcap",
            lambda s: number(cap, kind(s)) * tirx.tanh(s / number(cap, kind(s))),
            scores,
        )
    shown.append(scores)
    if not mask.empty:
        scores = _apply_mask(ctx, scores, mask)
    shown.append(scores)
    weights = _softmax(ctx, scores, mask, int(node.attrs.get("softmax_precision", 0)))
    shown.append(weights)
    y = _grouped_product(ctx, weights, v)
    if flat:
        b, h, s, d = ctx.shape(y)
        y = reshape(ctx, permute(ctx, y, (0, 2, 1, 3)), (b, s, h * d))
    matrix = shown[int(node.attrs.get("qk_matmul_output_mode", 0))]
    return [convert(ctx, y, out_dtype), *present, convert(ctx, matrix, out_dtype)]


def _split_heads(ctx: Context, x: relax.Expr, heads: int) -> relax.Expr:
    """[batch, sequence, heads * size] as [batch, heads, sequence, size]."""
    b, s, hidden = ctx.shape(x)
    if hidden % heads:
        raise UnsupportedNode(f"{heads} heads do not divide a hidden size of {hidden}")
    return permute(ctx, reshape(ctx, x, (b, s, heads, hidden // heads)), (0, 2, 1, 3))


def _grouped_product(ctx: Context, a: relax.Expr, b: relax.Expr) -> relax.Expr:
    """``a @ b`` where several consecutive heads of ``a`` share one of ``b``."""
    (n, heads, rows, depth), shared = ctx.shape(a), ctx.shape(b)[1]
    if heads == shared:
        return ctx.emit(R.matmul(a, b))
    if heads % shared:
        raise UnsupportedNode(f"{heads} query heads cannot share {shared} key heads")
    grouped = reshape(ctx, a, (n, shared, heads // shared * rows, depth))
    return reshape(ctx, ctx.emit(R.matmul(grouped, b)), (n, heads, rows, ctx.shape(b)[3]))


def _apply_mask(ctx: Context, scores: relax.Expr, mask: _Mask) -> relax.Expr:
    """Scores plus an additive mask, and minus infinity for the keys that a query does not see."""
    dims, dtype = ctx.shape(scores), ctx.dtype(scores)
    queries, keys = dims[2:]
    work = working_type(dtype)
    operands = [e for e in (mask.tensor, mask.valid) if e is not None]
    boolean = mask.tensor is not None and ctx.dtype(mask.tensor) == "bool"

    def compute(score: te.Tensor, *rest: te.Tensor) -> te.Tensor:
        given = list(rest)
        table = given.pop(0) if mask.tensor is not None else None
        lengths = given.pop(0) if mask.valid is not None else None

        def element(b: Any, h: Any, i: Any, j: Any) -> Any:
            key, query = j.astype("int32"), i.astype("int32")
            length = number(keys, "int32")
            if lengths is not None:
                length = tirx.max(tirx.min(lengths(b), number(keys, "int64")), number(0, "int64")).astype(
                    "int32"
                )
            offset = length - queries if lengths is not None else number(mask.past, "int32")
            seen = [key < length] if lengths is not None else []
            position = query + offset
            if mask.causal:
                seen.append(key <= position)
            if mask.left >= 0:
                seen.append(key >= position - mask.left)
            if mask.right >= 0:
                seen.append(key <= position + mask.right)
            value = score(b, h, i, j).astype(work)
            low = number(0.0, work) - tirx.infinity(work)
            if table is not None:
                width = int(table.shape[-1])
                if width < keys:
                    seen.append(key < width)
                place = broadcast_index((b, h, i, tirx.min(j, width - 1)), table.shape)
                entry = table(*place)
                if boolean:
                    seen.append(entry)
                else:
                    entry = entry.astype(work)
                    value = tirx.Select(entry == low, low, value + entry)
            return (choose(tirx.all(*seen), value, low) if seen else value).astype(dtype)

        return te.compute(dims, element, name="attention_mask")

    return ctx.te(compute, scores, *operands, name="attention_mask")


def _softmax(ctx: Context, scores: relax.Expr, mask: _Mask, precision: int) -> relax.Expr:
    """Softmax over the keys; a query that sees no key gets zeros."""
    dtype = ctx.dtype(scores)
    if precision:
        scores = convert(ctx, scores, element_type(precision))
    if mask.empty:
        return convert(ctx, in_float32(ctx, lambda s: R.nn.softmax(s, -1), scores), dtype)
    dims, work = ctx.shape(scores), working_type(ctx.dtype(scores))

    def compute(score: te.Tensor) -> te.Tensor:
        low = number(0.0, work) - tirx.infinity(work)
        k, m = (te.reduce_axis((0, dims[3]), name=n) for n in ("k", "m"))

        def row(fn: Callable[..., Any], name: str) -> te.Tensor:
            return te.compute(dims[:3], fn, name=name)

        peak = row(lambda *i: te.max(score(*i, k.var).astype(work), axis=k), "row_max")
        base = row(lambda *i: tirx.Select(peak(*i) == low, number(0.0, work), peak(*i)), "row_base")
        power = te.compute(dims, lambda *i: tirx.exp(score(*i).astype(work) - base(*i[:3])), name="row_exp")
        total = row(lambda *i: te.sum(power(*i, m.var), axis=m), "row_sum")

        def element(*i: Any) -> Any:
            divisor = total(*i[:3])
            none = divisor == number(0.0, work)
            value = power(*i) / tirx.Select(none, number(1.0, work), divisor)
            return tirx.Select(none, number(0.0, work), value).astype(dtype)

        return te.compute(dims, element, name="masked_softmax")

    return ctx.te(compute, scores, name="masked_softmax")


@converter("RotaryEmbedding")
def rotary_embedding(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; position ids are clamped into the caches."""
    x, cosine, sine = (required(node, i, n) for i, n in enumerate(("X", "cos_cache", "sin_cache")))
    positions = node.input(3)
    dims = ctx.shape(x)
    flat = len(dims) == 3
    heads = int(node.attrs.get("num_heads", 0)) if flat else dims[1]
    if flat and (heads <= 0 or dims[2] % heads):
        raise UnsupportedNode(f"{heads} heads do not divide a hidden size of {dims[2]}")
    head = dims[2] // heads if flat else dims[3]
    turned = int(node.attrs.get("rotary_embedding_dim", 0)) or head
    half, interleaved = turned // 2, attr_bool(node, "interleaved")
    dtype, work = ctx.dtype(x), working_type(ctx.dtype(x))

    def compute(tensor: te.Tensor, cos: te.Tensor, sin: te.Tensor, *ids: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            batch, position = index[0], index[1 if flat else 2]
            d = tirx.floormod(index[2], head) if flat else index[3]
            inside = tirx.min(d, turned - 1)
            pair = tirx.floordiv(inside, 2) if interleaved else tirx.floormod(inside, half)
            second = tirx.floormod(inside, 2) == 1 if interleaved else inside >= half
            one, two = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + half)

            def read(place: Any) -> Any:
                at: Sequence[Any] = (*index[:-1], index[-1] - d + place)
                return tensor(*at).astype(work)

            def cached(table: te.Tensor) -> Any:
                if ids:
                    row = wrap_index(ids[0](batch, position), int(table.shape[0]))
                    return table(row, pair).astype(work)
                return table(batch, position, pair).astype(work)

            a, b, c, s = read(one), read(two), cached(cos), cached(sin)
            rotated = tirx.Select(second, a * s + b * c, a * c - b * s)
            return choose(d < turned, rotated, tensor(*index).astype(work)).astype(dtype)

        return te.compute(dims, element, name="rotary_embedding")

    operands = [x, cosine, sine, *([positions] if positions is not None else [])]
    return ctx.te(compute, *operands, name="rotary_embedding")


@converter("FlexAttention", domain="ai.onnx.preview")
def flex_attention(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; without subgraphs that change scores or probabilities."""
    q, k, v = (required(node, i, n) for i, n in enumerate("QKV"))
    dtype = ctx.dtype(q)
    work = (
        element_type(int(node.attrs.get("softmax_precision", 0))) if "softmax_precision" in node.attrs else ""
    )
    work = work or ("float64" if dtype == "float64" else "float32")
    q, k, v = (convert(ctx, e, work) for e in (q, k, v))
    factor = float(node.attrs.get("scale", ctx.shape(q)[3] ** -0.5))
    scaled = ctx.emit(R.multiply(q, scalar(ctx, factor, work)))
    scores = _grouped_product(ctx, scaled, permute(ctx, k, (0, 1, 3, 2)))
    weights = in_float32(ctx, lambda s: R.nn.softmax(s, -1), scores)
    return convert(ctx, _grouped_product(ctx, weights, v), dtype)
