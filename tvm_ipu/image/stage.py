"""Stages of the fixed-point flow as files: the float model and the fixed model, ``.sim``.

The network is an ONNX model, the fixed one with ``QuantizeLinear`` and ``DequantizeLinear``; everything that
ONNX has no place for stands beside it. docs/stage-format.md describes the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import ImageError
from tvm_ipu.base.files import parse_json
from tvm_ipu.base.plain import from_plain
from tvm_ipu.base.ranges import BITS, Array, RangeTable, TensorRange
from tvm_ipu.image import schema
from tvm_ipu.image.container import Container, read_container, read_kind, write_container
from tvm_ipu.image.schema import Kind, SectionType

FLOAT, FIXED = "float", "fixed"
_KINDS = {FLOAT: Kind.FLOAT_STAGE, FIXED: Kind.FIXED_STAGE}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Stage:
    """A model between ``convert`` and ``compile``.

    Attributes:
        kind: ``FLOAT`` or ``FIXED``.
        model: ONNX ``ModelProto`` with static shapes and its weights inside.
        contract: What the raw bytes at inputs and outputs mean; empty where no configuration was given.
        target: Chip that it is for.
        ranges: How the tensors are quantised; empty in a float stage.
        metadata: Facts: versions, source file, options, how calibration went. Values that JSON has.
    """

    kind: str
    model: bytes
    contract: Contract = field(default_factory=Contract)
    target: str = ""
    ranges: RangeTable = field(default_factory=RangeTable)
    metadata: dict[str, object] = field(default_factory=dict)


def stage_kind(path: Path) -> str | None:
    """``FLOAT`` or ``FIXED``; None for a file that is no stage.

    Raises:
        ImageError: The file cannot be read.
    """
    kind = read_kind(path)
    return next((name for name, value in _KINDS.items() if value == kind), None)


def write_stage(stage: Stage, path: Path) -> None:
    """Write ``stage`` to ``path``; the file appears whole or not at all.

    Raises:
        ImageError: The file cannot be written, or metadata are not plain values.
    """
    ranges, data = _pack_ranges(stage.ranges)
    try:
        facts = {"target": stage.target, "facts": stage.metadata}
        sections = {
            SectionType.METADATA: _to_json(facts),
            SectionType.CONTRACT: _to_json(stage.contract.to_json()),
            SectionType.RANGES: _to_json(ranges),
            SectionType.RANGE_DATA: data,
            SectionType.MODEL: stage.model,
        }
    except (TypeError, ValueError) as err:
        raise ImageError(f"{path}: the stage holds what JSON cannot express: {err}") from err
    write_container(path, _KINDS[stage.kind], schema.STAGE_SECTIONS, sections)


def read_stage(path: Path, kind: str = "") -> Stage:
    """Read and check the stage at ``path``.

    Args:
        path: The file.
        kind: ``FLOAT`` or ``FIXED`` where only that will do.

    Raises:
        ImageError: The file is missing, something else, of a newer version or damaged.
    """
    kinds = (_KINDS[kind],) if kind else tuple(_KINDS.values())
    file = read_container(path, f"a {kind} stage" if kind else "a stage", kinds, schema.STAGE_SECTIONS)
    facts = _decode(file, SectionType.METADATA, lambda value: (str(value["target"]), dict(value["facts"])))
    data = file.section(SectionType.RANGE_DATA)
    return Stage(
        kind=next(name for name, value in _KINDS.items() if value == file.header["kind"]),
        model=bytes(file.section(SectionType.MODEL)),
        contract=_decode(file, SectionType.CONTRACT, Contract.from_json),
        target=facts[0],
        ranges=_decode(file, SectionType.RANGES, lambda value: _unpack_ranges(value, data)),
        metadata=facts[1],
    )


def _to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def _decode(file: Container, kind: SectionType, make: Callable[[Any], _T]) -> _T:
    try:
        return make(parse_json(bytes(file.section(kind))))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as err:
        name = kind.name.lower()
        raise file.error(f"the checksums agree but section {name} is not understood ({err})") from err


def _pack_ranges(table: RangeTable) -> tuple[dict[str, object], bytes]:
    """Plain values of a table, and the arrays that they point into."""
    data, rows = bytearray(), []
    for one in table.ranges.values():
        row: dict[str, object] = {"name": one.name, "low": one.low, "high": one.high, "bits": one.bits}
        if one.data is not None:
            array = np.ascontiguousarray(one.data, np.dtype(one.data.dtype).newbyteorder("<"))
            row["data"] = {"dtype": str(one.data.dtype), "shape": one.data.shape, "offset": len(data)}
            data += array.tobytes()
        rows.append(row)
    return {"ranges": rows, "facts": table.facts}, bytes(data)


def _unpack_ranges(value: dict[str, Any], data: memoryview) -> RangeTable:
    ranges = {}
    for row in value["ranges"]:
        array = None
        if row["bits"] not in BITS:
            raise ValueError(f"'{row['name']}' has {row['bits']} bits")
        if "data" in row:
            array = _unpack_array(row.pop("data"), data)
        one = from_plain(TensorRange, row)
        if len(one.low) != len(one.high):
            raise ValueError(f"'{one.name}' has {len(one.low)} least and {len(one.high)} largest numbers")
        ranges[one.name] = replace(one, data=array)
    return RangeTable(ranges, dict(value["facts"]))


def _unpack_array(place: dict[str, Any], data: memoryview) -> Array:
    shape, offset = tuple(map(int, place["shape"])), int(place["offset"])
    dtype = np.dtype(str(place["dtype"])).newbyteorder("<")
    if dtype.kind not in "fiu" or min(shape, default=0) < 0 or offset < 0:
        raise ValueError(f"an array of {dtype}{list(shape)} at {offset}")
    array = np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)
    return array.astype(dtype.newbyteorder("="))
