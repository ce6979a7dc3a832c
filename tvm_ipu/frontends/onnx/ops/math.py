"""Matrices with structure, and operators that only make sense with constant inputs."""

from __future__ import annotations

import math
from typing import Any

from tvm import relax, te, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import local, loops, number, required
from tvm_ipu.frontends.onnx.ops.norm import working_type
from tvm_ipu.frontends.onnx.ops.shape import reshape
from tvm_ipu.frontends.onnx.ops.types import element_type


@converter("Trilu")
def trilu(ctx: Context, node: Node) -> relax.Expr:
    """All element types; the diagonal may be computed at run time."""
    x, k = required(node, 0, "input"), node.input(1)
    dtype, upper = ctx.dtype(x), bool(node.attrs.get("upper", 1))

    def compute(tensor: te.Tensor, *diagonal: te.Tensor) -> te.Tensor:
        def element(*index: Any) -> Any:
            shift = diagonal[0](*[0] * len(diagonal[0].shape)) if diagonal else number(0, "int64")
            bound = number(1 << 40, "int64")
            shift = tirx.max(tirx.min(shift, bound), number(-(1 << 40), "int64"))
            distance = index[-1].astype("int64") - index[-2].astype("int64")
            kept = distance >= shift if upper else distance <= shift
            return tirx.Select(kept, tensor(*index), number(0, dtype))

        return te.compute(tensor.shape, element, name="trilu")

    return ctx.te(compute, x, *([k] if k is not None else []), name="trilu")


@converter("EyeLike")
def eye_like(ctx: Context, node: Node) -> relax.Expr:
    """All element types."""
    x = required(node, 0, "input")
    dtype = element_type(int(node.attrs["dtype"])) if "dtype" in node.attrs else ctx.dtype(x)
    shift = int(node.attrs.get("k", 0))

    def compute() -> te.Tensor:
        def element(i: Any, j: Any) -> Any:
            return tirx.Select(j - i == shift, number(1, dtype), number(0, dtype))

        return te.compute(ctx.shape(x), element, name="eye_like")

    return ctx.te(compute, name="eye_like")


@converter("Det")
def det(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types, any number of matrices."""
    x = required(node, 0, "X")
    dims, dtype = ctx.shape(x), ctx.dtype(x)
    size, count, work = dims[-1], math.prod(dims[:-2]), working_type(dtype)

    def body(matrices: Any, target: Any) -> None:
        """Gaussian elimination with the largest pivot of each column."""
        with T.parallel(count) as m:
            a = local(work, size * size)
            with T.serial(size * size) as i:
                a[i] = matrices[m, i].astype(work)
            result, pivot, saved = local(work), local("int32"), local(work)
            result[0] = number(1.0, work)
            with T.serial(size) as k:
                pivot[0] = k
                with T.serial(size) as i, T.If(i > k), T.Then():
                    larger = tirx.abs(a[i * size + k]) > tirx.abs(a[pivot[0] * size + k])
                    with T.If(larger), T.Then():
                        pivot[0] = i
                with T.If(pivot[0] != k), T.Then():
                    result[0] = number(0.0, work) - result[0]
                    with T.serial(size) as j:
                        saved[0] = a[k * size + j]
                        a[k * size + j] = a[pivot[0] * size + j]
                        a[pivot[0] * size + j] = saved[0]
                diagonal = a[k * size + k]
                result[0] = result[0] * diagonal
                with T.serial(size) as i, T.If(tirx.all(i > k, diagonal != number(0.0, work))), T.Then():
                    saved[0] = a[i * size + k] / a[k * size + k]
                    with T.serial(size) as j:
                        a[i * size + j] = a[i * size + j] - saved[0] * a[k * size + j]
            target[m] = result[0].astype(dtype)

    flat = reshape(ctx, x, (count, size * size))
    return reshape(ctx, loops(ctx, "det", [flat], [((count,), dtype)], body)[0], dims[:-2])


_CONSTANT_INPUTS = {
    "Range": ("start", "limit", "delta"),
    "ConstantOfShape": ("input",),
    "MelWeightMatrix": ("num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz"),
    "HannWindow": ("size",),
    "HammingWindow": ("size",),
    "BlackmanWindow": ("size",),
}


@converter(*_CONSTANT_INPUTS)
def from_constants(ctx: Context, node: Node) -> relax.Expr:
    """All inputs must be constant: they decide the output's shape."""
    for index, name in enumerate(_CONSTANT_INPUTS[node.op_type]):
        ctx.require_value(node, index, name)
    raise UnsupportedNode("its result is too large to be made from constants")


@converter(
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"
)
def random(ctx: Context, node: Node) -> relax.Expr:
    """Not supported: random numbers would make an image's results differ from run to run."""
    raise UnsupportedNode("random numbers are not supported")


@converter("ImageDecoder")
def image_decoder(ctx: Context, node: Node) -> relax.Expr:
    """Not supported: the data decide the output's shape."""
    raise UnsupportedNode("the data decide the shape of the output; decode images before the model")
