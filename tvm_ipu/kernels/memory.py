"""Where the elements of a fused function's tensors lie: densely, or in rows that are parts of longer rows.

A part of a tensor's innermost dimension, such as one operand of a concatenation, is a buffer with strides:
its rows are ``pitch`` elements apart instead of their own length. All other dimensions follow from that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tvm_ffi
from tvm import ir, tirx


def row_pitch(buffer: tirx.Buffer) -> int:
    """Elements from one innermost row to the next."""
    shape, strides = buffer.ty.shape, buffer.ty.strides
    return int(strides[-2]) if len(strides) > 1 else int(shape[-1]) if len(shape) else 1


def memory_shape(buffer: tirx.Buffer) -> tuple[int, ...]:
    """Shape of the dense tensor that has its elements where ``buffer`` has them."""
    shape = tuple(int(dim) for dim in buffer.ty.shape)
    return (*shape[:-1], row_pitch(buffer)) if shape else ()


def memory_size(buffer: tirx.Buffer) -> int:
    """Elements from the first one to the last, whatever lies between rows included."""
    shape = tuple(int(dim) for dim in buffer.ty.shape)
    return span(shape, row_pitch(buffer))


def span(shape: tuple[int, ...], pitch: int) -> int:
    """Elements from the first to the last of a tensor whose rows are ``pitch`` elements apart."""
    rows = math.prod(shape[:-1])
    return (rows - 1) * pitch + shape[-1] if shape and rows and shape[-1] else math.prod(shape)


def with_pitches(func: tirx.PrimFunc, pitches: Mapping[int, int]) -> tirx.PrimFunc:
    """The function with some parameters' rows further apart.

    Args:
        func: A fused function over dense buffers.
        pitches: By number of a parameter of rank 2 or more, elements from one of its rows to the next.
    """
    strided = {}
    for number, pitch in pitches.items():
        buffer = func.params[number]
        shape = [int(dim) for dim in buffer.ty.shape]
        strides = [math.prod(shape[axis + 1 : -1]) * pitch for axis in range(len(shape) - 1)] + [1]
        strided[buffer] = tirx.decl_buffer(shape, buffer.ty.dtype, buffer.name, strides=strides)
    body = tvm_ffi.structural_map(func.body, (ir.Var, lambda var: strided.get(var, var)))
    params = [strided.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, body, func.ret_type, attrs=func.attrs)
