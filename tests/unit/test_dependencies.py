"""The pair of TVM packages that this code is written against."""

from importlib.metadata import version

from tvm_ipu.base.doctor import TVM_PAIR


def test_tvm_and_its_ffi_fit_together():
    # The resolver would pick tvm-ffi 0.1.15.post2 for TVM 0.27. With it, converting a layout to one of split
    # channels (NCHW16c) and creating a MetaSchedule TuneContext end the process with a segmentation fault, so
    # pyproject.toml pins the last release that works. Before moving either, try both of those.
    assert {name: version(name) for name in TVM_PAIR} == TVM_PAIR
    assert TVM_PAIR == {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
