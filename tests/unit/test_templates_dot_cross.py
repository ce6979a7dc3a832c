"""Integer products on other machines, under qemu: every element equals the sum of integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from tvm import te

from tests.unit import link_kit as kit
from tests.unit.test_templates_conv2d import conv2d_reference
from tests.unit.test_templates_dot import convolutions, products
from tvm_ipu.base.target import Target, load_target, target_names
from tvm_ipu.codegen.link import link
from tvm_ipu.codegen.lower import compile_object, lower_kernel
from tvm_ipu.kernels import computes
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.select import schedule

TARGETS = [name for name in target_names() if load_target(name).qemu]
pytestmark = [pytest.mark.qemu, pytest.mark.slow]
COLLECT = settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])


@dataclass
class Batch:
    """Kernels of one output each, for one target, that run in one process."""

    target: Target
    folder: Path
    jobs: list[tuple[str, kit.Job, np.ndarray]] = field(default_factory=list)
    lowered: list = field(default_factory=list)

    def add(self, label: str, inputs: dict[te.Tensor, np.ndarray], output: te.Tensor, expected: np.ndarray):
        func = te.create_prim_func([*inputs, output], index_dtype_override="int64")
        (stage,), temps = schedule(func, self.target)
        assert not temps
        arrays = [x.tobytes() for x in inputs.values()]
        arrays.append(bytes(expected.nbytes))
        kernel = lower_kernel(stage.func, f"k{len(self.jobs)}", self.target)
        self.lowered.append(kernel)
        arguments = tuple(arrays[i] for _, i in stage.args)
        self.jobs.append((label, kit.Job(0, stage.extent, arguments, kernel.scratch_size), expected))

    def check(self, runner: Path) -> None:
        names = [f"k{i}" for i in range(len(self.jobs))]
        code = link([compile_object(self.lowered, self.target)], self.target, names)
        jobs = [
            kit.Job(code.symbols[name], job.extent, job.arguments, job.scratch_size)
            for name, (_, job, _) in zip(names, self.jobs, strict=True)
        ]
        results = kit.run_jobs(runner, code.code, jobs, self.target, self.folder)
        for (label, _, expected), result in zip(self.jobs, results, strict=True):
            got = np.frombuffer(result[-1], expected.dtype).reshape(expected.shape)
            np.testing.assert_array_equal(got, expected, err_msg=label)


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    return {}


@pytest.fixture
def batch(request, runners, tmp_path_factory) -> tuple[Batch, Path]:
    target = load_target(request.param)
    kit.need_qemu(target)
    key = (target.zig_triple, target.zig_cpu)
    folder = tmp_path_factory.mktemp(target.name)
    if key not in runners:
        runners[key] = kit.build_runner(target, folder)
    return Batch(target, folder), runners[key]


def placeholders(*arrays: np.ndarray) -> dict[te.Tensor, np.ndarray]:
    return {te.placeholder(a.shape, a.dtype.name, name=f"x{i}"): a for i, a in enumerate(arrays)}


def add_products(batch: Batch, a: np.ndarray, b: np.ndarray, transposed: bool) -> None:
    expected = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    label = f"{a.shape} {a.dtype} @ {b.shape} {b.dtype}"
    packed = computes.pack_dense(b, find_dot(a.dtype.name, b.dtype.name, batch.target))
    inputs = placeholders(a, packed)
    batch.add(f"dense {label}", inputs, computes.dense(*inputs, b.shape[1], "int32"), expected)
    inputs = placeholders(a, np.ascontiguousarray(b.T) if transposed else b)
    batch.add(f"matmul {label}", inputs, computes.matmul(*inputs, transposed, "int32"), expected)


def add_convolution(batch: Batch, x, weight, stride, padding, groups) -> None:
    expected = conv2d_reference(x, weight, stride, padding, (1, 1), groups).astype(np.int32)
    packed = computes.pack_conv2d(weight, find_dot(x.dtype.name, weight.dtype.name, batch.target), groups)
    inputs = placeholders(x, packed)
    result = computes.conv2d(*inputs, weight.shape[0], stride, padding, out_dtype="int32")
    label = f"conv2d {x.shape} {x.dtype} {weight.shape} {weight.dtype} {stride} {padding} {groups}"
    batch.add(label, inputs, result, expected)


@pytest.mark.parametrize("batch", TARGETS, indirect=True)
def test_integers_are_exact(batch: tuple[Batch, Path]) -> None:
    kernels, runner = batch

    @COLLECT
    @given(products(), convolutions())
    def collect(product, convolution) -> None:
        add_products(kernels, *product)
        add_convolution(kernels, *convolution)

    collect()
    kernels.check(runner)
