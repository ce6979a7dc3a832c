"""The generic rule: kernels for whatever no template computes.

Expressions of injective operations are put into their users, branches are decided by cutting index spaces,
operations that run over the same rows share a kernel (``split``), and each becomes loops with vectors along
the axis on which its data lie next to each other (``fusion``). Sorting, scattering and the like stay as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import tvm_ffi
from tvm import tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.fusion.branches import with_safe_branches
from tvm_ipu.kernels.fusion.expressions import dtype_of, shape_of
from tvm_ipu.kernels.fusion.inline import inline
from tvm_ipu.kernels.fusion.kernel import emit_group
from tvm_ipu.kernels.fusion.opaque import opaque_kernel
from tvm_ipu.kernels.fusion.ops import Op, Opaque, read_function
from tvm_ipu.kernels.fusion.reductions import from_infinity, in_parts
from tvm_ipu.kernels.fusion.regions import split_regions
from tvm_ipu.kernels.split import Group, split
from tvm_ipu.kernels.stage import ArgRef, Stage, TempSpec

NEEDS_VECTORS = 20_000
NEEDS_UNITS = 1_400_000
"""Arithmetic operations of a kernel from which on it needs vectors, or more than one unit of work."""


def schedule_generic(func: tirx.PrimFunc, target: Target) -> tuple[list[Stage], list[TempSpec]]:
    """Kernels of a fused function, in order, and the temporaries between them.

    Args:
        func: Blocks as TVM's FuseTIR leaves them; parameters are the inputs, then the outputs.
        target: Chip to compile for.
    """
    outputs = list(func.params)
    ops = inline(_each(read_function(func), split_regions), outputs)
    ops = _each(ops, lambda op: in_parts(from_infinity(with_safe_branches(op)), target))
    groups = split(ops, outputs, target)
    stages = _Stages(func)
    for number, group in enumerate(groups):
        others = [*groups[:number], *groups[number + 1 :]]
        needed = {*outputs, *(buffer for other in others for buffer in _buffers(other))}
        kernel = opaque_kernel(group) if isinstance(group, Opaque) else emit_group(group, needed, target)
        stages.add(kernel.func, kernel.buffers, kernel.extent, kernel.grain, kernel.flops)
    return stages.stages, stages.temps


def is_scheduled(stage: Stage) -> bool:
    """Whether a kernel has vectors and units for threads, as far as it has enough work for them.

    Kernels for chips without vectors, and of statements that are kept as they are, may have neither.
    """
    vectors = 0

    def visit(loop: tirx.For) -> None:
        nonlocal vectors
        vectors += loop.kind == tirx.ForKind.VECTORIZED

    tvm_ffi.structural_walk(stage.func.body, (tirx.For, visit))
    return (vectors > 0 or stage.flops < NEEDS_VECTORS) and (stage.extent > 1 or stage.flops < NEEDS_UNITS)


def _each(ops: Sequence[Op | Opaque], rewrite: Callable[[Op], list[Op]]) -> list[Op | Opaque]:
    """What a rewrite makes of the operations, opaque ones left alone."""
    return [new for op in ops for new in (rewrite(op) if isinstance(op, Op) else [op])]


def _buffers(group: Group | Opaque) -> Iterator[tirx.Buffer]:
    for op in group.ops if isinstance(group, Group) else [group]:
        yield from op.reads
        yield from op.targets


class _Stages:
    """Stages while they are put together."""

    def __init__(self, func: tirx.PrimFunc) -> None:
        self._refs: dict[tirx.Buffer, ArgRef] = {param: ("param", i) for i, param in enumerate(func.params)}
        self.stages: list[Stage] = []
        self.temps: list[TempSpec] = []

    def add(
        self, func: tirx.PrimFunc, buffers: Sequence[tirx.Buffer], extent: int, grain: int, flops: int
    ) -> None:
        """Append a kernel."""
        args = tuple(self._ref(buffer) for buffer in buffers)
        self.stages.append(Stage(func, args, extent, grain, "generic", flops))

    def _ref(self, buffer: tirx.Buffer) -> ArgRef:
        if buffer not in self._refs:
            self._refs[buffer] = ("temp", len(self.temps))
            self.temps.append((shape_of(buffer), dtype_of(buffer)))
        return self._refs[buffer]
