"""Arrays that go into a model and come out of it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.arrays import read_arrays
from tvm_ipu.base.errors import RunError
from tvm_ipu.base.files import whole_file
from tvm_ipu.base.tensor import TensorSpec, numpy_dtype

Array = NDArray[Any]

_SAVEZ = "save it with numpy.savez(path, name=array)"

FILLS = ("random", "zeros", "ones")


def fill(
    specs: Iterable[TensorSpec], kind: str, seed: int = 0, ranges: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Arrays for all ``specs``: zeros, ones, or the same random values each time.

    Random floats are uniform in [0, 1). Random integers are 0 or 1, which suits indices, masks and tokens.

    Args:
        specs: What to make.
        kind: One of ``FILLS``.
        seed: Another seed gives other random values.
        ranges: By name: how many integers, from 0 on, to draw from instead of two.
    """
    rng = np.random.default_rng(seed)

    def array(spec: TensorSpec) -> Array:
        if kind != "random":
            constant = np.ones if kind == "ones" else np.zeros
            return constant(spec.shape, numpy_dtype(spec.dtype.label))
        if spec.dtype.is_float:
            return rng.random(spec.shape).astype(numpy_dtype(spec.dtype.label))
        values = rng.integers(0, (ranges or {}).get(spec.name, 2), spec.shape)
        return np.asarray(values, numpy_dtype(spec.dtype.label))

    return {spec.name: array(spec) for spec in specs}


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file by name.

    Raises:
        RunError: The file is missing or is no ``.npz`` file of plain arrays.
    """
    try:
        arrays = read_arrays(path)
    except OSError as err:
        raise RunError(f"{path}: {err.strerror or err}") from err
    except ValueError as err:
        raise RunError(f"{path}: not a file of numpy.savez with plain arrays ({err})", _SAVEZ) from err
    if isinstance(arrays, np.ndarray):
        raise RunError(f"{path}: one array without a name", _SAVEZ)
    return arrays


def split_samples(
    arrays: Mapping[str, Array], specs: Iterable[TensorSpec], source: Path
) -> list[dict[str, Array]]:
    """Samples that lie one after another along the first dimension of each array.

    Args:
        arrays: One array for each of ``specs``, of its shape or several times as long in the first dimension.
        specs: A model's inputs.
        source: File that the arrays come from, for messages.

    Raises:
        RunError: An input has no array, or one of another shape or of another number of samples.
    """
    parts: dict[str, list[Array]] = {}
    for spec in specs:
        if spec.name not in arrays:
            raise RunError(f"{source}: there is no array '{spec.name}'", f"it holds {', '.join(arrays)}")
        array, size = arrays[spec.name], (spec.shape or (1,))[0]
        whole = array.reshape(-1) if not array.ndim else array
        if whole.shape[1:] != spec.shape[1:] or not len(whole) or len(whole) % size:
            raise RunError(f"{source}: '{spec.name}' has shape {array.shape}, the model needs {spec.shape}")
        parts[spec.name] = [part.reshape(spec.shape) for part in np.split(whole, len(whole) // size)]
    counts = {name: len(found) for name, found in parts.items()}
    if len(set(counts.values())) > 1:
        raise RunError(f"{source}: inputs have different numbers of samples: {counts}")
    return [{name: parts[name][i] for name in parts} for i in range(max(counts.values(), default=1))]


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write ``arrays`` as an ``.npz`` file, which appears whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    # numpy.savez would take an array called "file" for its own argument
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
