"""Keep intermediate values in variables of their own, one local buffer each, instead of ``Let`` and ``Bind``.

    C[i] = let t = x * x in t + t        ->       t_ = alloc_buffer((1,))
                                                  t_[0] = x * x
                                                  C[i] = t_[0] + t_[0]

TVM's analyzer puts the value of a bound variable in place of each of its uses, which takes time exponential
in the depth of a polynomial (minutes for one sigmoid), in its passes and again in its LLVM back end. It does
not look into buffers, and LLVM keeps them in registers. Truth values are bytes there: as bits, TVM's LLVM
back end reads other lanes than it wrote. ``Bind`` of scalar integers, which are what indices are made of,
stays. So does a ``Let`` inside ``if_then_else``: what it loads may lie outside the buffer unless the
condition holds.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call

_IF_THEN_ELSE = "prim.if_then_else"


def NameValues() -> tvm.transform.Pass:  # noqa: N802 (TVM names its passes like classes)
    """The pass; its place is after VectorizeLoop, before anything that simplifies."""

    def run(func: tirx.PrimFunc, _mod: tvm.ir.IRModule, _context: tvm.transform.PassContext) -> tirx.PrimFunc:
        return func.with_body(_Namer().run(func.body))

    return tirx.transform.prim_func_pass(run, opt_level=0, name="NameValues")


class _Namer:
    def __init__(self) -> None:
        self._loads: dict[tirx.Var, Any] = {}
        self._before: list[list[tirx.Stmt] | None] = [None]
        """Statements to put before the current one; None where nothing may be moved out."""

    def run(self, body: tirx.Stmt) -> tirx.Stmt:
        callbacks = [
            (tirx.SeqStmt, self._sequence),
            (tirx.Bind, self._bind),
            ((tirx.BufferStore, tirx.Evaluate), self._statement),
            (tirx.Let, self._let),
            (Call, self._call),
            (tirx.Var, self._var),
        ]
        return tvm_ffi.structural_mutate(body, callbacks)

    def _sequence(self, stmt: tirx.SeqStmt, mutator: Any) -> tirx.Stmt:
        flat: list[tirx.Stmt] = []
        for one in stmt.seq:
            new = mutator.mutate(one)
            flat.extend(new.seq if isinstance(new, tirx.SeqStmt) else [new])
        return tirx.SeqStmt(flat)

    def _bind(self, stmt: tirx.Bind, mutator: Any) -> tirx.Stmt:
        if not _is_value(stmt.var):
            return self._statement(stmt, mutator)
        self._before.append([])
        self._name(stmt.var, mutator.mutate(stmt.value))
        return tirx.SeqStmt(self._before.pop())

    def _statement(self, stmt: tirx.Stmt, mutator: Any) -> tirx.Stmt:
        self._before.append([])
        new = mutator.default_mutate(stmt)
        before = self._before.pop()
        return tirx.SeqStmt([*before, new]) if before else new

    def _let(self, expr: Any, mutator: Any) -> Any:
        if self._before[-1] is None:
            return mutator.default_mutate(expr)
        self._name(expr.var, mutator.mutate(expr.value))
        return mutator.mutate(expr.body)

    def _call(self, call: Call, mutator: Any) -> Any:
        if getattr(call.op, "name", "") != _IF_THEN_ELSE:
            return mutator.default_mutate(call)
        self._before.append(None)
        new = mutator.default_mutate(call)
        self._before.pop()
        return new

    def _var(self, var: tirx.Var, _mutator: Any) -> Any:
        return self._loads.get(var, var)

    def _name(self, var: tirx.Var, value: Any) -> None:
        """Store ``value`` in a buffer that stands for ``var`` from here on."""
        dtype = str(var.ty)
        stored = dtype.replace("bool", "int8")
        buffer = tirx.decl_buffer((1,), stored, name=var.name, scope="local")
        zero = [tirx.IntImm("int32", 0)]
        before = self._before[-1]
        assert before is not None
        before += [tirx.AllocBuffer(buffer), tirx.BufferStore(buffer, value.astype(stored), zero)]
        self._loads[var] = tirx.BufferLoad(buffer, zero).astype(dtype)


def _is_value(var: tirx.Var) -> bool:
    """True for floats and vectors."""
    return isinstance(var.ty, tvm.ir.PrimType) and (var.ty.dtype.lanes > 1 or "float" in str(var.ty))
