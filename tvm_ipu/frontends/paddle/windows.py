"""Operators with windows, products, norms and sums over axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.paddle.context import Context, Rule
from tvm_ipu.frontends.paddle.program import Op


def _require_nchw(op: Op) -> None:
    layout = op.attr("data_format", op.attr("data_layout", "NCHW"))
    if layout not in ("NCHW", "NCDHW", "NCL", "AnyLayout"):
        raise ModelError(f"{op}: data in {layout} cannot be compiled")


def _padding(op: Op, rank: int) -> dict[str, Any]:
    """Pads as ONNX's attributes, from one number a dimension, or from begin and end of each."""
    algorithm = op.attr("padding_algorithm", "EXPLICIT")
    if algorithm != "EXPLICIT":
        return {"auto_pad": "SAME_UPPER" if algorithm == "SAME" else "VALID"}
    pads = op.attr("paddings", [0] * rank)
    return {"pads": [*pads[::2], *pads[1::2]] if len(pads) == 2 * rank else [*pads, *pads]}


def convolution(c: Context, op: Op) -> str:
    """Of two or three spatial dimensions."""
    _require_nchw(op)
    return _convolve(c, op, "Conv", {})


def _convolve(c: Context, op: Op, op_type: str, sizes: dict[str, Any]) -> str:
    rank = c.rank(op, "Input") - 2
    attributes = {
        "group": op.attr("groups", 1),
        "strides": op.attr("strides", [1] * rank),
        "dilations": op.attr("dilations", [1] * rank),
        **_padding(op, rank),
        **sizes,
    }
    return c.b.add(op_type, c.read(op, "Input"), c.read(op, "Filter"), c.maybe(op, "Bias"), **attributes)


def transposed_convolution(c: Context, op: Op) -> str:
    """The transpose of a convolution."""
    _require_nchw(op)
    if op.inputs.get("OutputSizeTensor") or op.inputs.get("OutputSize"):
        raise ModelError(f"{op}: a computed output size cannot be compiled")
    sizes = {name: value for name in ("output_padding", "output_size") if (value := op.attr(name, []))}
    if "output_size" in sizes:
        sizes["output_shape"] = sizes.pop("output_size")
    return _convolve(c, op, "ConvTranspose", sizes)


