"""From a block that ``computes`` marked for a template to that template's problem and kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.algorithms import direct
from tvm_ipu.kernels.attention_parts import count_parts, read_parts
from tvm_ipu.kernels.computes import RIGHT, TEMPLATE
from tvm_ipu.kernels.decisions import Choose
from tvm_ipu.kernels.epilogue import Epilogue, loaded_buffers
from tvm_ipu.kernels.expressions import dtype_of, shape_of
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.memory import row_pitch
from tvm_ipu.kernels.nests import Nest
from tvm_ipu.kernels.templates import (
    attention,
    conv2d,
    depthwise,
    gemm,
    matmul,
    tile_conv2d,
    tile_gemm,
    tile_matmul,
    winograd,
)
from tvm_ipu.kernels.templates.kernel import Kernel
from tvm_ipu.kernels.window import Window
from tvm_ipu.kernels.winograd import TAPS

_Problem: TypeAlias = tuple[Any, Any]
"""A template's module, which offers ``space`` and ``emit``, and its problem."""


def is_anchor(nest: Nest) -> bool:
    """True when a template computes the block.

    A convolution that lies in the padding with all its windows reads nothing: TE has made its products zeros.
    """
    known = str(nest.block.annotations.get(TEMPLATE, "")) in (*_PROBLEMS, "attention")
    return (
        known
        and bool(nest.reads)
        and all(0 not in shape_of(buffer) for buffer in (*nest.reads, *nest.writes))
    )


def operands(anchor: Nest) -> tuple[tirx.Buffer, tirx.Buffer]:
    """The two buffers that the block multiplies, left and right."""
    loaded = loaded_buffers(anchor.block.body.value)
    left, right = (buffer for buffer in loaded if buffer not in anchor.writes)
    return left, right


def parts_of(nests: Sequence[Nest], at: int) -> Sequence[Nest]:
    """The nests that an anchor's template computes: itself, last, and those right before it."""
    single = str(nests[at].block.annotations[TEMPLATE]) != "attention"
    return nests[at : at + 1] if single else nests[at + 1 - count_parts(nests[: at + 1]) : at + 1]


def emit_anchor(
    parts: Sequence[Nest], epilogue: Epilogue, target: Target, choose: Choose
) -> tuple[str, Kernel, list[tirx.Buffer]]:
    """Name of the template, the kernel with the decision that ``choose`` makes, and its arguments.

    Args:
        parts: What the template computes (``parts_of``).
        epilogue: What is done to the result.
        target: Chip to compile for.
        choose: Makes the decision.
    """
    anchor = parts[-1]
    name = str(anchor.block.annotations[TEMPLATE])
    if name == "attention":
        problem, steps, buffers = read_parts(parts, epilogue, target)
        decision = choose(name, problem, attention.space(problem, target))
        kernel = attention.emit(problem, decision, steps, epilogue, target)
        return name, kernel, [*buffers, *epilogue.sources]
    template, problem = _PROBLEMS[name](anchor, epilogue, target)
    name = template.__name__.rpartition(".")[2]
    decision = choose(name, problem, template.space(problem, target))
    kernel = template.emit(problem, decision, epilogue, target)
    return name, kernel, [*operands(anchor), *epilogue.sources]


def _conv2d(anchor: Nest, epilogue: Epilogue, target: Target) -> _Problem:
    image, weights = operands(anchor)
    groups, *_, lanes, _ = shape_of(weights)
    depth = shape_of(image)[3] // groups
    window = _window(anchor, image)
    channels = shape_of(epilogue.anchor)[3] // groups
    dtypes = dtype_of(image), _right(anchor), dtype_of(epilogue.anchor)
    if window.is_pointwise and groups == 1:
        rows = window.batch * math.prod(window.size)
        return _product(gemm.Problem(rows, depth, channels, lanes, *dtypes, _pitch(image)), target)
    problem = conv2d.Problem(
        *(window, groups, depth, channels, lanes, *dtypes),
        pitch=_pitch(image),
        pad_value=_pad_value(anchor),
        whole_rows=_has_whole_rows(anchor),
    )
    return direct(problem, target)


def _winograd(anchor: Nest, epilogue: Epilogue, target: Target) -> _Problem:
    image, weights = operands(anchor)
    _, points, _, depth, lanes = shape_of(weights)
    window = _window(anchor, image)
    channels = shape_of(epilogue.anchor)[3]
    outputs, dtype = points - TAPS + 1, dtype_of(image)
    return winograd, winograd.Problem(window, depth, channels, outputs, lanes, dtype, _pitch(image))


def _depthwise(anchor: Nest, epilogue: Epilogue, target: Target) -> _Problem:
    image, weights = operands(anchor)
    lanes = shape_of(weights)[3]
    window = _window(anchor, image)
    dtypes = dtype_of(image), dtype_of(weights), dtype_of(epilogue.anchor)
    pitch, pad_value = _pitch(image), _pad_value(anchor)
    return depthwise, depthwise.Problem(window, shape_of(image)[3], lanes, *dtypes, pitch, pad_value)


