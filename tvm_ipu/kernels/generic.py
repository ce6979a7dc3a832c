"""The generic rule: kernels for whatever no template computes."""

from __future__ import annotations

from tvm import tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.stage import Stage, TempSpec


def schedule_generic(func: tirx.PrimFunc, target: Target) -> tuple[list[Stage], list[TempSpec]]:
    """Kernels of a fused function, in order, and the temporaries between them.

    Args:
        func: Blocks as TVM's FuseTIR leaves them; parameters are the inputs, then the outputs.
        target: Chip to compile for.
    """
    args = tuple(("param", i) for i in range(len(func.params)))
    return [Stage(func, args, 1, 1, "generic", 0)], []
