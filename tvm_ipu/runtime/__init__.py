"""Runs offline images: the C library and a Python session over it. Imports neither TVM nor onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm_ipu.runtime.session import CallTime as CallTime, Session as Session

__all__ = ["CallTime", "Session"]


def __getattr__(name: str) -> object:
    """Import the session when it is first used: building the library needs no numpy."""
    if name not in __all__:
        raise AttributeError(f"module 'tvm_ipu.runtime' has no attribute '{name}'")
    from tvm_ipu.runtime import session

    return getattr(session, name)
