"""Input arrays: made, read and written."""

import io
import zipfile

import numpy as np
import pytest

from tvm_ipu.base.errors import RunError
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.bench.data import fill, load_arrays, save_arrays

SPECS = [TensorSpec(dtype.label, (2, 50), dtype) for dtype in DType]


@pytest.mark.parametrize(("kind", "value"), [("zeros", 0), ("ones", 1)])
def test_constant_fill_of_every_type(kind, value):
    arrays = fill(SPECS, kind)
    assert [(str(a.dtype), a.shape) for a in arrays.values()] == [(s.dtype.label, s.shape) for s in SPECS]
    for array in arrays.values():  # the least exponent alone stands for 2**-127, and nothing for 0
        np.testing.assert_allclose(array.astype(np.float64), value, rtol=0, atol=2.0**-127)


def test_random_fill_is_repeatable_and_fits_every_type():
    first, again, other = fill(SPECS, "random"), fill(SPECS, "random"), fill(SPECS, "random", seed=1)
    for spec in SPECS:
        values = first[spec.name].astype(np.float64)
        assert str(first[spec.name].dtype) == spec.dtype.label
        assert values.min() >= 0
        assert values.max() <= 1
        assert len(np.unique(values)) > (2 if spec.dtype.is_float else 1)
        assert (values == again[spec.name].astype(np.float64)).all()
        assert (values != other[spec.name].astype(np.float64)).any()


def test_integers_of_a_range_of_their_own():
    specs = [TensorSpec(name, (1000,), DType.INT64) for name in ("words", "mask")]
    arrays = fill(specs, "random", ranges={"words": 500})
    assert 0 <= arrays["words"].min() < 5
    assert 495 <= arrays["words"].max() < 500
    assert set(arrays["mask"]) == {0, 1}


def test_arrays_survive_a_round_trip(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"x:0": np.arange(6).reshape(2, 3), "file": np.float32(2.5)[None], "layer/out": np.array(True)}
    save_arrays(path, arrays)
    loaded = load_arrays(path)
    assert list(loaded) == list(arrays)
    assert all(
        (loaded[name] == arrays[name]).all() and loaded[name].dtype == arrays[name].dtype for name in arrays
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def header(text):
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


def archive(kind=8, member=b"\x55" * 9):
    """An archive whose member is compressed in a way that is unknown, or whose data are damaged."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("x.npy", member)
    return out.getvalue().replace(b"\x14\0\0\0\0\0", b"\x14\0\0\0" + bytes([kind, 0]))


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 truncated",
        b"text",
        header("{'descr': '<f4', 'shape': (3"),
        header(HUGE % "2**40,"),
        header(HUGE % "1099511627776,"),
        header(HUGE % "-1,"),
        header(HUGE.replace("<f4", "|O") % "1,"),
        archive(),
        archive(kind=99),
        archive(kind=0, member=b"text"),
    ],
)
def test_damaged_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"a\.npz: not a file of numpy.savez"):
        load_arrays(path)


def test_missing_file(tmp_path):
    with pytest.raises(RunError, match=r"a\.npz: No such file"):
        load_arrays(tmp_path / "a.npz")


def test_single_array_has_no_name(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(RunError, match="without a name"):
        load_arrays(tmp_path / "a.npy")


def test_failed_write_names_the_file_and_leaves_nothing(tmp_path):
    folder = tmp_path / "missing"
    with pytest.raises(OSError, match="No such file") as caught:
        save_arrays(folder / "a.npz", {"x": np.zeros(3)})
    assert caught.value.filename == str(folder / "a.npz")
