"""Who decides how a template cuts its problem: the template's own model, or what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Choose = Callable[[str, Any, Sequence[Any]], Any]
"""Called with a template's name, the problem and the template's decisions, the one that its model prefers
first; returns one of them. Problems and decisions are frozen dataclasses of numbers, strings, tuples and such
dataclasses, so that they can be written as JSON."""


def preferred(template: str, problem: Any, decisions: Sequence[Any]) -> Any:
    """The decision that the template's model prefers."""
    return decisions[0]
