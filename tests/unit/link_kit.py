"""Kernels that need what an instruction set lacks, and a way to run linked code here or under qemu."""

from __future__ import annotations

import math
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import s_tir, te, tirx

from tvm_ipu.base.target import Target
from tvm_ipu.base.toolchain import find_toolchain
from tvm_ipu.codegen.lower import LoweredKernel, lower_kernel
from tvm_ipu.codegen.tvm_target import to_tvm
from tvm_ipu.kernels.emit import Emitter, flat_buffer, index

NATIVE = Path(__file__).parent / "native"


@dataclass(frozen=True)
class Case:
    """A kernel of one output, its inputs and the output that it must give, bit for bit except for NaNs."""

    name: str
    func: tirx.PrimFunc
    inputs: tuple[np.ndarray, ...]
    expected: np.ndarray
    extent: int = 1

    def lowered(self, target: Target) -> LoweredKernel:
        return lower_kernel(self.func, self.name, target)

    def check(self, result: bytes) -> None:
        actual = np.frombuffer(result, self.expected.dtype).reshape(self.expected.shape)
        same = actual == self.expected
        if self.expected.dtype.kind == "f":
            same &= np.signbit(actual) == np.signbit(self.expected)
            same |= np.isnan(actual) & np.isnan(self.expected)
        if not same.all():
            at = np.argwhere(~same)[0]
            found = [x[tuple(at)] for x in self.inputs if x.shape == self.expected.shape]
            pytest.fail(
                f"{self.name}{found}: {actual[tuple(at)]!r} instead of {self.expected[tuple(at)]!r}, "
                f"{np.count_nonzero(~same)} of {same.size} differ"
            )


@dataclass(frozen=True)
class Job:
    """One call of a kernel; the arguments are bytes that it may change."""

    entry: int
    extent: int
    arguments: tuple[bytes, ...]
    scratch_size: int = 0


def run_jobs(
    runner: Path, code: bytes, jobs: Sequence[Job], target: Target, folder: Path, *options: str
) -> list[list[bytes]]:
    """The arguments of every job after its call; options go to ``run_kernels``."""
    words = [
        struct.pack("<5I", j.entry, 0, j.extent, len(j.arguments), j.scratch_size)
        + b"".join(struct.pack("<I", len(a)) + a for a in j.arguments)
        for j in jobs
    ]
    (folder / "code").write_bytes(code)
    (folder / "jobs").write_bytes(b"".join(words))
    command = [*target.qemu, str(runner), "code", "jobs", "result", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode} {done.stderr}"
    result, at = (folder / "result").read_bytes(), 0
    returned = []
    for job in jobs:
        returned.append([])
        for argument in job.arguments:
            returned[-1].append(result[at : at + len(argument)])
            at += len(argument)
    return returned


def build_runner(target: Target, folder: Path) -> Path:
    """The program ``run_kernels`` for a target, linked statically where the target is not this machine."""
    return compile_c(
        NATIVE / "run_kernels.c", target, folder / "run_kernels", ["-static"] if target.qemu else []
    )


