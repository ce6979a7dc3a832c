"""What a task's function computes, from its definition: plain loops without a template, and a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm

from tvm_ipu.tune.tasks import Task

Array = np.ndarray[Any, Any]

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 4e-3, "bfloat16": 2e-2}
"""Allowed difference between two orders of summation, in units of the output's largest value; integers have
none. Winograd's transforms, which stay below 1e-4, set the one of float32."""


def expected_outputs(task: Task, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of a task's function, as TVM compiles its unscheduled loops for this machine."""
    func = task.func.with_attr("global_symbol", "main")
    built = tvm.compile(tvm.IRModule({"main": func}), target="llvm")
    outputs = [
        np.empty([int(dim) for dim in param.ty.shape], numpy_type(str(param.ty.dtype.dtype)))
        for param in func.params[len(inputs) :]
    ]
    tensors = [tvm.runtime.tensor(array) for array in (*inputs, *outputs)]
    built["main"](*tensors)
    return [tensor.numpy() for tensor in tensors[len(inputs) :]]


def numpy_type(name: str) -> np.dtype[Any]:
    """The numpy type of a TVM type."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


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
