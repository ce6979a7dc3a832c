"""The C library seen through ctypes: its structures, its functions and its errors."""

from __future__ import annotations

import ctypes
from functools import cache

from tvm_ipu.base.errors import ImageError, RunError, TvmIpuError
from tvm_ipu.runtime.build import native_library

API_VERSION = 1
VERIFY_WEIGHTS = 1
ALIGNMENT = 64
"""Of memory that is bound to an input or output, in bytes."""
_IMAGE_STATUS = range(1, 6)
"""Statuses that blame the image: IO, FORMAT, VERSION, ARCH and CPU_FEATURE."""


class Error(ctypes.Structure):
    """``tvm_ipu_error``."""

    _fields_ = (("status", ctypes.c_int), ("message", ctypes.c_char * 380), ("hint", ctypes.c_char * 128))


class Tensor(ctypes.Structure):
    """``tvm_ipu_tensor``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_uint32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_size_t),
        ("format", ctypes.c_char_p),
        ("scale", ctypes.c_float),
        ("zero", ctypes.c_int32),
    )


class Call(ctypes.Structure):
    """``tvm_ipu_call``."""

    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("layer", ctypes.c_char_p),
        ("op", ctypes.c_char_p),
        ("template_name", ctypes.c_char_p),
        ("flops", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("extent", ctypes.c_int32),
        ("grain", ctypes.c_int32),
    )


class Plan(ctypes.Structure):
    """``tvm_ipu_plan``."""

    _fields_ = (
        ("inputs", ctypes.POINTER(Tensor)),
        ("outputs", ctypes.POINTER(Tensor)),
        ("calls", ctypes.POINTER(Call)),
        ("input_count", ctypes.c_uint32),
        ("output_count", ctypes.c_uint32),
        ("call_count", ctypes.c_uint32),
        ("arena_size", ctypes.c_size_t),
        ("scratch_size", ctypes.c_size_t),
    )


_VOID, _SIZE, _U32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
_ERROR = ctypes.POINTER(Error)
_NS = ctypes.POINTER(ctypes.c_uint64)
_FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "api_version": (_U32, ()),
    "image_open_file": (ctypes.c_int, (ctypes.c_char_p, _U32, ctypes.POINTER(_VOID), _ERROR)),
    "image_open_memory": (ctypes.c_int, (_VOID, _SIZE, _U32, ctypes.POINTER(_VOID), _ERROR)),
    "image_close": (None, (_VOID,)),
    "image_plan_count": (_U32, (_VOID,)),
    "image_target": (ctypes.c_char_p, (_VOID,)),
    "image_metadata": (_VOID, (_VOID, ctypes.POINTER(_SIZE))),
    "session_create": (ctypes.c_int, (_VOID, _U32, _U32, ctypes.POINTER(_VOID), _ERROR)),
    "session_destroy": (None, (_VOID,)),
    "session_plan": (ctypes.POINTER(Plan), (_VOID,)),
    "session_bind_input": (ctypes.c_int, (_VOID, _U32, _VOID, _SIZE, _ERROR)),
    "session_bind_output": (ctypes.c_int, (_VOID, _U32, _VOID, _SIZE, _ERROR)),
    "session_set_input": (ctypes.c_int, (_VOID, _U32, _VOID, _SIZE, _ERROR)),
    "session_get_output": (ctypes.c_int, (_VOID, _U32, _VOID, _SIZE, _ERROR)),
    "session_run": (ctypes.c_int, (_VOID, _ERROR)),
    "session_time_runs": (ctypes.c_int, (_VOID, _U32, _NS, _ERROR)),
    "session_profile": (ctypes.c_int, (_VOID, _NS, _ERROR)),
}


@cache
def load_library() -> ctypes.CDLL:
    """The library, built if need be, with the types of its functions declared.

    Raises:
        ToolError: It has to be built and cannot be.
        RunError: A prebuilt one has another version.
    """
    path = native_library()
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, f"tvm_ipu_{name}")
        function.restype, function.argtypes = result, arguments
    version = int(library.tvm_ipu_api_version())
    if version != API_VERSION:
        raise RunError(f"{path} has API version {version}, not {API_VERSION}", "install tvm_ipu again")
    return library


def call(name: str, *arguments: object) -> None:
    """Call a function that reports a status.

    Raises:
        ImageError: The image is missing, damaged, or for another version or machine.
        RunError: Any other failure.
    """
    error = Error()
    if getattr(load_library(), f"tvm_ipu_{name}")(*arguments, ctypes.byref(error)):
        kind: type[TvmIpuError] = ImageError if error.status in _IMAGE_STATUS else RunError
        raise kind(error.message.decode(errors="replace"), error.hint.decode(errors="replace"))