def pooling(c: Context, op: Op) -> str:
    """Maximum or average of windows; adaptive to one value, or to sizes that divide the input's."""
    _require_nchw(op)
    x, size = c.read(op, "X"), op.attr("ksize", [1, 1])
    op_type = {"max": "MaxPool", "avg": "AveragePool"}[op.attr("pooling_type", "max")]
    adaptive = op.attr("adaptive", False)
    if op.attr("global_pooling", False) or (adaptive and set(size) == {1}):
        return c.b.add(f"Global{op_type}", x)
    if adaptive:
        dims = c.dims(op, "X")[2:]
        if any(d < 1 or d % s for d, s in zip(dims, size, strict=True)):
            raise ModelError(f"{op}: adaptive pooling of {list(dims)} to {size} cannot be compiled")
        kernel = [d // s for d, s in zip(dims, size, strict=True)]
        return c.b.add(op_type, x, kernel_shape=kernel, strides=kernel)
    attributes = {
        "kernel_shape": size,
        "strides": op.attr("strides", [1, 1]),
        "ceil_mode": int(op.attr("ceil_mode", False)),
        **_padding(op, 2),
    }
    if op_type == "AveragePool":
        attributes["count_include_pad"] = int(not op.attr("exclusive", True))
    return c.b.add(op_type, x, **attributes)


def batch_norm(c: Context, op: Op) -> str:
    """With the statistics that were learned."""
    _require_nchw(op)
    inputs = [c.read(op, slot) for slot in ("X", "Scale", "Bias", "Mean", "Variance")]
    return c.b.add("BatchNormalization", *inputs, epsilon=op.attr("epsilon", 1e-5))


def layer_norm(c: Context, op: Op) -> str:
    """Over the axes from ``begin_norm_axis`` on."""
    axis, dims = op.attr("begin_norm_axis", 1), c.dims(op, "X")[op.attr("begin_norm_axis", 1) :]
    if any(dim < 0 for dim in dims):
        raise ModelError(f"{op}: it normalises over open dimensions")
    scale = c.maybe(op, "Scale")
    bias = c.maybe(op, "Bias")
    if len(dims) > 1:  # they are one vector
        scale = scale and c.b.add("Reshape", scale, np.array(dims))
        bias = bias and c.b.add("Reshape", bias, np.array(dims))
    ones = np.ones(dims, np.float32)
    return c.b.add(
        "LayerNormalization",
        c.read(op, "X"),
        scale or ones,
        bias,
        axis=axis,
        epsilon=op.attr("epsilon", 1e-5),
    )


def instance_norm(c: Context, op: Op) -> str:
    """Over the spatial dimensions of each channel."""
    channels = c.dims(op, "X")[1]
    scale = c.maybe(op, "Scale") or np.ones(channels, np.float32)
    bias = c.maybe(op, "Bias") or np.zeros(channels, np.float32)
    return c.b.add("InstanceNormalization", c.read(op, "X"), scale, bias, epsilon=op.attr("epsilon", 1e-5))


def group_norm(c: Context, op: Op) -> str:
    """Over groups of channels."""
    _require_nchw(op)
    channels = c.dims(op, "X")[1]
    scale = c.maybe(op, "Scale") or np.ones(channels, np.float32)
    bias = c.maybe(op, "Bias") or np.zeros(channels, np.float32)
    options = {"num_groups": op.attr("groups", 1), "epsilon": op.attr("epsilon", 1e-5)}
    return c.b.add("GroupNormalization", c.read(op, "X"), scale, bias, **options)


def matmul(c: Context, op: Op) -> str:
    """A product of matrices, each of which may be transposed."""
    sides = []
    for slot, names in (("X", ("trans_x", "transpose_X")), ("Y", ("trans_y", "transpose_Y"))):
        side, rank = c.read(op, slot), c.rank(op, slot)
        if any(op.attr(name, False) for name in names) and rank > 1:
            side = c.b.add("Transpose", side, perm=[*range(rank - 2), rank - 1, rank - 2])
        sides.append(side)
    y = c.b.add("MatMul", *sides)
    alpha = op.attr("alpha", 1.0)
    return y if alpha == 1 else c.b.add("Mul", y, c.like(y, alpha))


def flat_matmul(c: Context, op: Op) -> str:
    """Fully connected: ``x_num_col_dims`` dimensions are rows, the others are multiplied."""
    rows, x = op.attr("x_num_col_dims", 1), c.read(op, "X")
    dims = c.dims(op, "X")
    if len(dims) > rows + 1:
        x = c.b.add("Reshape", x, np.array([*[0] * rows, math.prod(dims[rows:])]))
    return c.b.add("MatMul", x, c.read(op, "Y"))


def reduce(op_type: str) -> Rule:
    """The rule of a sum or the like over some axes."""

    def rule(c: Context, op: Op) -> str:
        keep = int(op.attr("keep_dim", False))
        axes = None if op.attr("reduce_all", False) else np.array(op.attr("dim", [0]), np.int64)
        return c.b.add(op_type, c.read(op, "X"), axes, keepdims=keep)

    return rule


def softmax(op_type: str) -> Rule:
    """The rule of softmax or its logarithm."""

    def rule(c: Context, op: Op) -> str:
        return c.b.add(op_type, c.read(op, "X"), axis=op.attr("axis", -1))

    return rule


def arg_max(op_type: str) -> Rule:
    """The rule of the place of the largest or smallest value."""

    def rule(c: Context, op: Op) -> str:
        if op.attr("flatten", False):
            raise ModelError(f"{op}: over all dimensions it cannot be compiled")
        place = c.b.add(
            op_type, c.read(op, "X"), axis=op.attr("axis", -1), keepdims=int(op.attr("keepdims", False))
        )
        return c.b.add("Cast", place, to=c.elem_type(op.attr("dtype", 3)))

    return rule


def interpolate(mode: str) -> Rule:
    """The rule of a resize."""

    def rule(c: Context, op: Op) -> str:
        _require_nchw(op)
        sizes = [op.attr("out_h", -1), op.attr("out_w", -1)]
        given = op.inputs.get("SizeTensor") or op.inputs.get("OutSize")
        factors = op.attr("scale", [])
        factors = factors if isinstance(factors, list) else [factors]
        x = c.read(op, "X")
        coordinates = _coordinates(op, mode)
        if given or (min(sizes) > 0 and not factors):
            known = c.vector(op, "none", "OutSize", "SizeTensor") if given else np.array(sizes, np.int64)
            front = c.b.add("Slice", c.b.add("Shape", x), np.array([0]), np.array([2]))
            return c.b.add("Resize", x, None, None, c.b.add("Concat", front, known, axis=0), **coordinates)
        if op.inputs.get("Scale") or not factors or min(factors) <= 0:
            raise ModelError(f"{op}: a computed scale cannot be compiled")
        scales = np.array([1, 1, *(factors * 2 if len(factors) == 1 else factors)], np.float32)
        return c.b.add("Resize", x, None, scales, **coordinates)

    return rule


def _coordinates(op: Op, mode: str) -> dict[str, Any]:
    corners = op.attr("align_corners", False)
    if mode == "nearest":
        kind = {"coordinate_transformation_mode": "align_corners", "nearest_mode": "round_prefer_ceil"}
        return {
            "mode": mode,
            **(
                kind if corners else {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            ),
        }
    asymmetric = mode == "linear" and op.attr("align_mode", 1) == 1
    name = "align_corners" if corners else "asymmetric" if asymmetric else "half_pixel"
    return {"mode": mode, "coordinate_transformation_mode": name, "cubic_coeff_a": -0.75}


RULES: dict[str, Rule] = {
    "arg_max": arg_max("ArgMax"),
    "arg_min": arg_max("ArgMin"),
    "batch_norm": batch_norm,
    "bicubic_interp_v2": interpolate("cubic"),
    "bilinear_interp_v2": interpolate("linear"),
    "bmm": matmul,
    "conv2d": convolution,
    "conv2d_transpose": transposed_convolution,
    "conv3d": convolution,
    "depthwise_conv2d": convolution,
    "depthwise_conv2d_transpose": transposed_convolution,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "log_softmax": softmax("LogSoftmax"),
    "matmul": matmul,
    "matmul_v2": matmul,
    "mul": flat_matmul,
    "nearest_interp_v2": interpolate("nearest"),
    "pool2d": pooling,
    "reduce_max": reduce("ReduceMax"),
    "reduce_mean": reduce("ReduceMean"),
    "reduce_min": reduce("ReduceMin"),
    "reduce_prod": reduce("ReduceProd"),
    "reduce_sum": reduce("ReduceSum"),
    "softmax": softmax("Softmax"),
}
