"""Runs offline images: the C library and a Python session over it. Imports neither TVM nor onnx."""

from tvm_ipu.runtime.session import CallTime, Session

__all__ = ["CallTime", "Session"]
