"""The generic rule: kernels for whatever no template computes.

Expressions of injective operations are put into their users, branches are decided by cutting index spaces,
operations that run over the same rows share a kernel (``split``), and each becomes loops with vectors along
the axis on which its data lie next to each other (``fusion``). Sorting, scattering and the like stay as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tvm import tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.fusion.branches import with_safe_branches
from tvm_ipu.kernels.fusion.inline import inline
from tvm_ipu.kernels.fusion.kernel import emit_group
from tvm_ipu.kernels.fusion.opaque import opaque_kernel
from tvm_ipu.kernels.fusion.ops import Op, Opaque, read_function
from tvm_ipu.kernels.fusion.reductions import from_infinity, in_parts
from tvm_ipu.kernels.fusion.regions import split_regions
from tvm_ipu.kernels.launch import Launch, LaunchList, TempSpec
from tvm_ipu.kernels.split import Group, split


def schedule_generic(func: tirx.PrimFunc, target: Target) -> tuple[list[Launch], list[TempSpec]]:
    """Kernels of a fused function, in order, and the temporaries between them.

    Args:
        func: Blocks as TVM's FuseTIR leaves them; parameters are the inputs, then the outputs.
        target: Chip to compile for.
    """
    outputs = list(func.params)
    ops = inline(_each(read_function(func), split_regions), outputs)
    ops = _each(ops, lambda op: in_parts(from_infinity(with_safe_branches(op)), target))
    groups = split(ops, outputs, target)
    made = LaunchList(func)
    for number, group in enumerate(groups):
        others = [*groups[:number], *groups[number + 1 :]]
        needed = {*outputs, *(buffer for other in others for buffer in _buffers(other))}
        kernel = (
            opaque_kernel(group, target) if isinstance(group, Opaque) else emit_group(group, needed, target)
        )
        made.add(kernel.func, kernel.buffers, kernel.extent, kernel.grain, "generic", kernel.flops)
    return made.launches, made.temps


def _each(ops: Sequence[Op | Opaque], rewrite: Callable[[Op], list[Op]]) -> list[Op | Opaque]:
    """What a rewrite makes of the operations, opaque ones left alone."""
    return [new for op in ops for new in (rewrite(op) if isinstance(op, Op) else [op])]


def _buffers(group: Group | Opaque) -> Iterator[tirx.Buffer]:
    for op in group.ops if isinstance(group, Group) else [group]:
        yield from op.reads
        yield from op.targets
