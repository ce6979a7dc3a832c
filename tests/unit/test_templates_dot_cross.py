"""Integer kernels on other machines, under qemu, equal numpy's integers in every element.

Requantisation is compared with numpy's float32: ``rint(clip(float32(sum + bias) * scale)) + zero_point``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies as st
from tvm import te, tirx, topi

from tests.unit import link_kit as kit
from tests.unit.template_kit import random_array
from tests.unit.test_templates_dot import PAIRS, convolutions, convolve, products
from tvm_ipu.base.target import Target, load_target, target_names
from tvm_ipu.codegen.link import link
from tvm_ipu.codegen.lower import compile_object, lower_kernel
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.select import schedule

TARGETS = [name for name in target_names() if load_target(name).qemu]
pytestmark = [pytest.mark.qemu, pytest.mark.slow]
COLLECT = settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])


@dataclass
class Batch:
    """Kernels of one output each, for one target, that run in one process."""

    target: Target
    folder: Path
    jobs: list[tuple[str, kit.Job, np.ndarray]] = field(default_factory=list)
    lowered: list = field(default_factory=list)

    def add(self, label: str, inputs: dict[te.Tensor, np.ndarray], output: te.Tensor, expected: np.ndarray):
        func = te.create_prim_func([*inputs, output], index_dtype_override="int64")
        (launch,), temps = schedule(func, self.target)
        assert not temps
        arrays = [x.tobytes() for x in inputs.values()]
        arrays.append(bytes(expected.nbytes))
        kernel = lower_kernel(launch.func, f"k{len(self.jobs)}", self.target)
        self.lowered.append(kernel)
        arguments = tuple(arrays[i] for _, i in launch.args)
        self.jobs.append((label, kit.Job(0, launch.extent, arguments, kernel.scratch_size), expected))

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
            error = 0 if expected.dtype.kind in "iu" else 1e-5
            np.testing.assert_allclose(got, expected, rtol=error, atol=error, err_msg=label)


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


@dataclass(frozen=True)
class Requantise:
    """From int32 sums to 8 bits.

    Attributes:
        dtype: Type of the result.
        zero_point: Its zero.
        seed: Of the channels' biases and scales.
    """

    dtype: str
    zero_point: int
    seed: int

    def apply(self, sums: te.Tensor, expected: np.ndarray) -> tuple[dict, te.Tensor, np.ndarray]:
        """Further inputs, the result and what it should be."""
        rng = np.random.default_rng(self.seed)
        channels = expected.shape[-1]
        size = max(1, int(np.abs(expected).max()))
        bias = rng.integers(-size, size, channels, endpoint=True).astype(np.int32)
        bias[expected.max() > 2**30] = 0
        scale = (np.exp(rng.uniform(-3, 1, channels)) * 150 / size).astype(np.float32)
        scale[::3] = np.exp2(np.round(np.log2(scale[::3])))  # ties
        scale[1::5] *= -1
        info = np.iinfo(self.dtype)
        low, high = float(info.min - self.zero_point), float(info.max - self.zero_point)
        rounded = np.rint(np.clip((expected + bias).astype(np.float32) * scale, low, high))
        inputs = placeholders(bias, scale)
        bias_in, scale_in = inputs
        value = topi.cast(topi.add(sums, bias_in), "float32")
        value = topi.round(topi.clip(topi.multiply(value, scale_in), low, high))
        value = topi.add(topi.cast(value, "int32"), tirx.const(self.zero_point, "int32"))
        return inputs, topi.cast(value, self.dtype), (rounded + self.zero_point).astype(self.dtype)


requantises = st.builds(
    Requantise, st.sampled_from(["uint8", "int8"]), st.integers(-128, 127), st.integers(0, 99)
).map(lambda r: replace(r, zero_point=r.zero_point + 128 if r.dtype == "uint8" else r.zero_point))


def placeholders(*arrays: np.ndarray) -> dict[te.Tensor, np.ndarray]:
    return {te.placeholder(a.shape, a.dtype.name, name=f"x{i}"): a for i, a in enumerate(arrays)}


def add_products(batch: Batch, a, b, transposed: bool, requantise: Requantise) -> None:
    expected = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    label = f"{a.shape} {a.dtype} @ {b.shape} {b.dtype}"
    packed = packing.pack_dense(b, find_dot(a.dtype.name, b.dtype.name, batch.target))
    inputs = placeholders(a, packed)
    result = computes.dense(*inputs, b.shape[1], "int32")
    more, result, bytes_ = requantise.apply(result, expected)
    batch.add(f"dense {label} {requantise}", inputs | more, result, bytes_)
    inputs = placeholders(a, np.ascontiguousarray(b.T) if transposed else b)
    batch.add(f"matmul {label}", inputs, computes.matmul(*inputs, transposed, "int32"), expected)


def add_convolution(
    batch: Batch, x, weight, stride, padding, groups, pad_value: int, requantise: Requantise
) -> None:
    expected = convolve(x, weight, stride, padding, groups, pad_value).astype(np.int32)
    if groups == x.shape[3] == weight.shape[0] > 1:
        packed = packing.pack_depthwise(weight, packing.weight_lanes(x.dtype.name, batch.target))
        inputs = placeholders(x, packed)
        result = computes.depthwise_conv2d(*inputs, stride, padding, out_dtype="int32", pad_value=pad_value)
    else:
        packed = packing.pack_conv2d(weight, find_dot(x.dtype.name, weight.dtype.name, batch.target), groups)
        inputs = placeholders(x, packed)
        result = computes.conv2d(
            *inputs, weight.shape[0], stride, padding, out_dtype="int32", pad_value=pad_value
        )
    label = (
        f"conv2d {x.shape} {x.dtype} {weight.shape} {weight.dtype} {stride} {padding} {pad_value} {groups}"
    )
    more, result, expected = requantise.apply(result, expected)
    batch.add(f"{label} {requantise}", inputs | more, result, expected)


@pytest.mark.parametrize("batch", TARGETS, indirect=True)
def test_integers_are_exact(batch: tuple[Batch, Path]) -> None:
    kernels, runner = batch

    @COLLECT
    @given(products(), convolutions(), requantises)
    def collect(product, convolution, requantise) -> None:
        add_products(kernels, *product, requantise)
        add_convolution(kernels, *convolution, requantise)

    collect()
    kernels.check(runner)


@pytest.mark.parametrize("batch", TARGETS, indirect=True)
def test_depthwise_convolutions_are_exact(batch: tuple[Batch, Path]) -> None:
    kernels, runner = batch
    rng = np.random.default_rng(0)

    @COLLECT
    @given(
        st.sampled_from(PAIRS),
        st.integers(2, 40),
        st.sampled_from([(1, 1), (2, 1), (2, 2)]),
        st.integers(0, 127),
        requantises,
    )
    def collect(pair, channels, stride, pad_value, requantise) -> None:
        x, weight = (
            random_array(rng, shape, dtype)
            for shape, dtype in zip(((1, 9, 11, channels), (channels, 3, 3, 1)), pair, strict=True)
        )
        add_convolution(kernels, x, weight, stride, (1, 0, 1, 2), channels, pad_value, requantise)

    collect()
    kernels.check(runner)


@pytest.mark.parametrize("batch", ["aarch64-i8mm"], indirect=True)
def test_bfloat16(batch: tuple[Batch, Path]) -> None:
    """Products of bfloat16 are exact in float32, so that only sums are rounded."""
    kernels, runner = batch
    assert find_dot("bfloat16", "bfloat16", kernels.target).group == 2

    @COLLECT
    @given(products([("bfloat16", "bfloat16")]))
    def collect(product) -> None:
        a, b, transposed = product
        expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32)
        packed = packing.pack_dense(b, find_dot("bfloat16", "bfloat16", kernels.target))
        inputs = placeholders(a, packed)
        kernels.add(
            f"dense {a.shape} {b.shape}", inputs, computes.dense(*inputs, b.shape[1], "float32"), expected
        )
        inputs = placeholders(a, np.ascontiguousarray(b.T) if transposed else b)
        result = computes.matmul(*inputs, transposed, "float32")
        kernels.add(f"matmul {a.shape} {b.shape}", inputs, result, expected)

    collect()
    kernels.check(runner)
