"""16-bit floats in memory: kernels move them as they are and compute with them in float32.

bfloat16 is always uint16 to a kernel: TVM's own legalisation of it does not reach everywhere.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import ml_dtypes
import numpy as np
import tvm_ffi
from tvm import ir, tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import dtype_of, is_branch
from tvm_ipu.kernels.fusion.ops import Op
from tvm_ipu.kernels.half import is_half


def storage_dtype(dtype: str, moves_only: bool) -> str:
    """Type of a kernel's parameter for elements of ``dtype``.

    Args:
        dtype: Type in the fused function.
        moves_only: Whether the kernel computes nothing with 16-bit floats; LLVM might convert them.
    """
    return "uint16" if dtype == "bfloat16" or (dtype == "float16" and moves_only) else dtype


def local_dtype(dtype: str, moves_only: bool) -> str:
    """Type of what stays within a kernel: computed numbers are not rounded to 16 bits."""
    if not is_half(dtype):
        return dtype
    return "uint16" if moves_only else "float32"


def is_stored_half(buffer: tirx.Buffer, local: Container[tirx.Buffer]) -> bool:
    """Whether a buffer of 16-bit floats is in memory outside of the kernel."""
    return buffer not in local and is_half(dtype_of(buffer))


def has_half(op: Op) -> bool:
    """Whether 16-bit floats occur in an operation."""
    found = any(is_half(dtype_of(target)) for target in op.targets)

    def visit(node: Expr) -> None:
        nonlocal found
        found = found or is_half(str(node.ty))

    for value in op.values:
        tvm_ffi.structural_walk(value, (tirx.Expr, visit))
    return found


def is_movement(op: Op, local: Container[tirx.Buffer]) -> bool:
    """Whether an operation only moves 16-bit floats, from memory to memory."""
    if op.accumulators or not all(is_stored_half(target, local) for target in op.targets):
        return False
    return all(_is_moved(value, local) for value in op.values)


def _is_moved(value: Expr, local: Container[tirx.Buffer]) -> bool:
    if isinstance(value, ir.TensorLoad):
        return is_stored_half(value.source, local)
    if isinstance(value, tirx.Select):
        return _is_moved(value.true_value, local) and _is_moved(value.false_value, local)
    if is_branch(value):
        return all(_is_moved(side, local) for side in value.args[1:])
    return isinstance(value, tirx.FloatImm)


def as_stored(value: Expr, stored: str) -> Expr:
    """A movement of floats as a movement of what kernels see of them, of type ``stored``."""

    def immediate(node: tirx.FloatImm) -> Expr:
        if stored != "uint16":
            return node
        kind = ml_dtypes.bfloat16 if str(node.ty) == "bfloat16" else np.float16
        with np.errstate(over="ignore"):
            bits = np.array(float(node.value)).astype(kind).view(np.uint16)
        return tirx.const(int(bits), "uint16")

    def select(node: tirx.Select) -> Expr:
        return tirx.Select(node.condition, node.true_value, node.false_value)

    def branch(node: ir.Call) -> Expr:
        return tirx.if_then_else(*node.args) if is_branch(node) else node

    return tvm_ffi.structural_map(
        value, [(tirx.FloatImm, immediate), (tirx.Select, select), (ir.Call, branch)]
    )


def widened(load: ir.TensorLoad, kinds: Mapping[tirx.Buffer, str]) -> Expr:
    """An element that is loaded; as float32 from a buffer of 16-bit floats."""
    kind = kinds.get(load.source)
    if kind is None:
        return load
    if kind == "float16":
        return tirx.Cast("float32", load)
    return tirx.reinterpret("float32", tirx.shift_left(tirx.Cast("uint32", load), _u32(16)))


def wide_variable(var: tirx.Var) -> tirx.Var:
    """A variable for a number, of 32 bits if it has 16."""
    return tirx.Var(var.name, "float32") if is_half(str(var.ty)) else var


def wide_constant(value: Expr) -> Expr:
    """A constant, of 32 bits if it has 16."""
    return tirx.const(value.value, "float32") if is_half(str(value.ty)) else value


def narrowed(value: Expr, kind: str) -> Expr:
    """A float32 variable rounded to what kernels see of ``kind``, to nearest even; a NaN stays one."""
    if kind == "float16":
        return tirx.Cast("float16", value)
    bits = tirx.reinterpret("uint32", value)
    odd = tirx.bitwise_and(tirx.shift_right(bits, _u32(16)), _u32(1))
    rounded = tirx.shift_right(bits + (odd + _u32(0x7FFF)), _u32(16))
    quiet = tirx.bitwise_or(tirx.shift_right(bits, _u32(16)), _u32(0x40))
    is_nan = tirx.bitwise_and(bits, _u32(0x7FFFFFFF)) > _u32(0x7F800000)
    return tirx.Cast("uint16", tirx.Select(is_nan, quiet, rounded))


def _u32(value: int) -> Expr:
    return tirx.const(value, "uint32")
