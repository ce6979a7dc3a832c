"""Arrays of ``numpy.save`` and ``numpy.savez`` from files that users give: plain numbers, nothing is run."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_FAULTS = (EOFError, SyntaxError, OverflowError, NotImplementedError, RuntimeError, TokenError, TypeError)


def read_arrays(path: Path) -> Array | dict[str, Array]:
    """The array of a ``.npy`` file, or those of an ``.npz`` file by name; its content says which it is.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is neither, is damaged, or holds something else than numbers, truth values or text.
    """
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
            file.seek(0)
            if not is_archive:
                return _read(file, path.stat().st_size)
            with zipfile.ZipFile(file) as archive:
                members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
                return {name: _member(archive, one) for name, one in members.items()}
    except (*_FAULTS, zipfile.BadZipFile, zlib.error) as err:
        raise ValueError(str(err) or type(err).__name__) from err


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as file:
        return _read(file, info.file_size)  # type: ignore[arg-type]


def _read(file: BinaryIO, size: int) -> Array:
    """One array, no larger than the file that it is in."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an array of format {version[0]}.{version[1]}; known are 1.0 and 2.0")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"an array of {dtype}{list(shape)} in {size} bytes: it is truncated or damaged")
    file.seek(0)
    found: Array = np.lib.format.read_array(file, allow_pickle=False)
    return found
