"""What a task's function computes, from its definition: plain loops without a template, and a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.kernels.expressions import dtype_of, shape_of
from tvm_ipu.kernels.nests import read_nests, subfunction
from tvm_ipu.tune.tasks import Task

Array = np.ndarray[Any, Any]

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 4e-3, "bfloat16": 2e-2}
"""Allowed difference between two orders of summation, in units of the output's largest value; integers have
none. Winograd's transforms, which stay below 1e-4, set the one of float32."""


MAX_STEPS = 300_000_000
"""Innermost iterations of plain loops that are worth the wait, some seconds."""


def expected_outputs(task: Task, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of a task's function, as TVM compiles its unscheduled loops for this machine.

    Where that would take too long, for Winograd's definition above all, only the first columns are computed,
    and the arrays hold no more than those.
    """
    func, columns = _narrowed(task.func)
    known = dict(zip(task.func.params, inputs, strict=False))
    arrays = [
        known.get(param, np.empty(shape_of(param), numpy_dtype(dtype_of(param)))) for param in func.params
    ]
    built = tvm.compile(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}), target="llvm")
    tensors = {param: tvm.runtime.tensor(array) for param, array in zip(func.params, arrays, strict=True)}
    built["main"](*tensors.values())
    outputs = task.func.params[len(inputs) :]
    return [tensors[param].numpy()[..., : columns.get(param)] for param in outputs]


def _narrowed(func: tirx.PrimFunc) -> tuple[tirx.PrimFunc, dict[tirx.Buffer, int]]:
    """The function with fewer columns where it has too many iterations, and how many each output then has."""
    nests = read_nests(func) or []
    loops = [_loops(nest.stmt) for nest in nests]
    steps = [math.prod(int(loop.extent) for loop in one) for one in loops]
    if sum(steps) <= MAX_STEPS:
        return func, {}
    most = steps.index(max(steps))
    shape = shape_of(nests[most].writes[0])
    axis = len(shape) - 1
    columns = max(1, shape[-1] * MAX_STEPS // sum(steps))
    same = [shape_of(nest.writes[0]) == shape for nest in nests]
    cut = [
        replace(nest, stmt=_with_extent(one, axis, columns)) if alike else nest
        for nest, one, alike in zip(nests, loops, same, strict=True)
    ]
    written = [buffer for nest in nests for buffer in nest.writes]
    outputs = [param for param in func.params if param in written]
    narrow, _ = subfunction(cut, outputs)
    return narrow, {param: columns if shape_of(param) == shape else 0 for param in outputs}


def _loops(stmt: tirx.Stmt) -> list[tirx.For]:
    """The loops of a nest, outermost first: its block's axes in order."""
    loops = []
    while isinstance(stmt, tirx.For):
        loops.append(stmt)
        stmt = stmt.body
    return loops


def _with_extent(loops: Sequence[tirx.For], axis: int, extent: int) -> tirx.Stmt:
    """The nest with another extent of one loop."""
    stmt = loops[-1].body
    for number in reversed(range(len(loops))):
        loop = loops[number]
        size = tirx.IntImm(str(loop.extent.ty), extent) if number == axis else loop.extent
        stmt = tirx.For(loop.loop_var, loop.min, size, loop.kind, stmt, None, loop.annotations)
    return stmt


def is_close(value: Array, expected: Array) -> bool:
    """Whether two outputs agree: integers exactly, floats up to ``TOLERANCE``; NaN only where it must be."""
    if expected.dtype.name not in TOLERANCE:
        return bool(np.array_equal(value, expected))
    wide, known = value.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(wide), np.isfinite(known)):
        return False
    finite = np.isfinite(known)
    scale = float(np.max(np.abs(known[finite]), initial=0.0))
    error = float(np.max(np.abs(wide[finite] - known[finite]), initial=0.0))
    return error <= TOLERANCE[expected.dtype.name] * scale
