"""Time the kernel templates alone on one thread of this machine: GFLOP/s, and percent of the machine's peak.

    python -m scripts.bench_kernels [--target NAME] [--dtype TYPE] [resnet50] [mobilenetv2] [bert]

The peak is measured in turn with each kernel, by multiply-adds (or dot products) on registers alone, so that
a busy or throttled machine shows in both. Data is warm: a kernel runs again and again on the same tensors,
and its best time counts.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tvm import te, tirx, topi

from tvm_ipu.base.target import Target, load_target
from tvm_ipu.base.tensor import numpy_dtype
from tvm_ipu.codegen.lower import compile_object, lower_kernel
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.dot import Dot, accumulator
from tvm_ipu.kernels.emit import Emitter, flat_buffer
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.registers import RegisterTile
from tvm_ipu.kernels.select import schedule

Case = tuple[list[te.Tensor], te.Tensor]
"""Inputs and result of a computation."""

RIGHT = {"float32": "float32", "bfloat16": "bfloat16", "uint8": "int8"}
"""Type of the left operand -> type of the right one."""

PEAK_STEPS = 100_000


@dataclass(frozen=True)
class Timed:
    """A compiled kernel with its tensors, to be called over and over."""

    run: Callable[[], object]
    flops: int


def main() -> None:
    """Print one line for each kernel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="host")
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--dtype", default="float32", choices=list(RIGHT), help="type of what is multiplied")
    parser.add_argument("--only", default="", help="kernels with this in their names")
    options = parser.parse_args()
    target = load_target(options.target)
    types = options.dtype, RIGHT[options.dtype]
    peak = multiply_adds(target, find_dot(*types, target))
    print(f"{target.name}, {' x '.join(types)}, one thread; convolutions and products with bias and ReLU")
    print(f"{'kernel':<40}{'us':>10}{'GFLOP/s':>10}{'peak':>8}{'%':>5}")
    for suite in options.suites or SUITES:
        for name, case in SUITES[suite].items():
            if options.only not in name:
                continue
            kernel = prepare(*case(target, *types), target)
            seconds, peak_seconds = best_times([kernel.run, peak.run])
            speed, limit = kernel.flops / seconds / 1e9, peak.flops / peak_seconds / 1e9
            print(
                f"{name:<40}{seconds * 1e6:10.1f}{speed:10.1f}{limit:8.1f}{100 * speed / limit:5.0f}",
                flush=True,
            )


def conv(
    size: int, depth: int, channels: int, kernel: int, stride: int = 1
) -> Callable[[Target, str, str], Case]:
    """Convolution of a square image, padded so that stride 1 keeps its size; depth-wise for 0 channels."""

    def make(target: Target, left: str, right: str) -> Case:
        x = te.placeholder((1, size, size, depth), left, name="x")
        strides, pad = (stride, stride), kernel // 2
        if channels == 0:
            lanes = packing.weight_lanes(left, target)
            weights = te.placeholder((math.ceil(depth / lanes), kernel, kernel, lanes), right, name="w")
            y = computes.depthwise_conv2d(x, weights, strides, (pad,) * 4, out_dtype=accumulator(left))
        else:
            dot = find_dot(left, right, target)
            panels = math.ceil(channels / dot.lanes)
            shape = (1, panels, kernel, kernel, dot.steps(depth), dot.lanes, dot.group)
            weights = te.placeholder(shape, right, name="w")
            y = computes.conv2d(x, weights, channels, strides, (pad,) * 4, out_dtype=dot.acc)
        return finish([x, weights], y, left)

    return make


def dense(rows: int, depth: int, columns: int) -> Callable[[Target, str, str], Case]:
    """Product with constant weights."""

    def make(target: Target, left: str, right: str) -> Case:
        dot = find_dot(left, right, target)
        x = te.placeholder((rows, depth), left, name="x")
        shape = (math.ceil(columns / dot.lanes), dot.steps(depth), dot.lanes, dot.group)
        weights = te.placeholder(shape, right, name="w")
        return finish([x, weights], computes.dense(x, weights, columns, dot.acc), left)

    return make


def attention(
    heads: int, rows: int, depth: int, columns: int, transposed: bool
) -> Callable[[Target, str, str], Case]:
    """Batched product of two run-time matrices."""

    def make(target: Target, left: str, right: str) -> Case:
        a = te.placeholder((heads, rows, depth), left, name="a")
        shape = (heads, columns, depth) if transposed else (heads, depth, columns)
        b = te.placeholder(shape, right, name="b")
        return [a, b], computes.matmul(a, b, transposed, find_dot(left, right, target).acc)

    return make


