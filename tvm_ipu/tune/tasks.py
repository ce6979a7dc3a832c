"""Tasks: the template problems that a model consists of, each with a small model that runs it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm_ffi
from tvm import relax, te, tirx
from tvm.ir.expr import GenericConst

from tvm_ipu.base.model import LAYERS_ATTR, Model
from tvm_ipu.base.target import Target
from tvm_ipu.base.tensor import DType, TensorSpec, numpy_dtype
from tvm_ipu.kernels.select import schedule
from tvm_ipu.tune.records import problem_key

PRODUCER, TUNED = "producer", "tuned"
"""Layers of a task's model."""


@dataclass
class Task:
    """One problem of one template.

    Attributes:
        template: Name of the template.
        problem: The problem.
        key: What ``records.problem_key`` makes of both.
        decisions: What may be chosen, the template's own choice first.
        calls: How often the model computes it.
        layers: Names of those layers.
        flops: Operations of one call, elementwise steps included.
        call: A call of the fused function that holds the problem.
        func: That function.
    """

    template: str
    problem: Any
    key: str
    decisions: Sequence[Any]
    flops: int
    call: relax.Call
    func: tirx.PrimFunc
    calls: int = 0
    layers: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Template and first layer."""
        return f"{self.template} {self.layers[0]}"


def find_tasks(models: Sequence[Model], target: Target) -> list[Task]:
    """Tasks of fused modules, in the order of their first layers; those without a choice are left out."""
    tasks: dict[str, Task] = {}
    problems: dict[tvm_ffi.StructuralKey, list[Task]] = {}
    for model in models:
        attrs = model.module.attrs
        names = iter(attrs[LAYERS_ATTR]) if attrs is not None and LAYERS_ATTR in attrs else iter(())
        for block in model.module["main"].body.blocks:
            for binding in block.bindings:
                call = binding.value
                if not isinstance(call, relax.Call):
                    continue
                layer = str(next(names, binding.var.name))
                if getattr(call.op, "name", "") != "relax.call_tir":
                    continue
                func = model.module[call.args[0]]
                key = tvm_ffi.StructuralKey(func.without_attr("global_symbol"))
                if key not in problems:
                    problems[key] = _problems(func, call, target)
                for task in problems[key]:
                    task = tasks.setdefault(task.key, task)
                    task.calls += 1
                    task.layers.append(layer)
    return list(tasks.values())


def _problems(func: tirx.PrimFunc, call: relax.Call, target: Target) -> list[Task]:
    """The problems of a fused function that leave a choice."""
    asked: list[tuple[str, Any, Sequence[Any]]] = []

    def ask(template: str, problem: Any, decisions: Sequence[Any]) -> Any:
        asked.append((template, problem, decisions))
        return decisions[0]

    launches, _ = schedule(func, target, ask)
    flops = sum(launch.flops for launch in launches)
    return [
        Task(template, problem, problem_key(template, problem, target), decisions, flops, call, func)
        for template, problem, decisions in asked
        if len(decisions) > 1
    ]


def task_model(task: Task) -> Model:
    """A model of two layers: one that writes the activations, as the layer before does, and the task's.

    Weights are inputs, so that the image is small and only the weights' caches are cold.
    """
    builder = relax.BlockBuilder()
    params, args, layers = [], [], []
    for number, argument in enumerate(_tensors(task.call)):
        shape = tuple(int(dim) for dim in argument.ty.shape)
        params.append(relax.Var(f"input{number}", relax.TensorType(shape, str(argument.ty.dtype))))
    with builder.function("main", params):
        with builder.dataflow():
            for param, argument in zip(params, _tensors(task.call), strict=True):
                value = param
                if not isinstance(argument, GenericConst):
                    copy = builder.add_func(_copy(param), "copy")
                    value = builder.emit(relax.call_tir(copy, [param], param.ty))
                    layers.append(PRODUCER)
                args.append(value)
            func = builder.add_func(task.func.without_attr("global_symbol"), "tuned")
            result = builder.emit(relax.call_tir(func, args, task.call.ty))
            layers.append(TUNED)
            results = [result]
            if isinstance(task.call.ty, relax.TupleType):
                results = [
                    builder.emit(relax.TupleGetItem(result, i)) for i in range(len(task.call.ty.fields))
                ]
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    module = builder.finalize().with_attr(LAYERS_ATTR, layers)
    types = task.call.ty.fields if isinstance(task.call.ty, relax.TupleType) else [task.call.ty]
    outputs = tuple(_spec(f"output{number}", ty) for number, ty in enumerate(types))
    return Model(module, tuple(_spec(p.name, p.ty) for p in params), outputs, task.name)


def task_inputs(task: Task) -> list[np.ndarray[Any, Any]]:
    """Values of the inputs of a task's model: the model's own constants, random activations."""
    rng = np.random.default_rng(0)
    return [
        argument.value.numpy() if isinstance(argument, GenericConst) else _random(rng, argument.ty)
        for argument in _tensors(task.call)
    ]


def _random(rng: np.random.Generator, ty: Any) -> np.ndarray[Any, Any]:
    shape, dtype = tuple(int(dim) for dim in ty.shape), str(ty.dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith(("int", "uint")):
        limits = np.iinfo(np.dtype(dtype if dtype in ("int8", "uint8") else "int8"))
        return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    return rng.standard_normal(shape).astype(numpy_dtype(dtype))


def _tensors(call: relax.Call) -> list[relax.Expr]:
    return list(call.args[1].fields)


def _spec(name: str, ty: Any) -> TensorSpec:
    return TensorSpec(name, tuple(int(dim) for dim in ty.shape), DType.parse(str(ty.dtype)))


def _copy(param: relax.Var) -> tirx.PrimFunc:
    """A function that copies a tensor."""
    shape = tuple(int(dim) for dim in param.ty.shape)
    source = te.placeholder(shape, str(param.ty.dtype), name="source")
    func = te.create_prim_func([source, te.compute(shape, lambda *i: source(*i), name="copy")])
    return func.without_attr("global_symbol")
