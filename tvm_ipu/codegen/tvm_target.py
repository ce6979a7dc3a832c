"""A target in TVM's terms."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import tvm

from tvm_ipu.base.target import Target

_ABI: dict[str, dict[str, str]] = {
    "arm": {"mfloat-abi": "hard"},
    "riscv64": {"mabi": "lp64d"},
}
"""Options that fix the C calling convention where the triple alone does not."""

_MIN_VECTOR_WIDTH = 128
"""TVM's own default, with a warning, where it finds no vector registers."""


@lru_cache(maxsize=None)
def to_tvm(target: Target) -> tvm.target.Target:
    """The LLVM target that generates code for ``target``.

    Raises:
        ValueError: TVM does not know the triple or the CPU, which is a mistake in the target's file.
    """
    config: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": target.triple,
        "num-cores": target.cores,
        "vector-width": max(target.vector_bits, _MIN_VECTOR_WIDTH),
    }
    config.update(_ABI.get(target.arch, {}))
    if target.cpu:
        config["mcpu"] = target.cpu
    if target.features:
        config["mattr"] = list(target.features)
    return tvm.target.Target(config)
