"""Read and check a TensorFlow Lite file. The format is flatbuffers, which Python does not verify: this does.

What the file says is taken for true only where it lies inside the file and fits together; everything else
is an error. Positions are followed by the classes of the package ``tflite``, generated from the schema.
"""

from __future__ import annotations

import inspect
import math
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ipu.base.errors import ModelError
from tvm_ipu.base.files import read_model_file
from tvm_ipu.frontends.extras import require
from tvm_ipu.frontends.tflite.model import DTYPES, Array, Operator, Subgraph, Tensor, no_scale, numpy_type

MAX_RANK = 8
MAX_ELEMENTS = 2**31 - 1
IDENTIFIER = b"TFL3"

_CUSTOM = "CUSTOM"
_PACKED = "int4"


class Damaged(Exception):  # noqa: N818  a finding, which becomes a ModelError with the file's name
    """Something in the file cannot be; the text says what."""


def read_file(path: Path, signature: str = "") -> Subgraph:
    """The main graph of the file at ``path``.

    Args:
        path: The file.
        signature: Name of the signature whose graph is wanted; by default ``serving_default`` where there is
            one, else the first graph.

    Raises:
        ModelError: It is missing, truncated, damaged, no TensorFlow Lite model, or has no such signature.
    """
    return read_bytes(read_model_file(path), str(path), signature)


def read_bytes(buffer: bytes, label: str, signature: str = "") -> Subgraph:
    """The main graph of a file's bytes; ``label`` names it in messages.

    Raises:
        ModelError: As for ``read_file``.
    """
    if len(buffer) < 8 or buffer[4:8] != IDENTIFIER:
        raise ModelError(f"'{label}' is not a TensorFlow Lite model")
    try:
        return _Reader(buffer).main(signature)
    except Damaged as err:
        raise ModelError(f"'{label}' is truncated or damaged: {err}") from err
    except (struct.error, ValueError, TypeError, IndexError, OverflowError) as err:
        raise ModelError(f"'{label}' is truncated or damaged: a position lies outside the file") from err


