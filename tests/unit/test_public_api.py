"""The public API: its names, where they come from, and what importing it costs."""

import subprocess
import sys

import tvm_ipu


def test_names_are_pinned():
    assert sorted(tvm_ipu.__all__) == [
        "CompileOptions",
        "CompileReport",
        "DType",
        "ImageError",
        "LoadOptions",
        "ModelError",
        "OptionError",
        "RunError",
        "Session",
        "Target",
        "TargetError",
        "TensorSpec",
        "ToolError",
        "TuneOptions",
        "TuneReport",
        "TvmIpuError",
        "UnsupportedOperatorError",
        "__version__",
        "compile_model",
        "convert_model",
        "export_onnx",
        "inspect_file",
        "inspect_model",
        "load_target",
        "target_names",
        "tune_model",
    ]


def test_every_name_is_there():
    for name in tvm_ipu.__all__:
        assert getattr(tvm_ipu, name) is not None


def test_session_needs_neither_tvm_nor_onnx():
    program = "import sys, tvm_ipu; tvm_ipu.Session; print({'tvm', 'onnx'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"
