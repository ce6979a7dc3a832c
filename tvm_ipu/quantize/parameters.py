"""Quantisation parameters as files: JSON, or Pickle read without running code.

Both hold a list of entries ``{"name": ..., "min": [...], "max": [...], "bit": ..., "data": ...}``;
``data`` is
optional: a constant's numbers.
"""

from __future__ import annotations

import json
import logging
import math
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ipu.base.errors import CalibrationError
from tvm_ipu.base.files import parse_json, whole_file
from tvm_ipu.base.graph import Array
from tvm_ipu.base.ranges import BITS, TensorRange
from tvm_ipu.quantize.pickles import read_pickle

FAR = 2.0**8
"""An imported range that differs from what was seen by more than this factor is not used."""

MODES = ("JSON", "Pickle")

_log = logging.getLogger(__name__)


def write_parameters(ranges: Iterable[TensorRange], path: Path, mode: str) -> None:
    """Write ranges.

    Args:
        ranges: What to write.
        path: File.
        mode: One of ``MODES``.

    Raises:
        CalibrationError: The file cannot be written.
    """
    entries = [_to_entry(one, mode == "JSON") for one in ranges]
    data = (json.dumps(entries, indent=1) + "\n").encode() if mode == "JSON" else pickle.dumps(entries)
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as err:
        raise CalibrationError(f"cannot write '{path}': {err.strerror}") from err


def read_parameters(path: Path) -> tuple[TensorRange, ...]:
    """Ranges of a file, JSON or Pickle; entries without ``min`` and ``max`` have none.

    Raises:
        CalibrationError: The file cannot be read, or is not a list of such entries.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise CalibrationError(f"cannot read '{path}': {err.strerror}") from err
    try:
        is_text = data.lstrip()[:1] in (b"[", b"{")
        entries = parse_json(data) if is_text else read_pickle(data)
    except ValueError as err:
        raise CalibrationError(f"'{path}' is not a file of quantisation parameters: {err}") from err
    return parse_entries(entries, str(path))


def parse_entries(entries: object, source: str) -> tuple[TensorRange, ...]:
    """Entries as ranges.

    Args:
        entries: A list of dictionaries.
        source: Where they come from, for messages.

    Raises:
        CalibrationError: They are not such a list.
    """
    if not isinstance(entries, list | tuple):
        raise CalibrationError(f"{source}: quantisation parameters are a list of entries")
    return tuple(_from_entry(entry, f"{source}: entry {number + 1}") for number, entry in enumerate(entries))


def merged(
    ranges: Mapping[str, TensorRange], imported: Iterable[TensorRange], told: set[str] | None = None
) -> dict[str, TensorRange]:
    """Ranges with imported ones in place of them where those are reasonable; a warning names the others.

    Args:
        ranges: Of the tensors that are quantised.
        imported: Those that the user gives.
        told: Names that no warning is needed for any more; those of this call are added.
    """
    told = set() if told is None else told
    found = dict(ranges)
    for one in imported:
        own = found.get(one.name)
        reason = "no tensor of that name is quantised" if own is None else _fault(one, own)
        if reason or own is None:
            if one.name not in told:
                _log.warning("quantisation parameters of '%s' are not used: %s", one.name, reason)
            told.add(one.name)
            continue
        kept = own if not one.low else replace(own, low=one.low, high=one.high)
        data = own.data if one.data is None else np.asarray(one.data, np.float32)
        found[one.name] = replace(kept, bits=one.bits or own.bits, data=data)
    return found


def _fault(one: TensorRange, own: TensorRange) -> str:
    """Why an imported range cannot be used; empty where it can."""
    numbers = (*one.low, *one.high)
    if one.bits and one.bits not in BITS:
        return f"bit is {one.bits}; allowed are {', '.join(map(str, BITS))}"
    if not all(math.isfinite(number) for number in numbers):
        return "min or max is not a finite number"
    if len(one.low) != len(one.high) or (numbers and len(one.low) not in (1, len(own.low))):
        return f"it has {len(one.low)} min and {len(one.high)} max for {len(own.low)} channels"
    if any(low > high for low, high in zip(one.low, one.high, strict=True)):
        return "min is above max"
    if numbers:
        seen, given = (max(map(abs, (*r.low, *r.high))) for r in (own, one))
        if seen > 0 and not seen / FAR <= given <= seen * FAR:
            return f"it reaches {given:g} where {seen:g} was seen"
    if one.data is not None and not np.isfinite(np.asarray(one.data, np.float64)).all():
        return "data has a number that is not finite"
    return ""


def _to_entry(one: TensorRange, plain: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": one.name,
        "min": list(one.low),
        "max": list(one.high),
        "bit": one.bits,
    }
    if one.data is not None:
        entry["data"] = np.asarray(one.data).tolist() if plain else np.asarray(one.data)
    return entry


def _from_entry(entry: object, label: str) -> TensorRange:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise CalibrationError(f"{label} is not a dictionary with a name")
    unknown = set(entry) - {"name", "min", "max", "bit", "data"}
    if unknown:
        raise CalibrationError(f"{label} ('{entry['name']}') has an unknown key '{min(map(str, unknown))}'")
    try:
        low, high = (_numbers(entry.get(key)) for key in ("min", "max"))
        data: Array | None = None if entry.get("data") is None else np.asarray(entry["data"], np.float32)
        return TensorRange(entry["name"], low, high, int(entry.get("bit") or 0), data)
    except (TypeError, ValueError, OverflowError) as err:
        raise CalibrationError(f"{label} ('{entry['name']}'): {err}") from err


def _numbers(value: Any) -> tuple[float, ...]:
    return () if value is None else tuple(float(one) for one in np.atleast_1d(np.asarray(value, np.float64)))