class _Reader:
    """Follows the positions in one file."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._model = _schema().Model.GetRootAs(buffer, 0)
        self._codes = [self._code(code) for code in self._tables(self._model, "OperatorCodes")]
        self._buffers = self._tables(self._model, "Buffers")

    def main(self, signature: str) -> Subgraph:
        """The graph of a signature, or the first one."""
        graphs = self._length(self._model, "Subgraphs")
        if graphs == 0:
            raise Damaged("it has no subgraph")
        index = self._signature(signature)
        if not 0 <= index < graphs:
            raise Damaged(f"a signature is of subgraph {index}, it has {graphs}")
        return self._subgraph(self._model.Subgraphs(index))

    def _signature(self, wanted: str) -> int:
        found = {
            _text(one.SignatureKey()): int(one.SubgraphIndex())
            for one in self._tables(self._model, "SignatureDefs")
        }
        if wanted and wanted not in found:
            raise ModelError(f"the model has no signature '{wanted}'", f"it has {', '.join(found) or 'none'}")
        return found.get(wanted or "serving_default", 0)

    # -- flatbuffers --------------------------------------------------------------------------------

    def _length(self, table: Any, field: str, bytes_each: int = 4) -> int:
        """Length of a vector that lies inside the file."""
        length = int(getattr(table, field + "Length")())
        if length * bytes_each > len(self._buffer):
            raise Damaged(f"{field} has {length} elements, which is more than the file")
        return length

    def _tables(self, table: Any, field: str) -> list[Any]:
        return [getattr(table, field)(i) for i in range(self._length(table, field))]

    def _numbers(self, table: Any, field: str) -> Array:
        """A vector of numbers."""
        if getattr(table, field + "Length")() == 0:
            return np.zeros(0, np.int64)
        return np.asarray(getattr(table, field + "AsNumpy")())

    # -- parts of the model -------------------------------------------------------------------------

    def _code(self, code: Any) -> tuple[str, bool]:
        """Name of an operator, and whether it is a custom one."""
        number = max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))
        name = _names("BuiltinOperator").get(number)
        if name is None:
            return f"operator code {number}", True
        return (_text(code.CustomCode()) or _CUSTOM, True) if name == _CUSTOM else (name, False)

    def _subgraph(self, graph: Any) -> Subgraph:
        names = _unique()
        tensors = tuple(self._tensor(t, i, names) for i, t in enumerate(self._tables(graph, "Tensors")))

        def places(table: Any, field: str, least: int = 0) -> tuple[int, ...]:
            found = tuple(int(i) for i in self._numbers(table, field))
            if not all(least <= i < len(tensors) for i in found):
                raise Damaged(f"{field} names a tensor that is none of the {len(tensors)}")
            return found

        operators = []
        for index, one in enumerate(self._tables(graph, "Operators")):
            number = int(one.OpcodeIndex())
            if not 0 <= number < len(self._codes):
                raise Damaged(f"operator {index} has code {number} of {len(self._codes)}")
            code, is_custom = self._codes[number]
            inputs, outputs = places(one, "Inputs", -1), places(one, "Outputs")
            operators.append(Operator(code, index, inputs, outputs, self._options(one), is_custom))
        name = _text(graph.Name())
        found = Subgraph(name, tensors, places(graph, "Inputs"), places(graph, "Outputs"), tuple(operators))
        _check_order(found)
        return found

    def _tensor(self, tensor: Any, index: int, unique: Callable[[str], str]) -> Tensor:
        name = unique(_text(tensor.Name()) or f"tensor_{index}")
        dtype = _names("TensorType").get(int(tensor.Type()), f"type {tensor.Type()}").lower()
        shape = self._dims(tensor, "Shape", name)
        if any(d < 0 for d in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise Damaged(f"tensor '{name}' has the shape {list(shape)}")
        open_dims = tuple(d < 0 for d in self._dims(tensor, "ShapeSignature", name))
        data = None
        if (dtype in DTYPES or dtype == _PACKED) and not tensor.IsVariable() and tensor.Sparsity() is None:
            data = self._data(int(tensor.Buffer()), dtype, shape, name)
        scale, zero, axis = self._quantisation(tensor.Quantization(), shape, name)
        return Tensor(
            name,
            "int8" if dtype == _PACKED else dtype,
            shape,
            open_dims if len(open_dims) == len(shape) else (False,) * len(shape),
            data,
            scale,
            zero,
            axis,
            bool(tensor.IsVariable()),
        )

    def _dims(self, tensor: Any, field: str, name: str) -> tuple[int, ...]:
        found = self._numbers(tensor, field)
        if found.size > MAX_RANK:
            raise Damaged(f"tensor '{name}' has {found.size} dimensions")
        return tuple(int(d) for d in found)

    def _data(self, place: int, dtype: str, shape: tuple[int, ...], name: str) -> Array | None:
        """The value of a constant; None for a tensor that has none in the file."""
        if not 0 <= place < len(self._buffers):
            raise Damaged(f"tensor '{name}' has buffer {place} of {len(self._buffers)}")
        buffer = self._buffers[place]
        content = self._numbers(buffer, "Data").view(np.uint8) if buffer.DataLength() else None
        if content is None and buffer.Offset() > 1:  # files of more than 2 GB keep data behind the flatbuffer
            content = np.frombuffer(self._buffer, np.uint8, int(buffer.Size()), int(buffer.Offset()))
        if content is None:
            return None
        count = math.prod(shape)
        if dtype == _PACKED:
            return _nibbles(content, count, name).reshape(shape)
        form = numpy_type(dtype)
        assert form is not None
        if content.nbytes != count * form.itemsize:
            raise Damaged(f"tensor '{name}' has {content.nbytes} bytes, {list(shape)} of {dtype} has other")
        return content.view(form).reshape(shape)

    def _quantisation(self, found: Any, shape: tuple[int, ...], name: str) -> tuple[Array, Array, int]:
        if found is None or self._length(found, "Scale") == 0:
            return no_scale(), np.zeros(0, np.int64), 0
        scale = self._numbers(found, "Scale").astype(np.float32)
        zero = self._numbers(found, "ZeroPoint").astype(np.int64)
        axis = int(found.QuantizedDimension()) if scale.size > 1 else 0
        if scale.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scale.size):
            raise Damaged(f"tensor '{name}' has {scale.size} scales for dimension {axis} of {list(shape)}")
        if zero.size not in (0, 1, scale.size):
            raise Damaged(f"tensor '{name}' has {scale.size} scales and {zero.size} zero points")
        return scale, np.broadcast_to(zero if zero.size else np.int64(0), scale.shape), axis

    def _options(self, operator: Any) -> dict[str, Any]:
        """All options of an operator by name, vectors as tuples."""
        options: dict[str, Any] = {}
        for union, value in (
            ("BuiltinOptions", operator.BuiltinOptions()),
            ("BuiltinOptions2", operator.BuiltinOptions2()),
        ):
            kind = _names(union).get(int(getattr(operator, union + "Type")()), "NONE")
            if kind == "NONE" or value is None:
                continue
            options["kind"] = kind
            table = getattr(_schema(), kind)()
            table.Init(value.Bytes, value.Pos)
            for name in _scalars(kind):
                options[name] = getattr(table, name)()
            for name in _vectors(kind):
                self._length(table, name)
                options[name] = tuple(self._numbers(table, name).tolist())
        return options


def _schema() -> Any:
    """The classes of the schema."""
    return require("tflite", extra="tflite")


@cache
def _names(enumeration: str) -> dict[int, str]:
    """Names of an enumeration of the schema by number."""
    found = vars(getattr(_schema(), enumeration)).items()
    return {number: name for name, number in found if isinstance(number, int)}


@cache
def _scalars(kind: str) -> list[str]:
    """Names of the numbers in a class of the schema."""
    fields = _fields(kind)
    return [
        name
        for name, function in fields.items()
        if list(inspect.signature(function).parameters) == ["self"] and f"{name}Length" not in fields
        if not name.endswith(("Length", "IsNone", "AsNumpy"))
    ]


@cache
def _vectors(kind: str) -> list[str]:
    """Names of the vectors of numbers in a class of the schema."""
    fields = _fields(kind)
    return [name for name in fields if f"{name}AsNumpy" in fields]


def _fields(kind: str) -> dict[str, Callable[..., Any]]:
    found = vars(getattr(_schema(), kind)).items()
    return {n: f for n, f in found if n[0].isupper() and n != "Init" and inspect.isfunction(f)}


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _nibbles(content: Array, count: int, name: str) -> Array:
    """Integers of 4 bits, two a byte, the lower first, as int8."""
    if content.nbytes != (count + 1) // 2:
        raise Damaged(f"tensor '{name}' has {content.nbytes} bytes for {count} integers of 4 bits")
    pairs = np.stack([content & 15, content >> 4], -1).ravel()[:count].astype(np.int8)
    return np.where(pairs > 7, pairs - 16, pairs).astype(np.int8)


def _unique() -> Callable[[str], str]:
    """Gives names, with a number behind those that came before."""
    taken: dict[str, int] = {}

    def name(wanted: str) -> str:
        found = wanted
        while found in taken:
            taken[wanted] += 1
            found = f"{wanted}#{taken[wanted]}"
        taken[found] = 1
        return found

    return name


def _check_order(graph: Subgraph) -> None:
    """See that nothing is computed twice, and nothing is read before it is there."""
    made = set(graph.inputs)
    later = {i for operator in graph.operators for i in operator.outputs}
    for operator in graph.operators:
        for i in operator.inputs:
            if i >= 0 and i in later and i not in made:
                raise Damaged(
                    f"{graph.label(operator)} reads '{graph.tensors[i].name}' before it is computed"
                )
        for i in operator.outputs:
            if i in made or graph.tensors[i].data is not None:
                raise Damaged(
                    f"{graph.label(operator)} writes '{graph.tensors[i].name}', which exists already"
                )
            made.add(i)
