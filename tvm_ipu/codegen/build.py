"""From a fused Relax module to a program: kernels scheduled, compiled and linked, memory planned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import tvm_ffi
from tvm import tirx

from tvm_ipu.base.model import FLOAT_LAYERS_ATTR, Model
from tvm_ipu.base.program import ALIGNMENT, Arg, Call, Plan, Program, Space
from tvm_ipu.base.target import Target
from tvm_ipu.base.tensor import DType
from tvm_ipu.codegen.in_place import Step, copy_function
from tvm_ipu.codegen.link import link
from tvm_ipu.codegen.lower import LoweredKernel, compile_object, lower_kernel
from tvm_ipu.codegen.straight_line import straight_line
from tvm_ipu.codegen.tensors import ConstantPool, Storage, Value, align, plan_arena
from tvm_ipu.kernels.decisions import Choose, preferred
from tvm_ipu.kernels.memory import with_pitches
from tvm_ipu.kernels.select import schedule
from tvm_ipu.kernels.stage import Stage, TempSpec

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass
class _Kernels:
    """Kernels of a program: equal functions are scheduled and compiled once."""

    target: Target
    choose: Choose
    scheduled: dict[tvm_ffi.StructuralKey, tuple[list[Stage], list[TempSpec]]] = field(default_factory=dict)
    symbols: dict[tvm_ffi.StructuralKey, str] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)

    def schedule(self, func: tirx.PrimFunc) -> tuple[list[Stage], list[TempSpec]]:
        """Stages and temporaries of one fused function."""
        key = tvm_ffi.StructuralKey(func.without_attr("global_symbol"))
        if key not in self.scheduled:
            self.scheduled[key] = schedule(func, self.target, self.choose)
        return self.scheduled[key]

    def symbol(self, stage: Stage, name: str) -> str:
        """Symbol of the stage's kernel, named after its first user."""
        key = tvm_ffi.StructuralKey(stage.func.without_attr("global_symbol"))
        if key not in self.symbols:
            self.symbols[key] = f"k{len(self.symbols)}_{name}"[:60]
            self.stages[self.symbols[key]] = stage
        return self.symbols[key]


def build_program(
    models: Sequence[Model],
    target: Target,
    jobs: int = 2,
    progress: Progress | None = None,
    choose: Choose = preferred,
) -> Program:
    """Compile models, one for each set of input shapes, into one program over the same weights.

    Args:
        models: Each one's module holds fused, legalised functions and a straight-line ``main``.
        target: Chip to compile for.
        jobs: Threads that lower and compile kernels.
        progress: Told what is being done.
        choose: Makes the kernel templates' decisions.

    Raises:
        ToolError: No linker, or it failed.
    """
    kernels = _Kernels(target, choose)
    pool = ConstantPool()
    drafts = [_PlanDraft(model, kernels, pool) for model in models]
    lowered = _lower(kernels, _unaligned(drafts), target, jobs, progress)
    objects = _compile(list(lowered.values()), target, jobs, progress)
    linked = link(objects, target, kernels.stages)
    return Program(
        target=target,
        plans=tuple(draft.finish(kernels, lowered) for draft in drafts),
        code=linked.code,
        symbols={name: linked.symbols[name] for name in kernels.stages},
        weights=bytes(pool.weights),
        consts=bytes(pool.consts),
        metadata={"model": models[0].name, **models[0].source, **_float_layers(models[0])},
    )


def _float_layers(model: Model) -> dict[str, object]:
    """For ``inspect``: what a quantised model computes in float."""
    attrs = model.module.attrs
    if attrs is None or FLOAT_LAYERS_ATTR not in attrs:
        return {}
    return {"float_layers": [str(line) for line in attrs[FLOAT_LAYERS_ATTR]]}


def _unaligned(drafts: Sequence[_PlanDraft]) -> dict[str, set[int]]:
    """Kernel -> parameters that some call gives an address off ``ALIGNMENT``: parts of other tensors."""
    found: dict[str, set[int]] = {}
    for call in (call for draft in drafts for call in draft.calls):
        off = {i for i, value in enumerate(call.args) if value.offset % ALIGNMENT}
        found.setdefault(call.symbol, set()).update(off)
    return found


def _lower(
    kernels: _Kernels,
    unaligned: Mapping[str, set[int]],
    target: Target,
    jobs: int,
    progress: Progress | None,
) -> dict[str, LoweredKernel]:
    lowered: dict[str, LoweredKernel] = {}
    with ThreadPoolExecutor(max_workers=jobs) as threads:
        results = threads.map(
            lambda item: lower_kernel(item[1].func, item[0], target, unaligned[item[0]]),
            kernels.stages.items(),
        )
        for name, kernel in zip(kernels.stages, results, strict=True):
            lowered[name] = kernel
            if progress:
                progress("lowering kernels", len(lowered), len(kernels.stages))
    return lowered


def _compile(
    kernels: list[LoweredKernel], target: Target, jobs: int, progress: Progress | None
) -> list[bytes]:
    """Object files of the kernels; several, so that threads share the work and progress shows."""
    size = max(1, math.ceil(len(kernels) / (4 * jobs)))
    chunks = [kernels[i : i + size] for i in range(0, len(kernels), size)]
    objects: list[bytes] = []
    with ThreadPoolExecutor(max_workers=jobs) as threads:
        for obj in threads.map(lambda chunk: compile_object(chunk, target), chunks):
            objects.append(obj)
            if progress:
                progress("compiling kernels", len(objects), len(chunks))
    return objects


@dataclass(frozen=True)
class _DraftCall:
    symbol: str
    args: tuple[Value, ...]
    layer: str
    op: str


class _PlanDraft:
    """Calls of one plan while storages have no offsets yet."""

    def __init__(self, model: Model, kernels: _Kernels, pool: ConstantPool) -> None:
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
        stages, temps = self._kernels.schedule(func)
        temporaries = []
        for shape, dtype in temps:
            kind = DType.parse(dtype)
            size = math.prod(shape) * kind.itemsize
            temporaries.append(Value(Storage(Space.ARENA, size), tuple(shape), kind))
        for stage in stages:
            args = tuple((step.args if kind == "param" else temporaries)[i] for kind, i in stage.args)
            for arg in args:
                arg.storage.touch(len(self.calls))
            symbol = self._kernels.symbol(stage, step.op)
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

    def finish(self, kernels: _Kernels, lowered: dict[str, LoweredKernel]) -> Plan:
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
            calls=tuple(_finish_call(call, kernels.stages[call.symbol]) for call in self.calls),
            arena_size=arena_size,
            scratch_size=max((lowered[c.symbol].scratch_size for c in self.calls), default=0),
            tensor_bytes=sum(s.size for s in arena),
        )


def _finish_call(call: _DraftCall, stage: Stage) -> Call:
    args = tuple(Arg(v.storage.root.space, v.storage.root.index, v.offset, v.extent) for v in call.args)
    return Call(
        kernel=call.symbol,
        args=args,
        extent=stage.extent,
        grain=stage.grain,
        layer=call.layer,
        op=call.op,
        template=stage.template,
        flops=stage.flops,
        bytes=sum(v.nbytes for v in call.args),
    )