def compile_c(source: Path, target: Target, output: Path, options: Sequence[str]) -> Path:
    flags = ["-std=c11", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    command = [*find_toolchain(target).compiler, *flags, *options, str(source), "-o", str(output), "-lm"]
    subprocess.run(command, check=True, timeout=600)
    return output


def need_qemu(target: Target) -> None:
    """Fail where the target's emulator is missing; ``-m "not qemu"`` leaves such tests out."""
    if target.qemu and shutil.which(target.qemu[0]) is None:
        pytest.fail(f"{target.qemu[0]} is not installed: apt-get install qemu-user")


def truncates_vectors(case: Case, target: Target) -> bool:
    """True where a case needs RISC-V's vector conversion with truncation, at which qemu ends before 8.1.

    (https://gitlab.com/qemu-project/qemu/-/issues/1441)
    """
    truncates = case.inputs[0].dtype.kind == "f" and case.expected.dtype.kind != "f"
    return truncates and "rvv" in target.isa and qemu_version(target.qemu[0]) < (8, 1)


def convert_in_current_mode(code: bytes) -> bytes:
    """RISC-V code with every ``vf[wn]cvt.rtz.x[u].f`` made ``vf[wn]cvt.x[u].f``.

    The first always rounds towards zero, the second as the rounding mode says: where that is towards zero
    they are the same (RISC-V "V" Vector Extension 1.0, section 13.17). They differ in two bits of vs1.
    """
    halves = np.frombuffer(code[: len(code) // 2 * 2], "<u2").astype("uint32")
    at, changed = 0, bytearray(code)
    while at + 1 < len(halves):
        wide = halves[at] & 3 == 3
        word = int(halves[at] | halves[at + 1] << 16)
        if word & 0xFC00707F == 0x48001057 and word >> 15 & 6 == 6:  # VFUNARY0, vs1 = xx11x
            changed[2 * at : 2 * at + 4] = struct.pack("<I", word & ~(6 << 15))
        at += 2 if wide else 1
    return bytes(changed)


def qemu_version(program: str) -> tuple[int, int]:
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def elementwise(
    name: str, inputs: Sequence[np.ndarray], compute: Callable[..., tirx.Expr], expected: np.ndarray
) -> Case:
    """A kernel over one dimension, its inner loop serial."""
    tensors = [te.placeholder(x.shape, x.dtype.name, name=f"x{i}") for i, x in enumerate(inputs)]
    result = te.compute(expected.shape, lambda *i: compute(*[t(*i) for t in tensors]), name="y")
    return Case(name, te.create_prim_func([*tensors, result]), tuple(inputs), expected)


def arithmetic_cases() -> list[Case]:
    """Division and conversion of every width that some instruction set does in software."""
    cases = []
    for bits in (8, 16, 32, 64):
        for sign in ("int", "uint"):
            a, b = _integers(f"{sign}{bits}")
            cases += _division_cases(a, b)
    for dtype in ("float32", "float64"):
        a, b = _floats(dtype)
        with np.errstate(all="ignore"):
            cases.append(elementwise(f"divide_{dtype}", (a, b), lambda x, y: x / y, a / b))
    for source, to in _CONVERSIONS:
        x = _convertible(source, to)
        with np.errstate(all="ignore"):
            expected = x.astype(to)
        cases.append(elementwise(f"{source}_to_{to}", (x,), lambda v, to=to: v.astype(to), expected))
    return cases


def requantise_cases() -> list[Case]:
    """``int32(round(x))`` as the end of integer kernels has it, and where ``x`` is not limited to a range."""
    rng = np.random.default_rng(6)
    sums = rng.integers(-(2**31), 2**31, 4000).astype("int32") >> rng.integers(0, 31, 4000).astype("int32")
    scale = np.exp(rng.uniform(-20, 2, 4000)).astype("float32")
    scale[::4] = 0.5  # many ties
    limited = np.clip(sums.astype("float32") * scale, np.float32(-140), np.float32(115))
    x = np.concatenate([np.arange(-99, 99) / 4, rng.uniform(-(2**31), 2**31 - 129, 999)]).astype("float32")

    def requantise(acc: tirx.Expr, factor: tirx.Expr) -> tirx.Expr:
        value = tirx.max(tirx.min(acc.astype("float32") * factor, 115.0), -140.0)
        return (tirx.round(value).astype("int32") + 140).astype("uint8")

    expected = (np.rint(limited).astype("int32") + 140).astype("uint8")
    return [
        elementwise("requantise", (sums, scale), requantise, expected),
        elementwise("nearest", (x,), lambda v: tirx.round(v).astype("int32"), np.rint(x).astype("int32")),
    ]


_CONVERSIONS = [
    *[(i, f) for i in ("int64", "uint64", "int32", "uint32") for f in ("float32", "float64", "float16")],
    *[(f, i) for i in ("int64", "uint64", "int32", "uint32") for f in ("float32", "float64")],
    ("float16", "float32"),
    ("float16", "float64"),
    ("float32", "float16"),
    ("float64", "float16"),
    ("float64", "float32"),
]


def memory_cases() -> list[Case]:
    """Copies and fills that LLVM makes calls of ``memcpy`` and ``memset``; constants and tables in memory."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(70001).astype("float32")
    n = rng.integers(-1, 7, 1000, dtype="int32")
    table = np.array([8.0, 1.5, 2.25, 9.0, 7.0, 3.0, 77.0, 8.0], dtype="float32")
    return [
        elementwise("copy_float32", (x,), lambda v: v, x),
        elementwise("zero_float32", (x,), lambda v: tirx.const(0, "float32"), np.zeros_like(x)),
        elementwise("table_float32", (n,), _table(table), table[n + 1]),
        matmul_case(),
    ]


def masked_index_cases() -> list[Case]:
    """Plain loops that read at ``i & mask``, which LLVM's vectoriser takes for ever-growing positions."""
    cases = []
    for number, (shape, repeats) in enumerate([((2, 3, 4, 5), (7, 6, 4, 2)), ((2, 4, 8), (3, 5, 2))]):
        x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
        expected = np.tile(x, repeats)
        e = Emitter()
        source, target = flat_buffer("x", x.size, "float32"), flat_buffer("y", expected.size, "float32")
        with ExitStack() as stack:
            at = [stack.enter_context(e.loop("i", 0, size)) for size in expected.shape]
            place, element = index(0), index(0)
            for axis, (i, size) in enumerate(zip(at, expected.shape, strict=True)):
                place = place * size + i
                element = element + tirx.floormod(i, shape[axis]) * math.prod(shape[axis + 1 :])
            e.store(target, place, e.load(source, element))
        cases.append(Case(f"masks{number}", tirx.PrimFunc([source, target], e.finish()), (x,), expected))
    return cases


def _table(table: np.ndarray) -> Callable[[tirx.Expr], tirx.Expr]:
    def select(v: tirx.Expr) -> tirx.Expr:
        value = tirx.const(float(table[0]), "float32")
        for i, entry in enumerate(table[1:]):
            value = tirx.if_then_else(
                tirx.EQ(v, tirx.const(i, "int32")), tirx.const(float(entry), "float32"), value
            )
        return value

    return select


def matmul_case() -> Case:
    """A vectorised matrix product with a parallel loop; of whole numbers, so that all sums are exact."""
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-8, 9, shape).astype("float32") for shape in ((24, 40), (40, 64)))
    left, right = te.placeholder(a.shape, "float32", name="a"), te.placeholder(b.shape, "float32", name="b")
    k = te.reduce_axis((0, 40), name="k")
    product = te.compute((24, 64), lambda i, j: te.sum(left[i, k] * right[k, j], axis=k), name="c")
    schedule = s_tir.Schedule(te.create_prim_func([left, right, product]))
    block = schedule.get_sblock("c")
    i, j, k = schedule.get_loops(block)
    outer, inner = schedule.split(j, [None, 16])
    schedule.reorder(i, outer, k, inner)
    schedule.parallel(i)
    schedule.vectorize(inner)
    schedule.decompose_reduction(block, k)
    return Case("matmul_float32", schedule.mod["main"], (a, b), a @ b, extent=24)


def _division_cases(a: np.ndarray, b: np.ndarray) -> list[Case]:
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    truncated = [abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in pairs]
    values = {
        "truncdiv": truncated,
        "truncmod": [x - q * y for (x, y), q in zip(pairs, truncated, strict=True)],
        "floordiv": [x // y for x, y in pairs],
        "floormod": [x % y for x, y in pairs],
    }
    return [
        elementwise(f"{op}_{a.dtype}", (a, b), getattr(tirx, op), np.array(expected, dtype=a.dtype))
        for op, expected in values.items()
    ]


def _integers(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and divisors of all magnitudes; no division by 0 and no quotient that overflows."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(2)
    a, b = (rng.integers(info.min, info.max, 600, dtype=dtype, endpoint=True) for _ in range(2))
    shift = rng.integers(0, info.bits, 600).astype(dtype)
    a[:300] >>= shift[:300]
    b >>= shift
    edges = [info.min, info.min + 1, info.max, info.max - 1, 1, 2, 3, 7, 10]
    a[:81], b[:81] = np.repeat(np.array(edges, dtype), 9), np.tile(np.array(edges, dtype), 9)
    b[b == 0] = 1
    b[(a == info.min) & (b.astype("float64") == -1)] = 1
    return a, b


def _floats(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of special values, then random bit patterns and neighbours of each other."""
    info = np.finfo(dtype)
    special = [
        0.0,
        -0.0,
        1.0,
        -3.0,
        info.max,
        info.tiny,
        info.smallest_subnormal,
        3 * info.smallest_subnormal,
    ]
    special += [np.inf, -np.inf, np.nan, info.tiny / 4, 1 + info.eps, 1 - info.epsneg]
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 256, (2, 4000 * info.bits // 8), dtype="uint8").view(dtype)
    one = rng.uniform(1, 2, (2, 4000)).astype(dtype)
    edges = np.array(np.meshgrid(special, special), dtype).reshape(2, -1)
    a, b = np.concatenate([edges, bits, one], axis=1)
    return a, b


def _convertible(source: str, to: str) -> np.ndarray:
    """Values of ``source`` whose conversion to ``to`` is defined."""
    if source == "float16":
        return np.arange(65536, dtype="uint16").view("float16")
    if source.startswith("f"):
        x = np.unique(_floats(source)[0])
        x = np.concatenate([x, _halfway(source)]) if to == "float16" else x
        if not to.startswith("f"):
            info = np.iinfo(to)
            x = x[(x > float(info.min) - 1) & (x < float(info.max))]
            scale = np.random.default_rng(4).uniform(max(float(info.min), -(2.0**63)), float(info.max), 3000)
            x = np.concatenate([x, (scale * 0.999).astype(source)])
        return x
    x = np.concatenate(_integers(source))
    near = np.array(
        [2**k + d for k in range(25, 63) for d in (-1, 0, 1)] + [(2**24 + 1) << 30, ((2**24 + 1) << 30) + 1]
    )
    return np.concatenate([x, near[near <= np.iinfo(source).max].astype(source)])


def _halfway(dtype: str) -> np.ndarray:
    """All finite halves, the points halfway between two of them, and the neighbours of those."""
    halves = np.arange(0x7C00, dtype="uint16").view("float16").astype(dtype)
    middle = np.append((halves[:-1] + halves[1:]) / 2, np.array(65520, dtype))
    below, above = (np.nextafter(middle, np.array(end, dtype)) for end in (0, np.inf))
    points = np.concatenate([halves, middle, below, above])
    return np.concatenate([points, -points])


def assembly(case: Case, target: Target) -> str:
    """What LLVM makes of the case's kernel."""
    chip = to_tvm(target)
    module = tvm.IRModule({case.name: case.lowered(target).func})
    module = tirx.transform.BindTarget(chip.with_host(chip))(module)
    return tvm.get_global_func("target.build.llvm")(
        tirx.transform.LowerIntrin()(module), chip
    ).inspect_source("asm")
