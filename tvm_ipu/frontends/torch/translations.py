"""Operators of PyTorch as ONNX where the translation of onnxscript is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def conv3d(
    input: Any,  # noqa: A002, the name in the schema
    weight: Any,
    bias: Any = None,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    groups: int = 1,
) -> Any:
    """``aten::conv3d``; onnxscript 0.7 adds zeros of shape [O, 2] where there is no bias.

    Args:
        input: [N, C, D, H, W], or without the batch.
    """
    from onnxscript import opset18

    single = len(input.shape) == 4
    x = opset18.Unsqueeze(input, [0]) if single else input
    strides, pads, dilations = ([*one] * (3 // len(one)) for one in (stride, padding, dilation))
    options = {"strides": strides, "pads": pads * 2, "dilations": dilations, "group": groups}
    y = opset18.Conv(x, weight, *[bias] * (bias is not None), **options)
    return opset18.Squeeze(y, [0]) if single else y


TABLE: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.aten.conv3d.default: conv3d}
"""By operator: what writes it as nodes of opset 18."""
