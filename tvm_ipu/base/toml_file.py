"""Read a TOML file whose keys are the fields of a dataclass."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from tvm_ipu.base.errors import TargetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    """All keys of a file.

    Raises:
        TargetError: The file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise TargetError(f"{path}: cannot be read: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise TargetError(f"{path}: not a TOML file: {err}") from err


def checked(
    path: Path, data: Mapping[str, Any], kind: type, allowed: Mapping[str, tuple[object, ...]], omit: set[str]
) -> dict[str, Any]:
    """The file's values as the types of a dataclass's fields.

    Args:
        path: For messages.
        data: The file's keys.
        kind: The dataclass.
        allowed: Legal values of some keys; of every element where the value is a list.
        omit: Fields that are no keys.

    Raises:
        TargetError: A key is unknown, missing, wrongly typed or of a value that is not allowed.
    """
    known = [field for field in fields(kind) if field.name not in omit]
    types = {field.name: str(field.type) for field in known}
    values = {}
    for key, value in data.items():
        if key not in types:
            raise TargetError(f"{path}: unknown key '{key}'", f"allowed are {', '.join(sorted(types))}")
        values[key] = _convert(path, key, value, types[key], allowed)
    for field in known:
        if field.default is MISSING and field.name not in values:
            raise TargetError(f"{path}: key '{field.name}' is missing")
    return values


def _convert(
    path: Path, key: str, value: object, wanted: str, allowed: Mapping[str, tuple[object, ...]]
) -> object:
    """A value from the file as the field's type, ``wanted``."""
    if wanted == "str":
        valid = isinstance(value, str)
    elif wanted == "int":
        valid = _is_count(value)
    else:
        valid = isinstance(value, list) and all(
            _is_count(item) if "int" in wanted else isinstance(item, str) for item in value
        )
    if not valid:
        kind = {"str": "a string", "int": "a number, 0 or more"}.get(wanted, "a list of strings")
        kind = "a list of numbers" if wanted.startswith("tuple[int") else kind
        raise TargetError(f"{path}: key '{key}' is {value!r} but must be {kind}")
    items = value if isinstance(value, list) else [value]
    if key in allowed and not set(items) <= set(allowed[key]):
        raise TargetError(
            f"{path}: key '{key}' is {value!r}", f"allowed are {', '.join(map(str, allowed[key]))}"
        )
    if isinstance(value, list):
        return frozenset(value) if wanted.startswith("frozenset") else tuple(value)
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
