"""Files that appear whole or not at all, and files that people give."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tvm_ipu.base.errors import ModelError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` at the end, and is removed after a failure.

    Raises:
        OSError: It cannot be written; the exception names ``path``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except OSError as err:
        err.filename, err.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text from a file that a user gave.

    Raises:
        ValueError: It is none, or is nested deeper than Python's parser goes.
    """
    try:
        return json.loads(text)
    except RecursionError as err:
        raise ValueError("it is nested too deep") from err


def read_model_file(path: Path, kind: str = "model file", size: int = -1) -> bytes:
    """The bytes of a file that a user gave.

    Args:
        path: The file.
        kind: What it should be, for messages.
        size: How many bytes; all of them by default.

    Raises:
        ModelError: It is missing, a folder, empty, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(size)
    except FileNotFoundError as err:
        raise ModelError(f"{kind} '{path}' does not exist") from err
    except IsADirectoryError as err:
        raise ModelError(f"'{path}' is a folder", f"give the {kind} in it") from err
    except OSError as err:
        raise ModelError(f"cannot read {kind} '{path}': {err.strerror}") from err
    if not content:
        raise ModelError(f"'{path}' is empty")
    return content
