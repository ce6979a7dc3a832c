"""Pickles of lists, dictionaries, numbers, texts and numpy's arrays, read without running what they name.

A pickle is a program that calls functions by their names. Here a name of numpy's stands for a function of
this file, which makes an array of plain numbers and nothing else; every other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_ipu.base.graph import Array

_NUMBER = re.compile(r"[fiu][1248]|b1")


def read_pickle(data: bytes) -> Any:
    """What ``data`` holds; arrays are objects that numpy takes for arrays.

    Raises:
        ValueError: It is no pickle, is damaged, or names something else than numpy's arrays.
    """
    try:
        for opcode, argument, _ in pickletools.genops(data):  # which sees that lengths do not leave the data
            if "PUT" in opcode.name and isinstance(argument, int) and argument > len(data):
                raise ValueError(f"it has no place {argument}")
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as err:  # the unpickler raises errors of all kinds on damaged data
        raise ValueError(str(err) or type(err).__name__) from err


class _DType:
    """Stands for ``numpy.dtype``: a number's kind and size, and its order of bytes."""

    def __init__(self, name: str, *_: object) -> None:
        if not _NUMBER.fullmatch(name):
            raise pickle.UnpicklingError(f"elements of type '{name}'")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an unknown order of bytes")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for ``numpy.ndarray``."""

    def __init__(self) -> None:
        self.array: Array = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _array(data, dtype, shape, "F" if is_fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.array if dtype is None else self.array.astype(dtype)


@dataclass(frozen=True)
class _Name:
    """The class that ``_reconstruct`` is called with."""


def _array(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> Array:
    if not isinstance(data, bytes | bytearray) or len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f"an array of {shape} elements whose data do not fit")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(data: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    found = _Array()
    found.array = _array(data, dtype, shape, order)
    return found


def _scalar(dtype: _DType, data: bytes) -> float:
    return float(_array(data, dtype, (1,), "C")[0])


_NAMES = {
    "dtype": _DType,
    "ndarray": _Name,
    "scalar": _scalar,
    "_frombuffer": _from_buffer,
    "_reconstruct": _reconstruct,
}
_MODULES = {
    "numpy",
    *(f"numpy.{core}.{module}" for core in ("core", "_core") for module in ("multiarray", "numeric")),
}


class _Unpickler(pickle.Unpickler):
    """Knows the names above."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _NAMES:
            return _NAMES[name]
        if (module, name) == ("_codecs", "encode"):  # how protocols 0 to 2 write bytes
            return _encode
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError(f"it refers to something outside: {pid}")


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1") if encoding == "latin1" else b""
