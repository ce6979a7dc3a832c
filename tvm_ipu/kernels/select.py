"""Choose the kernels of a fused function: a template where one fits, the generic rule for the rest."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from tvm_ipu.base.target import Target
from tvm_ipu.kernels.anchors import dense_operands, emit_anchor, is_anchor, parts_of
from tvm_ipu.kernels.decisions import Choose, preferred
from tvm_ipu.kernels.epilogue import Epilogue, Step
from tvm_ipu.kernels.expressions import shape_of
from tvm_ipu.kernels.fusion.ops import Opaque, read_function
from tvm_ipu.kernels.generic import schedule_generic
from tvm_ipu.kernels.launch import Launch, LaunchList, TempSpec
from tvm_ipu.kernels.nests import Nest, follows, read_nests, subfunction


def schedule(
    func: tirx.PrimFunc, target: Target, choose: Choose = preferred
) -> tuple[list[Launch], list[TempSpec]]:
    """Kernels of a fused function, in order, and the temporaries between them.

    Args:
        func: Blocks as TVM's FuseTIR leaves them; parameters are the inputs, then the outputs.
        target: Chip to compile for.
        choose: Makes the templates' decisions.
    """
    nests = read_nests(func)
    anchor = next((n for n in nests or () if is_anchor(n)), None)
    if nests is None or anchor is None:
        return schedule_generic(func, target)
    plan = _Plan(func, target, choose)
    at = nests.index(anchor)
    parts = parts_of(nests, at)
    before, early = _postpone(parts, nests[: at + 1 - len(parts)])
    steps, rest = _split(anchor, early, nests[at + 1 :])
    plan.add_function(before, [*parts, *nests[at + 1 :]])
    plan.add_template(parts, steps, rest)
    plan.add_function(rest, [])
    return plan.made.launches, plan.made.temps


def dense_params(func: tirx.PrimFunc) -> set[int]:
    """Numbers of the parameters whose rows must follow each other; others may have a pitch (``memory``)."""
    dense = {
        buffer for op in read_function(func) if isinstance(op, Opaque) for buffer in (*op.reads, *op.targets)
    }
    for nest in read_nests(func) or ():
        if is_anchor(nest):
            operands = dense_operands(nest)
            dense.update(func.params if operands is None else operands)
    return {number for number, param in enumerate(func.params) if param in dense}


def _postpone(parts: Sequence[Nest], before: Sequence[Nest]) -> tuple[list[Nest], list[Step]]:
    """Nests that stay before the template, and elementwise ones that can as well be steps of its epilogue.

    Such are conversions of a residual that is added to the template's result.
    """
    (result,) = parts[-1].writes
    stay: list[Nest] = []
    early: list[Step] = []
    for nest in reversed(before):
        step = nest.as_step()
        read = {buffer for other in (*parts, *stay) for buffer in other.reads}
        if step is not None and shape_of(step.target) == shape_of(result) and step.target not in read:
            early.insert(0, step)
        else:
            stay.insert(0, nest)
    return stay, early


def _split(anchor: Nest, early: Sequence[Step], after: Sequence[Nest]) -> tuple[list[Step], list[Nest]]:
    """Elementwise steps that the anchor's kernel can take with it, ``early`` first, and the other nests."""
    (result,) = anchor.writes
    internal, later = {result, *(step.target for step in early)}, set[tirx.Buffer]()
    steps, rest = list(early), list[Nest]()
    for nest in after:
        step = nest.as_step()
        if step is not None and follows(step, shape_of(result), internal, later):
            steps.append(step)
            internal.add(step.target)
        else:
            rest.append(nest)
            later.update(nest.writes)
    return steps, rest


class _Plan:
    """The launches of one function while they are put together."""

    def __init__(self, func: tirx.PrimFunc, target: Target, choose: Choose) -> None:
        self._target = target
        self._choose = choose
        self.made = LaunchList(func)

    def add_template(self, parts: Sequence[Nest], steps: Sequence[Step], rest: Sequence[Nest]) -> None:
        """What a template computes, its anchor last, and the elementwise steps after it as one kernel."""
        (result,) = parts[-1].writes
        written = [result, *(step.target for step in steps)]
        epilogue = Epilogue(result, steps, self._needed(written, rest), self._target)
        name, kernel, buffers = emit_anchor(parts, epilogue, self._target, self._choose)
        self.made.add(kernel.func, buffers, kernel.extent, kernel.grain, name, kernel.flops)

    def add_function(self, nests: Sequence[Nest], after: Sequence[Nest]) -> None:
        """Other nests, as a function of their own."""
        if not nests:
            return
        written = dict.fromkeys(buffer for nest in nests for buffer in nest.writes)
        func, params = subfunction(nests, self._needed(list(written), after))
        launches, temps = schedule(func, self._target, self._choose)
        self.made.add_all(launches, temps, params)

    def _needed(self, written: Sequence[tirx.Buffer], after: Sequence[Nest]) -> list[tirx.Buffer]:
        """Those of the written buffers that are outputs of the function or read later."""
        read = {buffer for nest in after for buffer in nest.reads}
        return [buffer for buffer in written if buffer in read or self.made.is_param(buffer)]
