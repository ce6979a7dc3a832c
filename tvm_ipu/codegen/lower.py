"""Lower scheduled kernels to LLVM's input and compile them into one object file.

The calling convention of every kernel in an image is
``int32_t kernel(const uintptr_t *args, void *scratch, int32_t begin, int32_t end)``: ``args[i]`` is the
address of argument ``i``, ``scratch`` is memory private to the calling thread, and units ``[begin, end)`` of
the kernel's one parallel loop are computed (docs/decisions/0004-kernel-abi.md).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import transform as s_passes
from tvm.tirx import transform as t_passes

from tvm_ipu.base.program import ALIGNMENT
from tvm_ipu.base.target import Target
from tvm_ipu.codegen.keep_masks import KeepMasks
from tvm_ipu.codegen.keep_nans import KeepNans
from tvm_ipu.codegen.name_values import NameValues
from tvm_ipu.codegen.tvm_target import to_tvm, to_tvm_lowering
from tvm_ipu.kernels.llvm import import_functions
from tvm_ipu.kernels.mathlib import LowerMath

MAX_STACK_BYTES = {"global": 1024, "local": 8 * 1024}
"""By storage scope: a larger buffer that a kernel allocates goes to the thread's scratch memory, not to the
stack. Register tiles are ``local``; TVM would ask its runtime for a ``global`` buffer of more than 1 KB."""


_ARITHMETIC = (
    *(tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Min, tirx.Max),
    *(tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE),
)


@dataclass(frozen=True)
class LoweredKernel:
    """A kernel in LLVM's input form.

    Attributes:
        func: Function with the calling convention of the module's docstring.
        scratch_size: Bytes of scratch memory it needs.
    """

    func: tirx.PrimFunc
    scratch_size: int


def lower_kernel(
    func: tirx.PrimFunc, symbol: str, target: Target, unaligned: Collection[int] = ()
) -> LoweredKernel:
    """Lower one scheduled kernel and give it the image's calling convention.

    Args:
        func: Parameters are buffers; at most one parallel loop, outermost.
        symbol: Name of the function in the object file.
        target: Chip to lower for.
        unaligned: Parameters whose addresses need not be multiples of ``ALIGNMENT``.
    """
    chip = to_tvm_lowering(target)
    func = func.with_attr("tirx.noalias", True).with_attr("global_symbol", symbol)
    with chip, tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        mod = tvm.transform.Sequential(_passes(chip, target, func))(tvm.IRModule({symbol: func}))
        lowered = mod[symbol]
    func, scratch_size = _to_abi(lowered, symbol, target, unaligned)
    return LoweredKernel(func, scratch_size)


def compile_object(kernels: Sequence[LoweredKernel], target: Target) -> bytes:
    """Compile lowered kernels into one relocatable object file and return its bytes."""
    chip = to_tvm(target)
    mod = tvm.IRModule({str(k.func.attrs["global_symbol"]): import_functions(k.func) for k in kernels})
    finish = [
        t_passes.BindTarget(chip.with_host(chip)),
        t_passes.BF16StorageLegalize(),
        t_passes.LowerIntrin(),
    ]
    mod = tvm.transform.Sequential(finish)(mod)
    built = tvm.get_global_func("target.build.llvm")(mod, chip)
    # LLVM ends the process where a disk is full, so it writes to memory.
    with os.fdopen(os.memfd_create("kernels.o"), "rb") as file:
        built.write_to_file(f"/proc/self/fd/{file.fileno()}", "o")
        return file.read()


def _passes(chip: tvm.target.Target, target: Target, func: tirx.PrimFunc) -> list[tvm.transform.Pass]:
    """The lowering passes, in order: blocks away, buffers flat, vectors, math by polynomials, clean-up."""
    return [
        t_passes.BindTarget(chip.with_host(chip)),
        s_passes.CanonicalizeLoop(),
        s_passes.LowerInitBlock(),
        s_passes.PlanAndUpdateBufferAllocationLocation(),
        s_passes.ConvertBlocksToOpaque(),
        s_passes.LowerMatchBuffer(),
        s_passes.StmtSimplify(),
        s_passes.LowerOpaqueBlock(),
        t_passes.FlattenBuffer(),
        *([t_passes.BF16ComputeLegalize()] if _computes_in_bfloat16(func) else []),
        t_passes.NarrowDataType(32),
        s_passes.LoopPartition(),
        t_passes.VectorizeLoop(),
        LowerMath(target),
        NameValues(),
        t_passes.StorageRewrite(),
        t_passes.UnrollLoop(),
        t_passes.StmtSimplify(),
        s_passes.RewriteUnsafeSelect(),
        t_passes.CommonSubexprElim(),
        KeepMasks(),
        KeepNans(),
    ]


def _computes_in_bfloat16(func: tirx.PrimFunc) -> bool:
    """True when a kernel leaves arithmetic on bfloat16 to TVM.

    Kernels that convert its bits themselves must not meet TVM's legalisation, which makes float32 of their
    buffers.
    """
    found = False

    def look(node: Any) -> None:
        nonlocal found
        found = found or str(node.a.ty).startswith("bfloat16")

    tvm_ffi.structural_walk(func.body, (_ARITHMETIC, look))
    return found


def _to_abi(
    func: tirx.PrimFunc, symbol: str, target: Target, unaligned: Collection[int]
) -> tuple[tirx.PrimFunc, int]:
    """Replace buffer parameters by the argument array, the parallel loop by ``[begin, end)``."""
    word = f"uint{target.pointer_bits}"
    args_ptr = tirx.Var("args", tvm.ir.PointerType(tvm.ir.PrimType(word), "global"))
    scratch = tirx.Var("scratch", tvm.ir.PointerType(tvm.ir.PrimType("uint8"), "global"))
    begin, end = tirx.Var("begin", "int32"), tirx.Var("end", "int32")
    args = tirx.decl_buffer((len(func.params),), word, name="args_")

    prologue: list[tirx.Stmt] = [tirx.DeclBuffer(args, data=args_ptr)]
    for i, param in enumerate(func.params):
        # reinterpret wants 64 bits, whatever a pointer has
        address = tirx.Cast("uint64", tirx.BufferLoad(args, [tirx.IntImm("int32", i)]))
        pointer = tvm.ir.PointerType(param.ty.dtype, "global")
        prologue.append(tirx.DeclBuffer(param, data=tirx.reinterpret(pointer, address)))
        if "hvx" in target.isa and i not in unaligned:
            prologue.append(_aligned(param))

    body, scratch_size = _move_to_scratch(func.body, scratch)
    body, loops = _split_units(body, begin, end)
    if loops == 0:  # the only unit is unit 0; a caller never passes an empty range
        prologue.append(tirx.Evaluate(tirx.IntImm("int32", 0)))
    result = tirx.PrimFunc(
        [args_ptr, scratch, begin, end],
        tirx.SeqStmt([*prologue, body, tirx.Return(tirx.IntImm("int32", 0))]),
        ret_type=tvm.ir.PrimType("int32"),
    )
    return result.with_attr({"global_symbol": symbol, "tirx.noalias": True}), scratch_size


def _aligned(param: tirx.Buffer) -> tirx.Stmt:
    """Tell LLVM that the parameter's address is aligned; Hexagon takes what may not be in pieces."""
    return tirx.AttrStmt(
        param, "storage_alignment", tirx.IntImm("int32", ALIGNMENT), tirx.Evaluate(tirx.IntImm("int32", 0))
    )


