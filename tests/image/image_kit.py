"""Small programs with kernels written in C, for tests of the image and the runtime without the compiler."""

from __future__ import annotations

import functools
import platform
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.image.elf import flatten
from tvm_ipu.base.program import Arg, Call, Plan, Program, Space
from tvm_ipu.base.target import Target
from tvm_ipu.base.tensor import DType, TensorSpec

KERNELS = """
#include <stdint.h>
#define KERNEL(name) \
    __attribute__((visibility("default"))) \
    int32_t name(const uintptr_t *args, void *scratch, int32_t begin, int32_t end)

/* out[i] = a[i] + b[i] */
KERNEL(add) {
  const float *a = (const float *)args[0], *b = (const float *)args[1];
  float *out = (float *)args[2];
  for (int32_t i = begin; i < end; i++) out[i] = a[i] + b[i];
  return 0;
}
/* out[i] = table[index[i]] */
KERNEL(gather) {
  const float *table = (const float *)args[0];
  const int32_t *index = (const int32_t *)args[1];
  float *out = (float *)args[2];
  for (int32_t i = begin; i < end; i++) out[i] = table[index[i]];
  return 0;
}
/* out[i] = 2 a[i], through the thread's own scratch memory of 64 floats */
KERNEL(twice) {
  const float *a = (const float *)args[0];
  float *out = (float *)args[1];
  volatile float *tile = scratch;
  for (int32_t i = begin; i < end; i += 64) {
    int32_t n = end - i < 64 ? end - i : 64;
    for (int32_t j = 0; j < n; j++) tile[j] = 2 * a[i + j];
    for (int32_t j = 0; j < n; j++) out[i + j] = tile[j];
  }
  return 0;
}
/* out[i] = a[i], 16-bit elements */
KERNEL(copy16) {
  const uint16_t *a = (const uint16_t *)args[0];
  uint16_t *out = (uint16_t *)args[1];
  for (int32_t i = begin; i < end; i++) out[i] = a[i];
  return 0;
}
KERNEL(broken) { return 7; }
"""


