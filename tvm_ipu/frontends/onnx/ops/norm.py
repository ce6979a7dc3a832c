"""Normalisation. Statistics take two passes, and float32 where the tensor is of half precision."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx

from tvm_ipu.base.model import NORMALISATION_ATTR
from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    HALF_TYPES,
    attr_bool,
    broadcast_index,
    elementwise,
    kind,
    normal_axis,
    number,
    required,
    scalar,
)
from tvm_ipu.frontends.onnx.ops.conv import reshape_weight
from tvm_ipu.frontends.onnx.ops.shape import reshape
from tvm_ipu.frontends.onnx.ops.types import convert, element_type

R = relax.op


def working_type(dtype: str) -> str:
    """Type in which statistics of ``dtype`` elements are computed."""
    return "float32" if dtype in HALF_TYPES else dtype


def normalize(
    ctx: Context,
    name: str,
    x: relax.Expr,
    axes: Sequence[int],
    epsilon: float,
    scale: relax.Expr | None = None,
    bias: relax.Expr | None = None,
    centered: bool = True,
) -> relax.Expr:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias`` in one kernel.

    Args:
        axes: Axes over which mean and variance are taken.
        scale: Broadcasts to ``x``.
        bias: Broadcasts to ``x``.
        centered: Subtract the mean; otherwise the mean square takes the place of the variance.
    """
    dims, dtype = ctx.shape(x), ctx.dtype(x)
    work, count = working_type(dtype), math.prod(dims[a] for a in axes)
    kept = [i for i in range(len(dims)) if i not in axes]
    affine = [e for e in (scale, bias) if e is not None]

    def statistic(tensor: te.Tensor, fn: Any, label: str) -> te.Tensor:
        taps = {a: te.reduce_axis((0, dims[a]), name=f"k{a}") for a in axes}

        def element(*index: Any) -> Any:
            place = [taps[i].var if i in taps else index[kept.index(i)] for i in range(len(dims))]
            return te.sum(fn(tensor(*place).astype(work), index), axis=list(taps.values()))

        total = te.compute([dims[i] for i in kept], element, name=f"{label}_sum")
        return te.compute(total.shape, lambda *i: total(*i) / number(float(count), work), name=label)

    def compute(tensor: te.Tensor, *parameters: te.Tensor) -> te.Tensor:
        mean = statistic(tensor, lambda v, _: v, "mean") if centered else None

        def square(value: Any, index: Any) -> Any:
            distance = value - mean(*index) if mean is not None else value
            return distance * distance

        variance = statistic(tensor, square, "variance")

        def element(*index: Any) -> Any:
            at = [index[i] for i in kept]
            value = tensor(*index).astype(work)
            value = value - mean(*at) if mean is not None else value
            value = value / tirx.sqrt(variance(*at) + number(epsilon, work))
            loads = [p(*broadcast_index(index, p.shape)).astype(work) for p in parameters]
            if scale is not None:
                value = value * loads.pop(0)
            return (value + loads.pop(0) if bias is not None else value).astype(dtype)

        return te.compute(dims, element, name=name)

    facts = {
        "axes": list(axes),
        "epsilon": epsilon,
        "centred": centered,
        "scale": scale is not None,
        "bias": bias is not None,
    }
    return ctx.te(compute, x, *affine, name=name, attrs={NORMALISATION_ATTR: json.dumps(facts)})