def _split_units(body: tirx.Stmt, begin: tirx.Var, end: tirx.Var) -> tuple[tirx.Stmt, int]:
    """Make the outermost parallel loop run over ``[begin, end)``; parallel loops inside it become serial."""
    count = 0

    def outermost(loop: tirx.For) -> tirx.For:
        nonlocal count
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        count += 1
        return tirx.For(
            loop.loop_var, begin, end - begin, tirx.ForKind.SERIAL, loop.body, None, loop.annotations
        )

    body = tvm_ffi.structural_map(body, (tirx.For, outermost), order="pre")
    if count > 1:
        raise AssertionError(f"a kernel must have one parallel loop, found {count}")
    return body, count


def _move_to_scratch(body: tirx.Stmt, scratch: tirx.Var) -> tuple[tirx.Stmt, int]:
    """Place large allocations in the thread's scratch memory, one after the other."""
    offset = 0

    def place(alloc: tirx.AllocBuffer) -> tirx.Stmt:
        nonlocal offset
        dtype = tvm.DataType(alloc.buffer.ty.dtype.dtype)
        size = (dtype.bits + 7) // 8 * dtype.lanes
        for extent in alloc.buffer.ty.shape:
            size *= int(extent)
        if size <= MAX_STACK_BYTES[alloc.buffer.scope()]:
            return alloc
        start = offset
        offset += (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        address: Any = tirx.handle_add_byte_offset(scratch, tirx.IntImm("int32", start))
        pointer = tvm.ir.PointerType(alloc.buffer.ty.dtype, "global")
        return tirx.DeclBuffer(alloc.buffer, data=tirx.reinterpret(pointer, address))

    return tvm_ffi.structural_map(body, (tirx.AllocBuffer, place)), offset
