"""Values of ``TensorProto``: inside the model file or, memory-mapped, in files beside it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from tvm_ipu.base.errors import ModelError
from tvm_ipu.frontends.onnx.graph import CHECK, Array

DENSE_LIMIT = 2**31
"""Bytes that a sparse tensor may have as a dense array."""


def read_tensor(tensor: TensorProto, folder: Path) -> Array:
    """The tensor's value.

    Args:
        tensor: With its data inside, or external.
        folder: Folder of the model file; external data must lie in it or below.

    Returns:
        An array; for external data of whole-byte types a view of the mapped file, which nothing writes to.

    Raises:
        ModelError: The data are damaged, or the external file is missing, too short, or outside ``folder``.
    """
    if tensor.data_location == TensorProto.EXTERNAL:
        return _read_external(tensor, folder)
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError) as err:
        raise ModelError(
            f"initializer '{tensor.name}': its data do not fit its type and shape: {err}", CHECK
        ) from err


def densify(sparse: SparseTensorProto, folder: Path) -> Array:
    """The dense array of a sparse tensor in coordinate format (linear or per-axis indices).

    Raises:
        ModelError: The data are damaged, or the dense array would be larger than ``DENSE_LIMIT``.
    """
    values, indices = read_tensor(sparse.values, folder), read_tensor(sparse.indices, folder)
    shape, label = tuple(sparse.dims), f"sparse initializer '{sparse.values.name}'"
    if min(shape, default=0) < 0 or math.prod(shape) * values.itemsize > DENSE_LIMIT:
        raise ModelError(f"{label} has shape {list(shape)}; it would take more than 2 GB")
    dense = np.zeros(shape, values.dtype)
    try:
        where = np.unravel_index(indices, shape) if indices.ndim == 1 else tuple(indices.T)
        dense[where] = values
    except (ValueError, IndexError, TypeError) as err:
        raise ModelError(f"{label}: its indices do not fit its values and shape: {err}") from err
    return dense


def _read_external(tensor: TensorProto, folder: Path) -> Array:
    info = {entry.key: entry.value for entry in tensor.external_data}
    path = _external_path(tensor.name, info.get("location", ""), folder)
    dtype, shape = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)), tuple(tensor.dims)
    packed = PACKED_BITS.get(tensor.data_type, 8 * dtype.itemsize)
    size = (math.prod(shape) * packed + 7) // 8
    try:
        offset = int(info.get("offset", 0))
        length = int(info.get("length", size))
    except ValueError as err:
        raise ModelError(
            f"initializer '{tensor.name}': its offset or length in '{path}' is no number"
        ) from err
    if length != size:
        raise ModelError(
            f"initializer '{tensor.name}' has {length} bytes in '{path.name}', but its type and shape need "
            f"{size}",
            "save the model and its external data again, together",
        )
    available = path.stat().st_size - offset
    if offset < 0 or available < size:
        raise ModelError(
            f"external data file '{path}' is too short: initializer '{tensor.name}' needs bytes {offset} to "
            f"{offset + size}, the file has {path.stat().st_size}",
            "copy the file again; it was probably truncated",
        )
    if size == 0:
        return np.empty(shape, dtype)
    if packed < 8:
        raw = np.fromfile(path, np.uint8, size, offset=offset)
        inline = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes())
        return np.asarray(numpy_helper.to_array(inline))
    mapped: Array = np.memmap(path, np.uint8, "c", offset, (size,))
    values: Array = mapped.view(dtype).reshape(shape)
    return values


PACKED_BITS = {
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
}
"""Bits of the element types of which several share a byte."""


def _external_path(name: str, location: str, folder: Path) -> Path:
    try:
        path = (folder / location).resolve()
        is_inside = bool(location) and path.is_relative_to(folder.resolve())
        is_there = path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, or with a zero in it
        is_inside = False
    if not is_inside:
        raise ModelError(
            f"initializer '{name}': its data file '{location}' is not in the model's folder",
            "external data must lie beside the model or below",
        )
    if not is_there:
        raise ModelError(
            f"external data file '{path}' is missing (initializer '{name}' is in it)",
            "put it beside the model file",
        )
    return path
