"""Samples that lie one after another in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvm_ipu.base.errors import RunError
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.bench.data import split_samples

SPECS = (TensorSpec("x", (2, 3), DType.FLOAT32), TensorSpec("n", (), DType.INT64))
FILE = Path("samples.npz")


def test_samples_are_parts_of_the_first_dimension() -> None:
    x = np.arange(18, dtype=np.float32).reshape(6, 3)
    found = split_samples({"x": x, "n": np.array([4, 5, 6])}, SPECS, FILE)
    assert [sample["x"].tolist() for sample in found] == [x[i : i + 2].tolist() for i in (0, 2, 4)]
    assert [int(sample["n"]) for sample in found] == [4, 5, 6]


@pytest.mark.parametrize(
    ("x", "n", "message"),
    [
        (np.zeros((5, 3)), np.zeros(1), "'x' has shape"),
        (np.zeros((2, 4)), np.zeros(1), "'x' has shape"),
        (np.zeros((0, 3)), np.zeros(1), "'x' has shape"),
        (np.zeros((4, 3)), np.zeros(1), "different numbers of samples"),
        (np.zeros((2, 3)), None, "no array 'n'"),
    ],
)
def test_what_does_not_fit_is_refused(x: np.ndarray, n: np.ndarray | None, message: str) -> None:
    arrays = {"x": x} if n is None else {"x": x, "n": n}
    with pytest.raises(RunError, match=message):
        split_samples(arrays, SPECS, FILE)
