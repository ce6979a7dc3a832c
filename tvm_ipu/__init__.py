"""Compiles a trained network into one file for a chip, and runs that file.

The names below are the public API; everything else may change at any time. They are loaded when first
used, so that ``from tvm_ipu import Session`` imports neither TVM nor onnx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvm_ipu.base.errors import (
        ImageError as ImageError,
        ModelError as ModelError,
        OptionError as OptionError,
        RunError as RunError,
        TargetError as TargetError,
        ToolError as ToolError,
        TvmIpuError as TvmIpuError,
        UnsupportedOperatorError as UnsupportedOperatorError,
    )
    from tvm_ipu.base.options import CompileOptions as CompileOptions
    from tvm_ipu.base.target import Target as Target, load_target as load_target, target_names as target_names
    from tvm_ipu.base.tensor import DType as DType, TensorSpec as TensorSpec
    from tvm_ipu.conversion import convert_model as convert_model
    from tvm_ipu.driver import (
        CompileReport as CompileReport,
        compile_model as compile_model,
        export_onnx as export_onnx,
        tune_model as tune_model,
    )
    from tvm_ipu.frontends.options import LoadOptions as LoadOptions
    from tvm_ipu.inspection import inspect_file as inspect_file, inspect_model as inspect_model
    from tvm_ipu.runtime import Session as Session
    from tvm_ipu.tune.tuner import TuneOptions as TuneOptions, TuneReport as TuneReport

__version__ = "0.1.0"

_HOME = {
    "CompileOptions": "tvm_ipu.base.options",
    "CompileReport": "tvm_ipu.driver",
    "DType": "tvm_ipu.base.tensor",
    "ImageError": "tvm_ipu.base.errors",
    "LoadOptions": "tvm_ipu.frontends.options",
    "ModelError": "tvm_ipu.base.errors",
    "OptionError": "tvm_ipu.base.errors",
    "RunError": "tvm_ipu.base.errors",
    "Session": "tvm_ipu.runtime",
    "Target": "tvm_ipu.base.target",
    "TargetError": "tvm_ipu.base.errors",
    "TensorSpec": "tvm_ipu.base.tensor",
    "ToolError": "tvm_ipu.base.errors",
    "TuneOptions": "tvm_ipu.tune.tuner",
    "TuneReport": "tvm_ipu.tune.tuner",
    "TvmIpuError": "tvm_ipu.base.errors",
    "UnsupportedOperatorError": "tvm_ipu.base.errors",
    "compile_model": "tvm_ipu.driver",
    "convert_model": "tvm_ipu.conversion",
    "export_onnx": "tvm_ipu.driver",
    "inspect_file": "tvm_ipu.inspection",
    "inspect_model": "tvm_ipu.inspection",
    "load_target": "tvm_ipu.base.target",
    "target_names": "tvm_ipu.base.target",
    "tune_model": "tvm_ipu.driver",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'tvm_ipu' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