def host_target(**changes: object) -> Target:
    """A target for this machine that needs no CPU feature, with ``changes``."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    facts: dict[str, object] = {
        "name": "test-host",
        "description": "this machine",
        "arch": machine,
        "triple": f"{machine}-unknown-linux-gnu",
        "pointer_bits": struct.calcsize("P") * 8,
    }
    return Target(**(facts | changes))


@functools.cache
def code(*compiler: str) -> tuple[bytes, dict[str, int]]:
    """Memory image and symbols of ``KERNELS``, by ``compiler`` or for this machine."""
    command = compiler or (shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or "cc",)
    with tempfile.TemporaryDirectory() as folder:
        source, shared = Path(folder, "k.c"), Path(folder, "k.so")
        source.write_text(KERNELS)
        flags = ["-shared", "-nostdlib", "-fPIC", "-O2", "-fvisibility=hidden", "-Wl,-z,max-page-size=64"]
        if not compiler:
            flags += [
                "-fno-tree-loop-distribute-patterns",
                "-Wl,-z,noseparate-code,-z,norelro,--build-id=none",
            ]
        subprocess.run([*command, *flags, "-o", shared, source], check=True)
        return flatten(shared.read_bytes())


def call(kernel: str, *args: Arg, extent: int, grain: int | None = None, layer: str = "") -> Call:
    """A call that is split among threads where ``grain`` is given."""
    return Call(
        kernel=kernel,
        args=args,
        extent=extent,
        grain=max(1, extent) if grain is None else grain,
        layer=layer or f"/{kernel}",
        op=kernel,
        template="generic",
        flops=extent,
        bytes=4 * extent,
    )


def sample_program(
    n: int = 1000, grain: int = 16, compiler: tuple[str, ...] = (), **target: object
) -> Program:
    """``y = 2 * (x + bias)`` and ``z = y[index]`` for float32 vectors of ``n``, in plan 1 of ``2 n``.

    ``bias`` lies in the weights, the reversing ``index`` in the constants, the sum in the arena.
    """
    machine_code, symbols = code(*compiler)
    bias = np.arange(2 * n, dtype=np.float32)
    plans, consts = [], b""
    for size in (n, 2 * n):
        step = -(-4 * size // 64) * 64
        index = np.arange(size, dtype=np.int32)[::-1]
        start = len(consts)
        consts += index.tobytes() + bytes(-4 * size % 64)
        whole = 4 * size
        plans.append(
            Plan(
                inputs=(TensorSpec("x", (size,), DType.FLOAT32),),
                outputs=(TensorSpec("y", (size,), DType.FLOAT32), TensorSpec("z", (1, size), DType.FLOAT32)),
                input_offsets=(0,),
                output_offsets=(step, 2 * step),
                calls=(
                    call(
                        "add",
                        Arg(Space.INPUT, 0, 0, whole),
                        Arg(Space.WEIGHTS, 0, 0, whole),
                        Arg(Space.ARENA, 0, 3 * step, whole),
                        extent=size,
                        grain=grain,
                    ),
                    call(
                        "twice",
                        Arg(Space.ARENA, 0, 3 * step, whole),
                        Arg(Space.OUTPUT, 0, 0, whole),
                        extent=size,
                        grain=grain,
                    ),
                    call(
                        "gather",
                        Arg(Space.OUTPUT, 0, 0, whole),
                        Arg(Space.CONSTS, 0, start, whole),
                        Arg(Space.OUTPUT, 1, 0, whole),
                        extent=size,
                    ),
                ),
                arena_size=4 * step,
                scratch_size=256,
                tensor_bytes=whole,
            )
        )
    return Program(
        target=host_target(**target),
        plans=tuple(plans),
        code=machine_code,
        symbols=symbols,
        weights=bias.tobytes(),
        consts=consts,
        metadata={"model": "sample", "größe": n},
    )


def sample_result(x: np.ndarray) -> dict[str, np.ndarray]:
    """What ``sample_program`` computes, in numpy."""
    y = 2 * (x.astype(np.float64) + np.arange(x.size))
    return {"y": y.astype(np.float32), "z": y.astype(np.float32)[None, ::-1]}


def elementwise_program(kernel: str, dtype: DType, shape: tuple[int, ...]) -> Program:
    """``y = kernel(x)`` on one tensor."""
    machine_code, symbols = code()
    spec = TensorSpec("x", shape, dtype)
    count = spec.nbytes // dtype.itemsize
    step = -(-spec.nbytes // 64) * 64
    args = Arg(Space.INPUT, 0, 0, spec.nbytes), Arg(Space.OUTPUT, 0, 0, spec.nbytes)
    plan = Plan(
        inputs=(spec,),
        outputs=(TensorSpec("y", shape, dtype),),
        input_offsets=(0,),
        output_offsets=(step,),
        calls=(call(kernel, *args, extent=count),),
        arena_size=2 * step,
        scratch_size=256,
        tensor_bytes=0,
    )
    return Program(host_target(), (plan,), machine_code, symbols, b"", b"")


def chain_program(calls: int, n: int, grain: int | None = None) -> Program:
    """``y = x + calls * bias`` by that many kernel calls over ``n`` float32 each, with ``bias`` = 1."""
    machine_code, symbols = code()
    step = -(-4 * n // 64) * 64
    bias = Arg(Space.WEIGHTS, 0, 0, 4 * n)
    spots = [
        Arg(Space.INPUT, 0, 0, 4 * n),
        *(Arg(Space.ARENA, 0, (2 + i % 2) * step, 4 * n) for i in range(calls - 1)),
        Arg(Space.OUTPUT, 0, 0, 4 * n),
    ]
    plan = Plan(
        inputs=(TensorSpec("x", (n,), DType.FLOAT32),),
        outputs=(TensorSpec("y", (n,), DType.FLOAT32),),
        input_offsets=(0,),
        output_offsets=(step,),
        calls=tuple(call("add", spots[i], bias, spots[i + 1], extent=n, grain=grain) for i in range(calls)),
        arena_size=4 * step,
        scratch_size=0,
        tensor_bytes=0,
    )
    weights = np.ones(n, np.float32).tobytes()
    return Program(host_target(), (plan,), machine_code, symbols, weights, b"")