def finish(operands: list[te.Tensor], y: te.Tensor, dtype: str) -> Case:
    """Bias and ReLU, in the form that a model of this type has; integers are requantised to uint8."""
    channels = y.shape[-1]
    bias = te.placeholder((channels,), y.dtype, name="bias")
    y = topi.add(y, bias)
    if "int" not in dtype:
        return [*operands, bias], topi.cast(topi.nn.relu(y), dtype)
    scale = te.placeholder((channels,), name="scale")
    y = topi.cast(topi.round(topi.multiply(topi.cast(y, "float32"), scale)), "int32")
    return [*operands, bias, scale], topi.cast(topi.clip(y, 0, 255), "uint8")


def prepare(inputs: list[te.Tensor], output: te.Tensor, target: Target) -> Timed:
    """Compile the one kernel of a computation and give it random tensors."""
    func = te.create_prim_func([*inputs, output], index_dtype_override="int64")
    (launch,), _ = schedule(func, target)
    random = np.random.default_rng(0)
    shapes = [tuple(int(dim) for dim in tensor.shape) for tensor in [*inputs, output]]
    tensors = [
        (100 * random.random(shape)).astype(numpy_dtype(str(tensor.dtype)))
        for shape, tensor in zip(shapes, [*inputs, output], strict=True)
    ]
    arrays = [tensors[i] for _, i in launch.args]
    flops = 2 * math.prod(shapes[-1]) * reduction(output)
    return Timed(load(launch.func, arrays, launch.extent, target), flops)


def reduction(output: te.Tensor) -> int:
    """Products summed for one element of the result."""
    pending = [output]
    while pending:
        op = pending.pop().op
        if getattr(op, "reduce_axis", None):
            return math.prod(int(axis.dom.extent) for axis in op.reduce_axis)
        pending += list(op.input_tensors)
    raise ValueError(f"{output.op.name} has no reduction")


def multiply_adds(target: Target, dot: Dot) -> Timed:
    """As many independent multiplications on registers as hide their latency."""
    e = Emitter()
    left, right = flat_buffer("left", dot.group, dot.left), flat_buffer("right", dot.panel, dot.right)
    sums = flat_buffer("sums", dot.lanes, dot.acc)
    rows = min(12, target.vector_registers - 3)
    with e.loop("unit", 0, 1, tirx.ForKind.PARALLEL):
        a = tuple(e.bind("a", part) for part in dot.spread(e, e.load(left, 0, dot.group)))
        b = tuple(e.bind("b", part) for part in dot.widen(e, e.load(right, 0, dot.panel)))
        tile = RegisterTile(e, rows, [dot.lanes], dot.lanes, dot.acc)
        with e.loop("step", 0, PEAK_STEPS):
            for row in range(rows):
                at = tile.at(row, 0)
                new = dot.multiply(e, e.load(tile.buffer, at, dot.lanes), a, b)
                e.store(tile.buffer, at, new, dot.lanes)
        for row in range(rows):
            total = e.load(sums, 0, dot.lanes) + e.load(tile.buffer, tile.at(row, 0), dot.lanes)
            e.store(sums, 0, total, dot.lanes)
    func = tirx.PrimFunc([left, right, sums], e.finish())
    arrays = [
        np.ones(size, numpy_dtype(kind))
        for size, kind in ((dot.group, dot.left), (dot.panel, dot.right), (dot.lanes, dot.acc))
    ]
    return Timed(load(func, arrays, 1, target), 2 * rows * dot.panel * PEAK_STEPS)


def load(func: tirx.PrimFunc, arrays: list[np.ndarray], extent: int, target: Target) -> Callable[[], object]:
    """Compile a kernel, link it and bind its arguments."""
    lowered = lower_kernel(func, "kernel", target)
    folder = tempfile.TemporaryDirectory(prefix="tvm_ipu-bench-")
    path = Path(folder.name) / "kernel.o"
    path.write_bytes(compile_object([lowered], target))
    subprocess.run(["cc", "-shared", "-o", path.with_suffix(".so"), path], check=True)
    kernel = ctypes.CDLL(str(path.with_suffix(".so")))["kernel"]
    folder.cleanup()
    addresses = (ctypes.c_size_t * len(arrays))(*(array.ctypes.data for array in arrays))
    scratch = np.zeros(max(lowered.scratch_size, 64), np.uint8)
    keep = (arrays, scratch)  # their memory must outlive every call
    return lambda: (kernel(addresses, ctypes.c_void_p(keep[1].ctypes.data), 0, extent), keep)


