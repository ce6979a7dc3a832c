"""From a fused Relax module to a program: kernels scheduled, compiled and linked, memory planned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tvm_ipu.base.model import BITS_ATTR, FLOAT_LAYERS_ATTR, Model
from tvm_ipu.base.program import ALIGNMENT, Arg, Call, Plan, Program, Space
from tvm_ipu.base.target import Target
from tvm_ipu.base.tensor import DType
from tvm_ipu.codegen.in_place import Step, copy_function
from tvm_ipu.codegen.kernel_set import CompiledKernel, KernelSet, Progress, Unaligned
from tvm_ipu.codegen.link import link
from tvm_ipu.codegen.straight_line import straight_line
from tvm_ipu.codegen.tensors import ConstantPool, Storage, Value, align, plan_arena
from tvm_ipu.kernels.launch import Launch
from tvm_ipu.kernels.memory import with_pitches


def build_program(
    models: Sequence[Model],
    target: Target,
    jobs: int = 2,
    progress: Progress | None = None,
    kernels: KernelSet | None = None,
) -> Program:
    """Compile models, one for each set of input shapes, into one program over the same weights.

    Args:
        models: Each one's module holds fused, legalised functions and a straight-line ``main``.
        target: Chip to compile for.
        jobs: Threads that lower and compile kernels.
        progress: Told what is being done.
        kernels: Kernels of ``target`` that exist already, to which the program's are added.

    Raises:
        ToolError: No linker, or it failed.
    """
    kernels = kernels or KernelSet(target)
    pool = ConstantPool()
    drafts = [_PlanDraft(model, kernels, pool) for model in models]
    compiled = kernels.compile(_uses(drafts), jobs, progress)
    linked = link([kernel.object for kernel in compiled.values()], target, compiled)
    return Program(
        target=target,
        plans=tuple(draft.finish(kernels, compiled) for draft in drafts),
        code=linked.code,
        symbols={name: linked.symbols[name] for name in compiled},
        weights=pool.weights,
        consts=pool.consts,
        metadata={"model": models[0].name, **models[0].source, **_integer_facts(models[0])},
        contract=models[0].contract,
    )


def _integer_facts(model: Model) -> dict[str, object]:
    """For ``inspect``: what a quantised model computes in float, and the bits of its products."""
    attrs = model.module.attrs
    lists = {"float_layers": FLOAT_LAYERS_ATTR, "bits": BITS_ATTR}
    return {
        name: [str(line) for line in attrs[attr]]
        for name, attr in lists.items()
        if attrs is not None and attr in attrs
    }


def _uses(drafts: Sequence[_PlanDraft]) -> dict[str, Unaligned]:
    """Kernels that the plans call, with the parameters that are parts of other tensors, off ``ALIGNMENT``."""
    found: dict[str, Unaligned] = {}
    for call in (call for draft in drafts for call in draft.calls):
        off = frozenset(i for i, value in enumerate(call.args) if value.offset % ALIGNMENT)
        found[call.symbol] = found.get(call.symbol, off) | off
    return found


@dataclass(frozen=True)
class _DraftCall:
    symbol: str
    args: tuple[Value, ...]
    layer: str
    op: str


class _PlanDraft:
    """Calls of one plan while storages have no offsets yet."""

    def __init__(self, model: Model, kernels: KernelSet, pool: ConstantPool) -> None:
        self.model = model
        self.calls: list[_DraftCall] = []
        self._kernels = kernels
        steps, outputs = straight_line(model, pool)
        self._outputs = self._place_outputs(outputs, steps)
        for step in steps:
            self._add(step)

    def _add(self, step: Step) -> None:
        pitches = {i: value.pitch for i, value in enumerate(step.args) if not value.is_dense}
        func = with_pitches(step.func, pitches) if pitches else step.func
        launches, temps = self._kernels.schedule(func)
        temporaries = []
        for shape, dtype in temps:
            kind = DType.parse(dtype)
            size = math.prod(shape) * kind.itemsize
            temporaries.append(Value(Storage(Space.ARENA, size), tuple(shape), kind))
        for launch in launches:
            args = tuple((step.args if kind == "param" else temporaries)[i] for kind, i in launch.args)
            for arg in args:
                arg.storage.touch(len(self.calls))
            symbol = self._kernels.symbol(launch, step.op)
            self.calls.append(_DraftCall(symbol, args, step.layer, step.op))

    def _place_outputs(self, outputs: list[Value], steps: list[Step]) -> list[Value]:
        """Let every output be written in its own memory; copy what is an input, a constant or shared."""
        placed = []
        for index, value in enumerate(outputs):
            storage = value.storage
            is_whole = not storage.parent and storage.size == value.nbytes
            if storage.space is Space.ARENA and is_whole:
                value.storage.space, value.storage.index = Space.OUTPUT, index
            else:
                target = Value(Storage(Space.OUTPUT, value.nbytes, index), value.shape, value.dtype)
                if value.nbytes:
                    steps.append(Step(copy_function(value), (value, target), f"output {index}", "copy"))
                value = target
            placed.append(value)
        return placed

    def finish(self, kernels: KernelSet, compiled: dict[str, CompiledKernel]) -> Plan:
        """Plan the arena and fix every address."""
        top = 0
        io_offsets: list[list[int]] = []
        for specs in (self.model.inputs, self.model.outputs):
            offsets = []
            for spec in specs:
                offsets.append(top)
                top = align(top + spec.nbytes)
            io_offsets.append(offsets)
        storages = list({id(v.storage.root): v.storage.root for c in self.calls for v in c.args}.values())
        arena = [s for s in storages if s.space is Space.ARENA]
        arena_size = plan_arena(arena, top)
        return Plan(
            inputs=self.model.inputs,
            outputs=self.model.outputs,
            input_offsets=tuple(io_offsets[0]),
            output_offsets=tuple(io_offsets[1]),
            calls=tuple(_finish_call(call, kernels.launches[call.symbol]) for call in self.calls),
            arena_size=arena_size,
            scratch_size=max((compiled[c.symbol].scratch_size for c in self.calls), default=0),
            tensor_bytes=sum(s.size for s in arena),
        )


def _finish_call(call: _DraftCall, launch: Launch) -> Call:
    args = tuple(Arg(v.storage.root.space, v.storage.root.index, v.offset, v.extent) for v in call.args)
    return Call(
        kernel=call.symbol,
        args=args,
        extent=launch.extent,
        grain=launch.grain,
        layer=call.layer,
        op=call.op,
        template=launch.template,
        flops=launch.flops,
        bytes=sum(v.nbytes for v in call.args),
    )
