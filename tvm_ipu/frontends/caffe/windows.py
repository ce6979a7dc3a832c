"""Layers with windows, products and sums over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.caffe.elementwise import Rule, axis_of, scalar
from tvm_ipu.frontends.caffe.network import Layer
from tvm_ipu.frontends.onnx.model_builder import ModelBuilder


def convolution(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Of any number of spatial dimensions, with groups and dilation."""
    channels = b.shape(x[0])[1]
    p = layer.param("convolution_param")
    groups = channels if "epthwise" in layer.type else p.group
    geometry = _geometry(b, layer, x[0])
    weight = (p.num_output, channels // groups, *geometry["kernel_shape"])
    return _convolve(b, layer, x[0], "Conv", weight, geometry | {"group": groups})


def deconvolution(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """The transpose of a convolution."""
    p = layer.param("convolution_param")
    geometry = _geometry(b, layer, x[0])
    weight = (b.shape(x[0])[1], p.num_output // p.group, *geometry["kernel_shape"])
    return _convolve(b, layer, x[0], "ConvTranspose", weight, geometry | {"group": p.group})


def _convolve(
    b: ModelBuilder, layer: Layer, x: str, op_type: str, shape: tuple[int, ...], attributes: dict[str, Any]
) -> str:
    p = layer.param("convolution_param")
    if p.num_output % attributes["group"] or b.shape(x)[1] % attributes["group"]:
        raise ModelError(
            f"{layer}: {b.shape(x)[1]} to {p.num_output} channels in {attributes['group']} groups"
        )
    layer.check_weights(1 + p.bias_term, 1 + p.bias_term)
    inputs = [b.constant(layer.weight(0, shape), f"{layer.name}/weight")]
    if p.bias_term:
        inputs.append(b.constant(layer.weight(1, (p.num_output,)), f"{layer.name}/bias"))
    return b.add(op_type, x, *inputs, **attributes)


def _geometry(b: ModelBuilder, layer: Layer, x: str) -> dict[str, list[int]]:
    """Kernel, strides, pads and dilations of a convolution as ONNX's attributes."""
    p = layer.param("convolution_param")
    rank = len(b.shape(x)) - 2
    if p.axis != 1 or rank < 1:
        raise ModelError(f"{layer}: axis {p.axis} of an input of {rank + 2} dimensions cannot be compiled")
    kernel = _sizes(layer, p, "kernel_size", "kernel", rank, 0)
    pads = _sizes(layer, p, "pad", "pad", rank, 0)
    if min(kernel) < 1 or not p.num_output:
        raise ModelError(f"{layer}: it has no kernel size or no num_output")
    return {
        "kernel_shape": kernel,
        "strides": _sizes(layer, p, "stride", "stride", rank, 1),
        "pads": pads + pads,
        "dilations": _sizes(layer, p, "dilation", "dilation", rank, 1),
    }


def _sizes(layer: Layer, p: Any, repeated: str, name: str, rank: int, default: int) -> list[int]:
    """One number for each spatial dimension, from a repeated field or from those of height and width."""
    fields = [f"{name}_h", f"{name}_w"]
    if hasattr(p, fields[0]) and any(p.HasField(field) for field in fields):
        return [getattr(p, field) for field in fields]
    values = getattr(p, repeated)
    values = list(values) if not isinstance(values, int) else [values] if p.HasField(repeated) else []
    values = values or [default]
    if len(values) not in (1, rank):
        raise ModelError(f"{layer}: {len(values)} values of {repeated} for {rank} spatial dimensions")
    return values * rank if len(values) == 1 else values


def pooling(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Maximum or average; windows that begin inside the padded input count, even where they hang over."""
    p = layer.param("pooling_param")
    if p.pool > 1 or len(layer.tops) > 1:
        what = "stochastic pooling" if p.pool > 1 else "the places of the maxima"
        raise ModelError(f"{layer}: {what} cannot be compiled")
    op_type = ("Max", "Average")[p.pool] + "Pool"
    if p.global_pooling:
        return b.add(f"Global{op_type}", x[0])
    size = b.shape(x[0])[2:]
    if len(size) != 2:
        raise ModelError(f"{layer}: an input of {len(size) + 2} dimensions cannot be compiled")
    kernel, strides, pads = (
        _sizes(layer, p, field, name, 2, default)
        for field, name, default in (("kernel_size", "kernel", 0), ("stride", "stride", 1), ("pad", "pad", 0))
    )
    if min(kernel) < 1 or min(strides) < 1 or any(a >= k for a, k in zip(pads, kernel, strict=True)):
        raise ModelError(f"{layer}: kernel {kernel}, stride {strides} and pad {pads} do not go together")
    exact = p.round_mode == 1 or not p.ceil_mode
    ends = [_end_pad(*sizes, any(pads), exact) for sizes in zip(size, kernel, strides, pads, strict=True)]
    if p.pool == 1:
        return _average(b, x[0], kernel, strides, pads, ends)
    return b.add(op_type, x[0], kernel_shape=kernel, strides=strides, pads=[*pads, *ends])


def _end_pad(size: int, kernel: int, stride: int, pad: int, clipped: bool, exact: bool) -> int:
    """Rows that the last window needs behind the input."""
    span = size + 2 * pad - kernel
    count = (span // stride if exact else -(-span // stride)) + 1
    if clipped and (count - 1) * stride >= size + pad:
        count -= 1
    return max(0, (count - 1) * stride + kernel - pad - size)


def _average(
    b: ModelBuilder, x: str, kernel: list[int], strides: list[int], pads: list[int], ends: list[int]
) -> str:
    """Averages over what of a window lies in the input and its pads, but not behind those."""
    if any(end > pad for end, pad in zip(ends, pads, strict=True)):
        if any(pads):
            inside = [min(end, pad) for end, pad in zip(ends, pads, strict=True)]
            x = b.add("Pad", x, np.array([0, 0, *pads, 0, 0, *inside], np.int64))
            ends = [end - pad for end, pad in zip(ends, inside, strict=True)]
        return b.add("AveragePool", x, kernel_shape=kernel, strides=strides, pads=[0, 0, *ends])
    return b.add(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=strides,
        pads=[*pads, *ends],
        count_include_pad=int(any(pads)),
    )


def roi_pooling(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Fast R-CNN's: maxima in a grid over each region [image, left, top, right, bottom]."""
    p = layer.param("roi_pooling_param")
    grid = [p.pooled_h, p.pooled_w]
    if [len(b.shape(name)) for name in x] != [4, 2] or b.shape(x[1])[1] != 5 or not all(grid):
        raise ModelError(f"{layer}: it needs features of 4 dimensions, regions [N, 5], pooled_h and pooled_w")
    return b.add("MaxRoiPool", *x, pooled_shape=grid, spatial_scale=p.spatial_scale)


def inner_product(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """A matrix product over the axes from ``axis`` on."""
    p = layer.param("inner_product_param")
    shape, axis = b.shape(x[0]), axis_of(b, layer, x[0], p.axis)
    depth = math.prod(shape[axis:])
    layer.check_weights(1 + p.bias_term, 1 + p.bias_term)
    dims = (depth, p.num_output) if p.transpose else (p.num_output, depth)
    inputs = [b.constant(layer.weight(0, dims), f"{layer.name}/weight")]
    if p.bias_term:
        inputs.append(b.constant(layer.weight(1, (p.num_output,)), f"{layer.name}/bias"))
    rows = x[0]
    if axis != 1 or len(shape) != 2:
        rows = b.add("Reshape", rows, np.array([math.prod(shape[:axis]), depth], np.int64))
    y = b.add("Gemm", rows, *inputs, transB=int(not p.transpose))
    return y if axis == 1 else b.add("Reshape", y, np.array([*shape[:axis], p.num_output], np.int64))


def lrn(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Local response normalisation over channels, or over a square of each channel."""
    p = layer.param("lrn_param")
    if not p.local_size % 2:
        raise ModelError(f"{layer}: local_size is {p.local_size}; it has to be odd")
    if p.norm_region == 0:
        return b.add("LRN", x[0], size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)
    pads = [p.local_size // 2] * 4
    square = b.add("Mul", x[0], x[0])
    mean = b.add("AveragePool", square, kernel_shape=[p.local_size] * 2, pads=pads, count_include_pad=1)
    base = b.add("Add", b.add("Mul", mean, scalar(p.alpha)), scalar(1))
    return b.add("Mul", x[0], b.add("Pow", base, scalar(-p.beta)))


def normalize(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """SSD's: divided by the length of the vector of channels (or of all values), times a scale."""
    p = layer.param("norm_param")
    layer.check_weights(1, 1)
    shape = b.shape(x[0])
    axes = list(range(1, len(shape))) if p.across_spatial else [1]
    total = b.add("ReduceSum", b.add("Mul", x[0], x[0]), np.array(axes, np.int64))
    y = b.add("Div", x[0], b.add("Sqrt", b.add("Add", total, scalar(p.eps))))
    count = 1 if p.channel_shared else shape[1]
    return b.add("Mul", y, layer.weight(0, (count,)).reshape(count, *[1] * (len(shape) - 2)))


def mvn(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Minus the mean, divided by the deviation plus eps, of each channel or of all of them."""
    p = layer.param("mvn_param")
    rank = len(b.shape(x[0]))
    axes = np.arange(1 if p.across_channels else 2, rank)
    y = b.add("Sub", x[0], b.add("ReduceMean", x[0], axes))
    if not p.normalize_variance:
        return y
    deviation = b.add("Sqrt", b.add("ReduceMean", b.add("Mul", y, y), axes))
    return b.add("Div", y, b.add("Add", deviation, scalar(p.eps)))


def interp(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """DeepLab's: linear, corners on corners; pads below 0 crop."""
    p = layer.param("interp_param")
    size = [dim + p.pad_beg + p.pad_end for dim in b.shape(x[0])[2:]]
    if p.pad_beg > 0 or p.pad_end > 0:
        raise ModelError(f"{layer}: it pads by {p.pad_beg} and {p.pad_end}; only crops can be compiled")
    y = x[0]
    if p.pad_beg or p.pad_end:
        begin = [-p.pad_beg] * 2
        ends = [i + s for i, s in zip(begin, size, strict=True)]
        y = b.add("Slice", y, np.array(begin), np.array(ends), np.array([2, 3]))
    if p.height and p.width:
        size = [p.height, p.width]
    else:
        size = [(dim - 1) // p.shrink_factor + 1 for dim in size]
        size = [dim + (dim - 1) * (p.zoom_factor - 1) for dim in size]
    target = np.array([*b.shape(x[0])[:2], *size], np.int64)
    return b.add(
        "Resize", y, None, None, target, mode="linear", coordinate_transformation_mode="align_corners"
    )


def upsample(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Every value repeated in both directions."""
    if len(x) > 1:
        raise ModelError(f"{layer}: with the places of maxima it cannot be compiled")
    factor = layer.param("upsample_param").scale
    scales = np.array([1, 1, factor, factor], np.float32)
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return b.add("Resize", x[0], None, scales, mode="nearest", **modes)


def reduction(b: ModelBuilder, layer: Layer, x: Sequence[str]) -> str:
    """Sum, sum of magnitudes, of squares, or mean over the axes from ``axis`` on."""
    p = layer.param("reduction_param")
    axes = np.arange(axis_of(b, layer, x[0], p.axis), len(b.shape(x[0])))
    op_type = ("", "ReduceSum", "ReduceL1", "ReduceSumSquare", "ReduceMean")[p.operation]
    y = b.add(op_type, x[0], axes, keepdims=0)
    return y if p.coeff == 1 else b.add("Mul", y, scalar(p.coeff))


RULES: dict[str, Rule] = {
    "Convolution": convolution,
    "ConvolutionDepthwise": convolution,
    "Deconvolution": deconvolution,
    "DepthwiseConvolution": convolution,
    "InnerProduct": inner_product,
    "Interp": interp,
    "LRN": lrn,
    "MVN": mvn,
    "Normalize": normalize,
    "Pooling": pooling,
    "ROIPooling": roi_pooling,
    "Reduction": reduction,
    "Upsample": upsample,
}
