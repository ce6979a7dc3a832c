"""Files that appear whole or not at all, and files that people give."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tvm_ipu.base.errors import ModelError, OptionError

_SPACE = "free some space, or write to another disk"
_PERMISSION = "check the permissions of the file and of its folder"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file, and should be a folder",
    errno.EISDIR: "name a file in it",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "write to another disk: this one is mounted for reading",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
}


def advice(err: OSError) -> str:
    """What to do about a file that cannot be read or written; empty where that is not known."""
    return _ADVICE.get(err.errno or 0, "")


@contextmanager
def whole_file(path: Path, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` at the end, and is removed after a failure.

    What ``path`` links to is replaced, not the link; a device or a pipe is written to.

    Args:
        path: The file.
        sync: Wait until the disk has it.

    Raises:
        OSError: It cannot be written; the exception names ``path``.
    """
    real = Path(os.path.realpath(path))
    is_special = real.exists() and not real.is_file()
    temporary = real.with_name(f".{real.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with (real if is_special else temporary).open("wb") as file:
            yield file
            if sync and not is_special:
                file.flush()
                os.fsync(file.fileno())
        if not is_special:
            temporary.replace(real)
    except OSError as err:
        err.filename, err.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_output(option: str, output: Path | None, *inputs: Path | None) -> None:
    """Refuse an output that is one of the files it is made from.

    Raises:
        OptionError: It is.
    """
    for path in inputs:
        if path is not None and output is not None and _same_file(path, output):
            raise OptionError(
                f"{option}: '{output}' is a file that this command reads",
                "give another name: it would be lost",
            )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.is_file() and one.samefile(other)
    except OSError:
        return False


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
        raise ModelError(f"'{path}' is empty", "was it copied or downloaded completely?")
    return content
