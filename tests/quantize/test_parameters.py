"""Quantisation parameters in files, and which of them are used."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tvm_ipu.base.errors import CalibrationError
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.quantize.parameters import MODES, merged, read_parameters, write_parameters

OWN = {
    "x": TensorRange("x", (-1.0,), (3.0,)),
    "w": TensorRange("w", (-1.0, -2.0), (1.0, 2.0)),
}


@pytest.mark.parametrize("mode", MODES)
def test_round_trip(tmp_path: Path, mode: str):
    data = np.arange(4, dtype=np.float32).reshape(2, 2)
    ranges = [OWN["x"], TensorRange("w", (-1.0, -2.0), (1.0, 2.0), 16, data)]
    write_parameters(ranges, tmp_path / "file", mode)
    x, w = read_parameters(tmp_path / "file")
    assert x == OWN["x"]
    assert (w.name, w.low, w.high, w.bits) == ("w", (-1.0, -2.0), (1.0, 2.0), 16)
    assert np.array_equal(w.data, data)


def test_the_documented_form_is_read(tmp_path: Path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"name": "a", "min": [-4.5, 2], "max": [7.3, 3], "bit": 8}]))
    assert read_parameters(path) == (TensorRange("a", (-4.5, 2.0), (7.3, 3.0), 8),)


class _Attack:
    def __reduce__(self):
        return (os.system, ("touch attacked",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps([{"name": _Attack()}]),
        pickle.dumps(np.array([_Attack()], object)),
        b"",
        b"nonsense",
        b"[1, 2",
        b'{"name": "x"}',
        b'[{"min": [1]}]',
        b'[{"name": "x", "mim": [1]}]',
        b'[{"name": "x", "min": ["one"]}]',
        pickle.dumps([{"name": "x"}])[:-4],
        b"[" * 100_000,
        b'[{"name": "x", "bit": Infinity}]',
        b"\x80\5\x96" + (2**62).to_bytes(8, "little") + b".",  # a bytearray of that size
        b"\x80\5]r\xff\xff\xff\x7f.",  # a memo of that many places
        pickle.dumps(np.zeros(3, np.float32)).replace(b"K\3\x85", b"J\xff\xff\xff\x7f\x85"),
        pickle.dumps(np.zeros(3, "M8[s]")),
    ],
)
def test_files_that_are_no_parameters(tmp_path: Path, content: bytes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "p"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=str(path)):
        read_parameters(path)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (TensorRange("z", (0.0,), (1.0,)), "'z' are not used: no tensor of that name"),
        (TensorRange("x", (np.nan,), (1.0,)), "'x' are not used: min or max is not a finite number"),
        (TensorRange("x", (2.0,), (1.0,)), "min is above max"),
        (TensorRange("x", (0.0, 0.0), (1.0, 1.0)), "2 min and 2 max for 1 channels"),
        (TensorRange("w", (0.0,), (1.0, 1.0)), "1 min and 2 max for 2 channels"),
        (TensorRange("x", (0.0,), (1000.0,)), "reaches 1000 where 3 was seen"),
        (TensorRange("x", (0.0,), (0.001,)), "reaches 0.001 where 3 was seen"),
        (TensorRange("x", (0.0,), (1.0,), 7), "bit is 7"),
        (TensorRange("x", (), (), 8, np.array([np.inf])), "data has a number that is not finite"),
    ],
)
def test_unreasonable_entries_are_named_and_not_used(entry: TensorRange, reason: str, caplog):
    with caplog.at_level(logging.WARNING):
        assert merged(OWN, [entry]) == OWN
    assert reason in caplog.text


def test_imported_values_win():
    found = merged(OWN, [TensorRange("x", (-2.0,), (2.0,), 16), TensorRange("w", (), (), 4)])
    assert found["x"] == TensorRange("x", (-2.0,), (2.0,), 16)
    assert found["w"] == TensorRange("w", (-1.0, -2.0), (1.0, 2.0), 4)
