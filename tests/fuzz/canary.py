"""An object whose pickle calls a function when it is opened without care; the function notes the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

sung: list[str] = []


def sing() -> list[float]:
    """What must never be called."""
    sung.append("a function that the file names was called")
    return [0.0]


class Canary:
    """Is pickled as a call of ``sing``."""

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return sing, ()
