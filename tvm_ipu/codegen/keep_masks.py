"""Hide masks of indices in scalar loops from LLVM's loop vectoriser.

    for i in range(16): y[i] = x[i % 4]      ->      for i in range(16): y[i] = x[opaque(i % 4)]

LLVM 22 takes ``i & 3`` for a counter that does not wrap and, with AVX-512, vectorises such loops into wrong
ones (ONNX's Tile of [2, 3, 4, 5] by [7, 6, 4, 2] as plain loops shows it). ``opaque`` costs nothing and
keeps the loop scalar. Kernels that are made with vectors are not concerned: LLVM leaves their loops alone.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.expressions import contains
from tvm_ipu.kernels.llvm import OPAQUE

_MODULO = (tirx.FloorMod, tirx.Mod)


def KeepMasks() -> tvm.transform.Pass:  # noqa: N802 (TVM names its passes like classes)
    """The pass; its place is after everything that simplifies."""

    def run(func: tirx.PrimFunc, _mod: tvm.ir.IRModule, _context: tvm.transform.PassContext) -> tirx.PrimFunc:
        if not contains(func.body, _MODULO, _is_mask):
            return func
        return func.with_body(tvm_ffi.structural_mutate(func.body, [(tirx.For, _loop)]))

    return tirx.transform.prim_func_pass(run, opt_level=0, name="KeepMasks")


def _loop(loop: tirx.For, mutator: Any) -> tirx.Stmt:
    """The loop, and what it contains, with masks hidden where there are no vectors."""
    if contains(loop.body, (tirx.Ramp, tirx.Broadcast)):
        return mutator.default_mutate(loop)
    return tvm_ffi.structural_map(loop, (_MODULO, _opaque))


def _opaque(node: Expr) -> Expr:
    return OPAQUE.call(node) if _is_mask(node) else node


def _is_mask(node: Any) -> bool:
    divisor = int(node.b) if isinstance(node.b, tirx.IntImm) else 0
    return divisor > 1 and divisor & (divisor - 1) == 0 and str(node.ty) == OPAQUE.dtype
