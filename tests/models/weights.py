"""Weight files as numpy arrays, without the frameworks that wrote them."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[Any]]

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_TYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
_SAFETENSORS_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "BOOL": "?"}


def read_torch(path: Path) -> Weights:
    """A state_dict in PyTorch's format before 1.6: pickles, then the bytes of each storage."""
    with path.open("rb") as file:
        unpickler = _StateDictUnpickler
        if unpickler(file).load() != _TORCH_MAGIC:
            raise ValueError(f"{path} is not a PyTorch file of the old format")
        unpickler(file).load()  # protocol version
        unpickler(file).load()  # sizes of C types
        loader = unpickler(file)
        tensors = loader.load()
        for key in unpickler(file).load():
            storage = loader.storages[key]
            count = int.from_bytes(file.read(8), "little")
            storage[:] = np.frombuffer(file.read(count * storage.itemsize), storage.dtype)
    return dict(tensors)


def read_safetensors(path: Path) -> Weights:
    """A safetensors file: the header's length, a JSON header, the tensors' bytes."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[slice(*info["data_offsets"])], _SAFETENSORS_TYPES[info["dtype"]])
        .reshape(info["shape"])
        .copy()
        for name, info in header.items()
    }


class _StateDictUnpickler(pickle.Unpickler):
    """Builds dictionaries of arrays; anything else in the file is refused."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if module == "torch" and name in _TORCH_TYPES:
            return _TORCH_TYPES[name]
        raise pickle.UnpicklingError(f"a state_dict has no {module}.{name}")

    def persistent_load(self, reference: Any) -> NDArray[Any]:
        _, dtype, key, _, count, _ = reference
        return self.storages.setdefault(key, np.zeros(count, dtype))


def _strided(
    storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    """A view of the storage, which is filled later."""
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)
