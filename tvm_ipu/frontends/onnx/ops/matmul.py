"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import attr_bool, required, scalar
from tvm_ipu.frontends.onnx.ops.shape import permute, reshape

R = relax.op


@converter("MatMul")
def matmul(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types, any ranks."""
    return ctx.emit(R.matmul(required(node, 0, "A"), required(node, 1, "B")))


@converter("Gemm")
def gemm(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types."""
    a, b, c = required(node, 0, "A"), required(node, 1, "B"), node.input(2)
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    a = transposed(ctx, a) if attr_bool(node, "transA") else a
    b = transposed(ctx, b) if attr_bool(node, "transB") else b
    b_value = ctx.value(b)
    if alpha != 1.0 and b_value is not None:
        b, alpha = ctx.const((b_value * b_value.dtype.type(alpha)).astype(b_value.dtype)), 1.0
    y = scaled(ctx, ctx.emit(R.matmul(a, b)), alpha)
    return y if c is None or beta == 0.0 else ctx.emit(R.add(y, scaled(ctx, c, beta)))


def transposed(ctx: Context, matrix: relax.Expr) -> relax.Expr:
    """The transpose of a matrix; a constant stays one."""
    value = ctx.value(matrix)
    return ctx.emit(R.permute_dims(matrix, [1, 0])) if value is None else ctx.const(value.T)


def scaled(ctx: Context, x: relax.Expr, factor: float) -> relax.Expr:
    """``x * factor``; a constant stays one."""
    if factor == 1.0:
        return x
    value = ctx.value(x)
    if value is not None:
        return ctx.const((value * value.dtype.type(factor)).astype(value.dtype))
    return ctx.emit(R.multiply(x, scalar(ctx, factor, ctx.dtype(x))))


@converter("Einsum")
def einsum(ctx: Context, node: Node) -> relax.Expr:
    """All numeric types; explicit and implicit form, ellipsis, repeated letters."""
    exprs = [x for x in node.inputs if x is not None]
    terms, result = _parse_equation(str(node.attrs["equation"]), [len(ctx.shape(e)) for e in exprs])
    extents: dict[str, int] = {}
    for term, expr in zip(terms, exprs, strict=True):
        for letter, extent in zip(term, ctx.shape(expr), strict=True):
            if extents.setdefault(letter, extent) == 1:
                extents[letter] = extent
            if extent not in (1, extents[letter]):
                raise UnsupportedNode(f"letter '{letter}' stands for both {extents[letter]} and {extent}")
    product = _as_matmul(ctx, terms, result, exprs)
    if product is not None:
        return product
    summed = [letter for letter in extents if letter not in result]

    def compute(*tensors: te.Tensor) -> te.Tensor:
        axes = {letter: te.reduce_axis((0, extents[letter]), name=f"k{i}") for i, letter in enumerate(summed)}

        def element(*index: Any) -> Any:
            place = {**dict(zip(result, index, strict=True)), **{k: a.var for k, a in axes.items()}}
            value: Any = None
            for tensor, term in zip(tensors, terms, strict=True):
                at = [0 if int(e) == 1 else place[k] for k, e in zip(term, tensor.shape, strict=True)]
                value = tensor(*at) if value is None else value * tensor(*at)
            return te.sum(value, axis=list(axes.values())) if axes else value

        return te.compute([extents[k] for k in result], element, name="einsum")

    return ctx.te(compute, *exprs, name="einsum")


def _parse_equation(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Letters of every operand and of the result; the ellipsis becomes letters of its own."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(ranks):
        raise UnsupportedNode(f"equation '{equation}' has {len(operands)} operands, {len(ranks)} are given")
    hidden = max(
        (
            rank - len(term.replace("...", ""))
            for term, rank in zip(operands, ranks, strict=True)
            if "..." in term
        ),
        default=0,
    )
    broadcast = "".join(chr(0x100 + i) for i in range(hidden))
    terms = []
    for term, rank in zip(operands, ranks, strict=True):
        count = rank - len(term.replace("...", ""))
        terms.append(term.replace("...", broadcast[len(broadcast) - count :] if count else ""))
        if len(terms[-1]) != rank:
            raise UnsupportedNode(f"term '{term}' of the equation does not fit an operand of rank {rank}")
    if arrow:
        return terms, right.replace("...", broadcast)
    letters = "".join(operands).replace("...", "")
    return terms, broadcast + "".join(sorted(k for k in set(letters) if letters.count(k) == 1))


def _as_matmul(ctx: Context, terms: list[str], result: str, exprs: list[relax.Expr]) -> relax.Expr | None:
    """The equation as a batched product where it is one up to transposes, else None."""
    if len(terms) != 2 or any(len(set(t)) != len(t) for t in (*terms, result)):
        return None
    a, b = terms
    shapes = {k: e for t, x in zip(terms, exprs, strict=True) for k, e in zip(t, ctx.shape(x), strict=True)}
    batch = [k for k in result if k in a and k in b]
    rows = [k for k in result if k in a and k not in b]
    cols = [k for k in result if k in b and k not in a]
    deep = [k for k in a if k in b and k not in result]
    whole = len(a) == len(batch + rows + deep) and len(b) == len(batch + cols + deep)
    same = all(ctx.shape(x)[t.index(k)] == shapes[k] for t, x in zip(terms, exprs, strict=True) for k in t)
    if not (whole and same and rows and cols and deep) or 0 in shapes.values():
        return None

    def arranged(expr: relax.Expr, term: str, *groups: list[str]) -> relax.Expr:
        order = [term.index(k) for group in groups for k in group]
        sizes = [int(np.prod([shapes[k] for k in group])) for group in groups[-2:]]
        return reshape(ctx, permute(ctx, expr, order), [*(shapes[k] for k in batch), *sizes])

    y = ctx.emit(R.matmul(arranged(exprs[0], a, batch, rows, deep), arranged(exprs[1], b, batch, deep, cols)))
    y = reshape(ctx, y, [shapes[k] for k in batch + rows + cols])
    natural = batch + rows + cols
    return permute(ctx, y, [natural.index(k) for k in result])
