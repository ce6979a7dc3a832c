"""Compute 3-D convolutions as 2-D ones: the taps along the depth become channels.

    lv = R.nn.conv3d(x, w)    ->    lv0 = R.permute_dims(x, axes=[0, 2, 3, 4, 1])
                                    lv1 = R.concat((lv0[:, 0:d], lv0[:, 1:d+1], ...), axis=4)
                                    lv2 = R.reshape(lv1, (n * d, h, w, taps * c))
                                    lv3 = R.nn.conv2d(lv2, w', data_layout="NHWC", kernel_layout="OHWI")
                                    lv = R.permute_dims(R.reshape(lv3, (n, d, h, w, o)), axes=[0, 4, 1, 2, 3])

So they share the kernels of 2-D convolutions, and the slices are copied once for all output channels. Where
each channel is a group of its own, the taps are convolutions of their own that are added.
"""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from tvm_ipu.passes.rewrite import Rewriter, op_name, rewrite, shape_of

R = relax.op


def flatten_depth(module: tvm.ir.IRModule) -> tvm.ir.IRModule:
    """Replace convolutions over three axes (NCDHW, OIDHW)."""
    return rewrite(module, _flatten)


def _flatten(rewriter: Rewriter, call: relax.Call) -> relax.Expr | None:
    if op_name(call) != "relax.nn.conv3d":
        return None
    if (call.attrs.data_layout, call.attrs.kernel_layout) != ("NCDHW", "OIDHW"):
        return None
    batch, channels, *_ = shape_of(call)
    depth = shape_of(call)[2]
    slices = _slices(rewriter, call)
    groups, taps = int(call.attrs.groups), len(slices)
    weight = rewriter.emit(R.permute_dims(call.args[1], [0, 3, 4, 2, 1]))
    out, height, width, _, inner = shape_of(weight)
    if groups == shape_of(call.args[0])[1] == channels > 1:
        parts = [rewriter.emit(R.strided_slice(weight, [3], [k], [k + 1])) for k in range(taps)]
        shape = (out, height, width, inner)
        sums = [
            _conv2d(rewriter, call, _rows(rewriter, x), rewriter.emit(R.reshape(w, shape)))
            for x, w in zip(slices, parts, strict=True)
        ]
        y = sums[0]
        for term in sums[1:]:
            y = rewriter.emit(R.add(y, term))
    else:
        x = _rows(rewriter, _joined(rewriter, slices, groups))
        y = _conv2d(rewriter, call, x, rewriter.emit(R.reshape(weight, (out, height, width, taps * inner))))
    whole = rewriter.emit(R.reshape(y, (batch, depth, *shape_of(y)[1:])))
    return R.permute_dims(whole, [0, 4, 1, 2, 3])


def _slices(rewriter: Rewriter, call: relax.Call) -> list[relax.Expr]:
    """For each tap along the depth what it multiplies, [batch, out_depth, height, width, channels]."""
    front, back = int(call.attrs.padding[0]), int(call.attrs.padding[3])
    stride, dilation = int(call.attrs.strides[0]), int(call.attrs.dilation[0])
    x = call.args[0]
    if front or back:
        x = rewriter.emit(R.nn.pad(x, [0, 0, 0, 0, front, back, 0, 0, 0, 0]))
    x = rewriter.emit(R.permute_dims(x, [0, 2, 3, 4, 1]))
    taps, size = shape_of(call.args[1])[2], (shape_of(call)[2] - 1) * stride + 1
    if taps == 1 and size == shape_of(x)[1] and stride == 1:
        return [x]
    starts = [k * dilation for k in range(taps)]
    return [rewriter.emit(R.strided_slice(x, [1], [at], [at + size], [stride])) for at in starts]


def _joined(rewriter: Rewriter, slices: Sequence[relax.Expr], groups: int) -> relax.Expr:
    """The slices' channels behind each other, inside each group."""
    if len(slices) == 1:
        return slices[0]
    *outer, channels = shape_of(slices[0])
    if groups > 1:
        grouped = (*outer, groups, channels // groups)
        slices = [rewriter.emit(R.reshape(x, grouped)) for x in slices]
    joined = rewriter.emit(R.concat(list(slices), -1))
    return rewriter.emit(R.reshape(joined, (*outer, channels * len(slices)))) if groups > 1 else joined


def _rows(rewriter: Rewriter, x: relax.Expr) -> relax.Expr:
    """The depth as part of the batch."""
    batch, depth, *rest = shape_of(x)
    return rewriter.emit(R.reshape(x, (batch * depth, *rest)))


def _conv2d(rewriter: Rewriter, call: relax.Call, x: relax.Expr, weight: relax.Expr) -> relax.Expr:
    """The convolution over height and width."""
    attrs = call.attrs
    _, top, left, _, bottom, right = (int(size) for size in attrs.padding)
    conv = R.nn.conv2d(
        x,
        weight,
        [int(s) for s in attrs.strides][1:],
        [top, left, bottom, right],
        [int(d) for d in attrs.dilation][1:],
        groups=int(attrs.groups),
        data_layout="NHWC",
        kernel_layout="OHWI",
        out_dtype=str(call.ty.dtype),
    )
    return rewriter.emit(conv, rewriter.layer)