@converter("LayerNormalization")
def layer_normalization(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types, all outputs."""
    x, scale, bias = required(node, 0, "X"), required(node, 1, "Scale"), node.input(2)
    axis = normal_axis(int(node.attrs.get("axis", -1)), len(ctx.shape(x)))
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    axes = list(range(axis, len(ctx.shape(x))))
    results = [normalize(ctx, "layer_norm", x, axes, epsilon, scale, bias)]
    if any(node.outputs[1:]):
        stash = element_type(int(node.attrs.get("stash_type", 1)))
        wide = convert(ctx, x, stash)
        mean = ctx.emit(R.mean(wide, axes, True))
        distance = ctx.emit(R.subtract(wide, mean))
        variance = R.mean(R.multiply(distance, distance), axes, True)
        deviation = ctx.emit(R.sqrt(R.add(variance, scalar(ctx, epsilon, stash))))
        results += [mean, ctx.emit(R.divide(scalar(ctx, 1.0, stash), deviation))]
    return results


@converter("RMSNormalization")
def rms_normalization(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x, scale = required(node, 0, "X"), required(node, 1, "scale")
    axis = normal_axis(int(node.attrs.get("axis", -1)), len(ctx.shape(x)))
    axes = range(axis, len(ctx.shape(x)))
    return normalize(
        ctx, "rms_norm", x, list(axes), float(node.attrs.get("epsilon", 1e-5)), scale, centered=False
    )


@converter("InstanceNormalization")
def instance_normalization(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any number of spatial axes."""
    x, scale, bias = (required(node, i, n) for i, n in enumerate(("input", "scale", "B")))
    rank = len(ctx.shape(x))
    column = (ctx.shape(x)[1], *[1] * (rank - 2))
    scale, bias = (reshape_weight(ctx, e, column) for e in (scale, bias))
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    return normalize(ctx, "instance_norm", x, range(2, rank), epsilon, scale, bias)


@converter("GroupNormalization")
def group_normalization(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any number of spatial axes; scales for groups (opset 18), channels (21)."""
    x, scale, bias = (required(node, i, n) for i, n in enumerate(("X", "scale", "bias")))
    n, channels, *spatial = ctx.shape(x)
    groups = int(node.attrs["num_groups"])
    inner = channels // groups
    column = (groups, inner if node.since >= 21 else 1, *[1] * len(spatial))
    scale, bias = (reshape_weight(ctx, e, column) for e in (scale, bias))
    grouped = reshape(ctx, x, (n, groups, inner, *spatial))
    axes = range(2, 3 + len(spatial))
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    y = normalize(ctx, "group_norm", grouped, axes, epsilon, scale, bias)
    return reshape(ctx, y, ctx.shape(x))


@converter("MeanVarianceNormalization")
def mean_variance_normalization(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    dims, dtype = ctx.shape(x), ctx.dtype(x)
    axes = [normal_axis(int(a), len(dims)) for a in node.attrs.get("axes", (0, 2, 3))]
    tiny = 1e-9  # the specification adds it to the deviation, not to the variance
    wide = convert(ctx, x, working_type(dtype))
    mean = ctx.emit(R.mean(wide, axes, True))
    distance = ctx.emit(R.subtract(wide, mean))
    deviation = R.sqrt(R.mean(R.multiply(distance, distance), axes, True))
    y = R.divide(distance, R.add(deviation, scalar(ctx, tiny, working_type(dtype))))
    return convert(ctx, ctx.emit(y), dtype)


@converter("BatchNormalization")
def batch_normalization(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types; training mode computes the statistics of the batch."""
    x = required(node, 0, "X")
    params = [required(node, i, n) for i, n in enumerate(("X", "scale", "B", "mean", "var"))][1:]
    epsilon, dims = float(node.attrs.get("epsilon", 1e-5)), ctx.shape(x)
    if node.since < 9 and int(node.attrs.get("spatial", 1)) == 0:
        raise UnsupportedNode("attribute 'spatial' is 0; allowed is 1")
    if node.since >= 14 and attr_bool(node, "training_mode"):
        return _train(ctx, node, x, params, epsilon)
    column = (1, dims[1], *[1] * (len(dims) - 2)) if len(dims) > 1 else (1,)
    values = [ctx.value(p) for p in params]
    known = [v for v in values if v is not None]
    if len(known) == 4:
        factor, shift = _affine(known, epsilon)
        scale, bias = (ctx.const(v.astype(known[0].dtype).reshape(column)) for v in (factor, shift))
        scale, bias = (convert(ctx, e, ctx.dtype(x)) for e in (scale, bias))
        return [ctx.emit(R.add(R.multiply(x, scale), bias))]
    return [_batch_norm(ctx, x, params, epsilon, column)]


def _affine(values: list[NDArray[Any]], epsilon: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Factor and shift of a batch normalisation, in float64."""
    scale, bias, mean, variance = (v.astype(np.float64) for v in values)
    factor = scale / np.sqrt(variance + epsilon)
    return factor, bias - mean * factor


def _batch_norm(
    ctx: Context, x: relax.Expr, params: list[relax.Expr], epsilon: float, column: tuple[int, ...]
) -> relax.Expr:
    scale, bias, mean, variance = (reshape_weight(ctx, p, column) for p in params)

    def formula(v: Any, s: Any, b: Any, m: Any, r: Any) -> Any:
        return (v - m) / tirx.sqrt(r + number(epsilon, kind(r))) * s + b

    return elementwise(ctx, "batch_norm", formula, x, scale, bias, mean, variance)


def _train(
    ctx: Context, node: Node, x: relax.Expr, params: list[relax.Expr], epsilon: float
) -> list[relax.Expr]:
    """Normalised batch, running mean and running variance."""
    dims, momentum = ctx.shape(x), float(node.attrs.get("momentum", 0.9))
    scale, bias, old_mean, old_var = params
    axes = [i for i in range(len(dims)) if i != 1]
    column = (1, dims[1], *[1] * (len(dims) - 2))
    wide = convert(ctx, x, working_type(ctx.dtype(x)))
    mean = ctx.emit(R.mean(wide, axes, True))
    distance = ctx.emit(R.subtract(wide, mean))
    variance = ctx.emit(R.mean(R.multiply(distance, distance), axes, True))
    y = _batch_norm(ctx, wide, [scale, bias, mean, variance], epsilon, column)
    running = [
        elementwise(
            ctx,
            "running",
            lambda o, n: o * number(momentum, kind(o)) + n.astype(kind(o)) * number(1.0 - momentum, kind(o)),
            old,
            reshape(ctx, new, (dims[1],)),
        )
        for old, new in ((old_mean, mean), (old_var, variance))
    ]
    return [convert(ctx, y, ctx.dtype(x)), *running]


@converter("LpNormalization")
def lp_normalization(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types; p is 1 or 2; a norm of 0 gives 0."""
    x = required(node, 0, "input")
    dims, dtype = ctx.shape(x), ctx.dtype(x)
    axis, order = normal_axis(int(node.attrs.get("axis", -1)), len(dims)), int(node.attrs.get("p", 2))
    if order not in (1, 2):
        raise UnsupportedNode(f"attribute 'p' is {order}; allowed are 1, 2")
    work = working_type(dtype)

    def compute(tensor: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, dims[axis]), name="k")

        def power(*index: Any) -> Any:
            value = tensor(*index[:axis], k.var, *index[axis:]).astype(work)
            return te.sum(value * value if order == 2 else tirx.abs(value), axis=k)

        total = te.compute([*dims[:axis], *dims[axis + 1 :]], power, name="norm")

        def element(*index: Any) -> Any:
            norm = total(*index[:axis], *index[axis + 1 :])
            norm = tirx.sqrt(norm) if order == 2 else norm
            zero = norm == number(0.0, work)
            value = tensor(*index).astype(work) / tirx.Select(zero, number(1.0, work), norm)
            return tirx.Select(zero, number(0.0, work), value).astype(dtype)

        return te.compute(dims, element, name="lp_normalize")

    return ctx.te(compute, x, name="lp_normalize")


@converter("LRN")
def local_response_normalization(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types."""
    x = required(node, 0, "X")
    dims, dtype, size = ctx.shape(x), ctx.dtype(x), int(node.attrs["size"])
    alpha, beta = float(node.attrs.get("alpha", 1e-4)), float(node.attrs.get("beta", 0.75))
    bias, work = float(node.attrs.get("bias", 1.0)), working_type(dtype)

    def compute(tensor: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, size), name="k")

        def squares(n: Any, c: Any, *at: Any) -> Any:
            channel = c + k.var - (size - 1) // 2
            inside = tirx.all(channel >= 0, channel < dims[1])
            value = tirx.if_then_else(inside, tensor(n, channel, *at), number(0.0, dtype)).astype(work)
            return te.sum(value * value, axis=k)

        total = te.compute(dims, squares, name="square_sum")

        def element(*index: Any) -> Any:
            base = number(bias, work) + number(alpha / size, work) * total(*index)
            return (tensor(*index).astype(work) / tirx.power(base, number(beta, work))).astype(dtype)

        return te.compute(dims, element, name="lrn")

    return ctx.te(compute, x, name="lrn")