def best_times(runs: list[Callable[[], object]], seconds: float = 0.3) -> list[float]:
    """Best time of each, called in turn for some time."""
    repeats = []
    for run in runs:
        run()
        start = time.perf_counter()
        run()
        repeats.append(max(1, round(2e-3 / (time.perf_counter() - start))))
    best = [math.inf] * len(runs)
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        for i, run in enumerate(runs):
            start = time.perf_counter()
            for _ in range(repeats[i]):
                run()
            best[i] = min(best[i], (time.perf_counter() - start) / repeats[i])
    return best


SUITES: dict[str, dict[str, Callable[[Target, str, str], Case]]] = {
    "resnet50": {
        "7x7/2 224x224x3 -> 64": conv(224, 3, 64, 7, 2),
        "1x1 56x56x64 -> 64": conv(56, 64, 64, 1),
        "3x3 56x56x64 -> 64": conv(56, 64, 64, 3),
        "1x1 56x56x64 -> 256": conv(56, 64, 256, 1),
        "1x1 56x56x256 -> 64": conv(56, 256, 64, 1),
        "1x1/2 56x56x256 -> 512": conv(56, 256, 512, 1, 2),
        "3x3/2 56x56x128 -> 128": conv(56, 128, 128, 3, 2),
        "3x3 28x28x128 -> 128": conv(28, 128, 128, 3),
        "1x1 28x28x128 -> 512": conv(28, 128, 512, 1),
        "1x1 28x28x512 -> 128": conv(28, 512, 128, 1),
        "1x1/2 28x28x512 -> 1024": conv(28, 512, 1024, 1, 2),
        "3x3/2 28x28x256 -> 256": conv(28, 256, 256, 3, 2),
        "3x3 14x14x256 -> 256": conv(14, 256, 256, 3),
        "1x1 14x14x256 -> 1024": conv(14, 256, 1024, 1),
        "1x1 14x14x1024 -> 256": conv(14, 1024, 256, 1),
        "1x1/2 14x14x1024 -> 2048": conv(14, 1024, 2048, 1, 2),
        "3x3/2 14x14x512 -> 512": conv(14, 512, 512, 3, 2),
        "3x3 7x7x512 -> 512": conv(7, 512, 512, 3),
        "1x1 7x7x512 -> 2048": conv(7, 512, 2048, 1),
        "1x1 7x7x2048 -> 512": conv(7, 2048, 512, 1),
        "dense 1x2048 -> 1000": dense(1, 2048, 1000),
    },
    "mobilenetv2": {
        "3x3/2 224x224x3 -> 32": conv(224, 3, 32, 3, 2),
        "depthwise 3x3 112x112x32": conv(112, 32, 0, 3),
        "1x1 112x112x32 -> 16": conv(112, 32, 16, 1),
        "1x1 112x112x16 -> 96": conv(112, 16, 96, 1),
        "depthwise 3x3/2 112x112x96": conv(112, 96, 0, 3, 2),
        "1x1 56x56x96 -> 24": conv(56, 96, 24, 1),
        "1x1 56x56x24 -> 144": conv(56, 24, 144, 1),
        "depthwise 3x3 56x56x144": conv(56, 144, 0, 3),
        "depthwise 3x3/2 56x56x144": conv(56, 144, 0, 3, 2),
        "depthwise 3x3 28x28x192": conv(28, 192, 0, 3),
        "1x1 14x14x384 -> 64": conv(14, 384, 64, 1),
        "depthwise 3x3 14x14x384": conv(14, 384, 0, 3),
        "depthwise 3x3 14x14x576": conv(14, 576, 0, 3),
        "depthwise 3x3/2 14x14x576": conv(14, 576, 0, 3, 2),
        "1x1 14x14x576 -> 96": conv(14, 576, 96, 1),
        "depthwise 3x3 7x7x960": conv(7, 960, 0, 3),
        "1x1 7x7x960 -> 320": conv(7, 960, 320, 1),
        "1x1 7x7x320 -> 1280": conv(7, 320, 1280, 1),
    },
    "bert": {
        "128x768 -> 768": dense(128, 768, 768),
        "128x768 -> 3072": dense(128, 768, 3072),
        "128x3072 -> 768": dense(128, 3072, 768),
        "12 heads 128x64 x (128x64)^T": attention(12, 128, 64, 128, True),
        "12 heads 128x128 x 128x64": attention(12, 128, 128, 64, False),
    },
}

if __name__ == "__main__":
    main()
