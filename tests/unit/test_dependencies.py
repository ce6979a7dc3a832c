"""The pair of TVM packages that this code is written against."""

from importlib.metadata import version


def test_tvm_and_its_ffi_fit_together():
    # The resolver would pick tvm-ffi 0.1.15.post2 for TVM 0.27. With it, converting a layout to one with a split
    # channel (NCHW16c) and creating a MetaSchedule TuneContext end the process with a segmentation fault, so
    # pyproject.toml pins the last release that works. Before moving either, try both of those.
    assert (version("apache-tvm"), version("apache-tvm-ffi")) == ("0.27.0.post1", "0.1.14.post1")
