"""Dataclasses from the plain values of a JSON file, with every type looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_plain(kind: type[T], data: Mapping[str, Any]) -> T:
    """A dataclass of strings, numbers, truth values and tuples of them.

    Args:
        kind: The dataclass.
        data: Values by field; lists become tuples, and fields with defaults may be missing.

    Raises:
        TypeError: ``data`` is no mapping, has an unknown key, or lacks one, or a value has another type.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"{kind.__name__} is {data!r}, not a mapping")
    types, names = get_type_hints(kind), {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for key, value in data.items():
        if key not in names:
            raise TypeError(f"{kind.__name__} has an unknown key '{key}'")
        if not _fits(value, types[key]):
            raise TypeError(f"{kind.__name__}: '{key}' is {value!r:.100}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})


def _fits(value: object, wanted: Any) -> bool:
    if get_origin(wanted) is tuple:
        return isinstance(value, list | tuple) and all(_fits(one, get_args(wanted)[0]) for one in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is wanted