def _dense(anchor: Nest, epilogue: Epilogue, target: Target) -> _Problem:
    left, weights = operands(anchor)
    *leading, depth = shape_of(left)
    *_, lanes, _ = shape_of(weights)
    dtypes = dtype_of(left), _right(anchor), dtype_of(epilogue.anchor)
    columns = shape_of(epilogue.anchor)[-1]
    problem = gemm.Problem(math.prod(leading), depth, columns, lanes, *dtypes, _pitch(left))
    return _product(problem, target)


def _product(problem: gemm.Problem, target: Target) -> _Problem:
    """Product with packed weights, on tile registers where the target has them."""
    p = problem
    tiled = tile_gemm.Problem(p.rows, p.depth, p.columns, p.left, p.right, p.dtype, p.pitch)
    if tile_gemm.takes(tiled, target):
        return tile_gemm, tiled
    column = Window(1, (p.rows, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1))
    copied = tile_conv2d.Problem(column, 1, p.depth, p.columns, p.left, p.right, p.dtype, p.pitch)
    return (tile_conv2d, copied) if tile_conv2d.takes(copied, target) else (gemm, p)


def _matmul(anchor: Nest, epilogue: Epilogue, target: Target) -> _Problem:
    left, right = operands(anchor)
    *leading, rows, columns = shape_of(epilogue.anchor)
    batch = tuple(leading)
    left_batch, right_batch = _leading(left, len(batch)), _leading(right, len(batch))
    if math.prod(right_batch) == 1 and left_batch == batch:
        rows, batch, left_batch, right_batch = math.prod(batch) * rows, (), (), ()
    dtype = dtype_of(epilogue.anchor)
    problem = matmul.Problem(
        batch=batch,
        left_batch=left_batch,
        right_batch=right_batch,
        rows=rows,
        depth=shape_of(left)[-1],
        columns=columns,
        transposed=bool(anchor.block.annotations["tvm_ipu.transpose_b"]),
        lanes=find_dot(dtype_of(left), dtype_of(right), target, dtype).lanes,
        left=dtype_of(left),
        right=dtype_of(right),
        dtype=dtype,
    )
    tiled = tile_matmul.Problem(**{k: v for k, v in vars(problem).items() if k != "lanes"})
    return (tile_matmul, tiled) if tile_matmul.takes(tiled, target) else (matmul, problem)


def _window(anchor: Nest, image: tirx.Buffer) -> Window:
    batch, height, width, _ = shape_of(image)
    kernel, stride, padding, dilation = (
        [int(value) for value in anchor.block.annotations[f"tvm_ipu.{name}"]]
        for name in ("kernel", "stride", "padding", "dilation")
    )
    above, left, below, right = padding
    return Window(
        batch,
        (height, width),
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (above, left, below, right),
        (dilation[0], dilation[1]),
    )


def dense_operands(anchor: Nest) -> tuple[tirx.Buffer, ...] | None:
    """Operands whose rows must follow each other; None where those of all buffers must."""
    template = str(anchor.block.annotations[TEMPLATE])
    if template == "attention":
        return None
    left, right = operands(anchor)
    is_dense = template == "matmul" or (template == "conv2d" and _has_whole_rows(anchor))
    return (left, right) if is_dense else (right,)


def _right(anchor: Nest) -> str:
    """Type of the weights."""
    return str(anchor.block.annotations[RIGHT]) or dtype_of(operands(anchor)[1])


def _pitch(buffer: tirx.Buffer) -> int:
    """Elements from one innermost row to the next; 0 where they follow each other."""
    pitch = row_pitch(buffer)
    return 0 if pitch == shape_of(buffer)[-1] else pitch


def _pad_value(anchor: Nest) -> float:
    """What the padding around the image holds."""
    return float(anchor.block.annotations["tvm_ipu.pad_value"])


def _has_whole_rows(anchor: Nest) -> bool:
    """Whether a convolution's weights are packed in whole rows of its window."""
    _, weights = operands(anchor)
    return shape_of(weights)[3] != int(anchor.block.annotations["tvm_ipu.kernel"][1])


def _leading(buffer: tirx.Buffer, rank: int) -> tuple[int, ...]:
    """Leading dimensions of a matrix operand, as many as the result has."""
    own = shape_of(buffer)[:-2]
    return (1,) * (rank - len(own)) + own


_PROBLEMS: dict[str, Callable[[Nest, Epilogue, Target], _Problem]] = {
    "conv2d": _conv2d,
    "depthwise": _depthwise,
    "dense": _dense,
    "matmul": _matmul,
    "winograd": _winograd,
}
