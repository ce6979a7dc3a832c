"""A target in TVM's terms."""

from __future__ import annotations

from functools import cache
from typing import Any

import tvm

from tvm_ipu.base.target import Target

_ABI: dict[str, dict[str, str]] = {
    "arm": {"mfloat-abi": "hard"},
    "riscv64": {"mabi": "lp64d"},
}
"""Options that fix the C calling convention where the triple alone does not."""

_MIN_VECTOR_WIDTH = 128
"""TVM's own default, which it announces with a warning, where it finds no vector registers."""

_SCALABLE = {"+v", "+sve", "+sve2"}
"""Features with which TVM's passes turn vector loops of a known length into mostly scalar loops of a length
known at run time; LLVM maps vectors of a known length to the same registers well."""


@cache
def to_tvm(target: Target) -> tvm.target.Target:
    """The LLVM target that generates code for ``target``.

    Raises:
        ValueError: TVM does not know the triple or the CPU, which is a mistake in the target's file.
    """
    return _make(target, target.features)


@cache
def to_tvm_lowering(target: Target) -> tvm.target.Target:
    """The target for the passes before code generation, which keep vectors at the length they were given."""
    return _make(target, tuple(f for f in target.features if f not in _SCALABLE))


def _make(target: Target, features: tuple[str, ...]) -> tvm.target.Target:
    config: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": target.triple,
        "num-cores": target.cores,
        "vector-width": max(target.vector_bits, _MIN_VECTOR_WIDTH),
    }
    config.update(_ABI.get(target.arch, {}))
    if target.cpu:
        config["mcpu"] = target.cpu
    if features:
        config["mattr"] = list(features)
    return tvm.target.Target(config)
