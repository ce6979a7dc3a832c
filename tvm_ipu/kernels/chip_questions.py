"""What statements may ask of the chip that they are compiled for: frontends write them and know no chip."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx

_REGISTERS_HOLD = "tvm_ipu_registers_hold"


def registers_hold(bits: int) -> tirx.PrimExpr:
    """Whether half of the chip's vector registers hold so many bits: the condition of an ``IfThenElse``."""
    return tirx.call_pure_extern("bool", _REGISTERS_HOLD, bits)


def answer(stmt: tirx.Stmt, register_bits: int) -> tirx.Stmt:
    """The statement with the branches that a chip with so many bits of vector registers takes.

    .. code-block:: none

        if tvm_ipu_registers_hold(4096): a    =>    a    where register_bits >= 8192
        else: b                               =>    b    elsewhere
    """

    def choose(branch: tirx.IfThenElse) -> tirx.Stmt:
        asked = branch.condition
        if getattr(getattr(asked, "op", None), "name", "") != "tirx.call_pure_extern":
            return branch
        name, bits = asked.args
        if name.value != _REGISTERS_HOLD:
            return branch
        chosen = branch.then_case if 2 * int(bits) <= register_bits else branch.else_case
        return tirx.Evaluate(0) if chosen is None else chosen

    return tvm_ffi.structural_map(stmt, (tirx.IfThenElse, choose))
