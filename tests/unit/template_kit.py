"""Run a tensor expression through kernel selection, lowering and LLVM on this machine.

Every tensor ends right at a page that cannot be touched, so that an access past its end stops the test run.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tvm import te

from tvm_ipu.base.host import host_arch, read_host
from tvm_ipu.base.target import Target, load_target
from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.codegen.lower import compile_object, lower_kernel
from tvm_ipu.kernels.decisions import Choose, preferred
from tvm_ipu.kernels.launch import Launch
from tvm_ipu.kernels.select import schedule

SCALAR = replace(load_target("x86-64-v2"), name="x86-64-scalar", vector_bits=0, vector_registers=16)
TARGETS = {
    16: load_target("x86-64-v4"),
    8: load_target("x86-64-v3"),
    4: load_target("x86-64-v2"),
    1: SCALAR,
}
"""Targets whose kernels run on an x86-64 machine with AVX-512, by float32 lanes."""


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """All values of an 8-bit type, small ones of a wider integer type, normally distributed floats."""
    kind = numpy_dtype(dtype)
    if kind.kind not in "iu":
        return rng.standard_normal(shape).astype(kind)
    limits = np.iinfo(np.int8 if kind.itemsize > 1 else kind)
    return rng.integers(limits.min, limits.max + 1, shape).astype(kind)


def guarded(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that end at a page without access rights."""
    page = mmap.PAGESIZE
    size = math.prod(shape) * dtype.itemsize
    pages = -(-size // page) * page
    memory = mmap.mmap(-1, pages + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start + pages), page, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    return np.frombuffer(memory, dtype, math.prod(shape), pages - size).reshape(shape)


def evaluate(
    inputs: dict[te.Tensor, np.ndarray], output: te.Tensor, target: Target, choose: Choose = preferred
) -> tuple[np.ndarray, list[Launch]]:
    """Value of ``output`` and the launches that computed it."""
    func = te.create_prim_func([*inputs, output], index_dtype_override="int64")
    launches, temps = schedule(func, target, choose)
    arrays = []
    for value in inputs.values():
        arrays.append(guarded(value.shape, value.dtype))
        arrays[-1][...] = value
    shape = tuple(int(dim) for dim in output.shape)
    arrays.append(guarded(shape, numpy_dtype(str(output.dtype))))
    temporaries = [guarded(shape, numpy_dtype(dtype)) for shape, dtype in temps]
    for launch in launches:
        run_launch(
            launch, [(arrays if kind == "param" else temporaries)[i] for kind, i in launch.args], target
        )
    return arrays[-1], launches


def run_launch(launch: Launch, arrays: list[np.ndarray], target: Target) -> None:
    """Run a kernel in two parts, the later units first; skip the test where the machine cannot."""
    missing = sorted(set(target.requires) - read_host().features)
    if missing or host_arch() != target.arch:
        pytest.skip(f"{target.name} needs {', '.join(missing) or target.arch}")
    lowered = lower_kernel(launch.func, "kernel", target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.o"
        path.write_bytes(compile_object([lowered], target))
        library = path.with_suffix(".so")
        subprocess.run(["cc", "-shared", "-Wl,-z,defs", "-o", library, path], check=True)
        kernel = ctypes.CDLL(str(library))["kernel"]
    addresses = (ctypes.c_size_t * len(arrays))(*(a.ctypes.data for a in arrays))
    scratch = guarded((max(lowered.scratch_size, 64),), np.dtype("uint8"))
    half = launch.extent // 2
    for begin, end in ((half, launch.extent), (0, half)):
        if begin < end:
            assert kernel(addresses, ctypes.c_void_p(scratch.ctypes.data), begin, end) == 0
