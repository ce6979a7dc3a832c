"""Let clamps keep NaN, as ONNX's operators do.

    max(x, 0)      ->      max(0, x)

TVM's back end makes ``x > 0 ? x : 0`` of the one, which turns NaN into 0, and ``0 > x ? 0 : x`` of the other.
Each is one instruction.
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx
from tvm.tirx import Expr


def KeepNans() -> tvm.transform.Pass:  # noqa: N802 (TVM names its passes like classes)
    """The pass; its place is after everything that simplifies."""

    def run(func: tirx.PrimFunc, _mod: tvm.ir.IRModule, _context: tvm.transform.PassContext) -> tirx.PrimFunc:
        return func.with_body(tvm_ffi.structural_map(func.body, ((tirx.Max, tirx.Min), _bound_first)))

    return tirx.transform.prim_func_pass(run, opt_level=0, name="KeepNans")


def _bound_first(node: Expr) -> Expr:
    bound = node.b.value if isinstance(node.b, tirx.Broadcast) else node.b
    return type(node)(node.b, node.a) if isinstance(bound, tirx.FloatImm) else node
