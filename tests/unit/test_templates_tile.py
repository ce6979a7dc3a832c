"""Templates on tile registers: their machine code runs, AMX instructions emulated where they are missing."""

import re
import subprocess
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import te, tirx

from tests.unit.amx_kit import EMULATED, counts, emulation
from tests.unit.template_kit import evaluate, random_array, run_launch
from tvm_ipu.base.target import load_target
from tvm_ipu.codegen.lower import compile_object, lower_kernel
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.decisions import preferred
from tvm_ipu.kernels.epilogue import Epilogue
from tvm_ipu.kernels.isa import amx, find_dot
from tvm_ipu.kernels.launch import Launch
from tvm_ipu.kernels.select import schedule
from tvm_ipu.kernels.templates import tile_conv2d, tile_gemm
from tvm_ipu.kernels.window import Window

PAIRS = [(left, right) for left in ("uint8", "int8") for right in ("uint8", "int8")]
TYPES = [*PAIRS, ("bfloat16", "bfloat16")]


@pytest.fixture
def emulator():
    with emulation() as library:
        yield library


def any_decision(seed):
    """Chooses a decision that the model may rank anywhere."""
    return lambda _name, _problem, decisions: decisions[seed % len(decisions)]


def wide(x):
    return x.astype(np.int64 if x.dtype.kind in "iu" else np.float64)


def check(got, expected):
    """Integers are exact; sums of bfloat16 products are as float32 rounds them."""
    if got.dtype.kind in "iu":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def accumulated(dtype):
    return "float32" if dtype == "bfloat16" else "int32"


def run(compute, left, right, choose=preferred):
    """Value and template names of a computation on two arrays."""
    a = te.placeholder(left.shape, left.dtype.name, name="left")
    b = te.placeholder(right.shape, right.dtype.name, name="right")
    got, launches = evaluate({a: left, b: right}, compute(a, b), EMULATED, choose)
    return got, [launch.template for launch in launches]


@pytest.mark.parametrize(("left", "right"), TYPES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 90),
    groups=st.sampled_from([4, 8, 14, 16, 24, 32, 48]),
    columns=st.integers(8, 120),
    seed=st.integers(0, 1000),
)
def test_dense(left, right, rows, groups, columns, seed):
    rng = np.random.default_rng(seed)
    depth = groups * amx.group_of(left)
    x, weight = random_array(rng, (rows, depth), left), random_array(rng, (depth, columns), right)
    packed = packing.pack_dense(weight, find_dot(left, right, EMULATED))
    with emulation():
        got, templates = run(
            lambda a, b: computes.dense(a, b, columns, accumulated(left)), x, packed, any_decision(seed)
        )
    assert templates == ["tile_gemm"]
    check(got, wide(x) @ wide(weight))


@pytest.mark.parametrize("depth", [17, 30, 61, 62, 63])
def test_rows_that_tiles_cannot_load_are_copied(emulator, depth):
    rng = np.random.default_rng(depth)
    x, weight = random_array(rng, (37, depth), "uint8"), random_array(rng, (depth, 40), "int8")
    packed = packing.pack_dense(weight, find_dot("uint8", "int8", EMULATED))
    got, templates = run(lambda a, b: computes.dense(a, b, 40), x, packed)
    assert templates == ["tile_conv2d"]
    check(got, wide(x) @ wide(weight))


@st.composite
def convolutions(draw):
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 1), (1, 4)]))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 1), (1, 3)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]))
    padding = draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3)]))
    groups = draw(st.sampled_from([1, 1, 2]))
    depth = draw(st.sampled_from([16, 20, 32, 40, 64, 23]))
    channels = draw(st.sampled_from([8, 16, 40, 72]))
    batch, height, width = draw(st.integers(1, 2)), draw(st.integers(11, 20)), draw(st.integers(11, 40))
    return (
        (batch, height, width, groups * depth),
        groups * channels,
        kernel,
        stride,
        padding,
        dilation,
        groups,
    )


def convolve(x, weight, stride, padding, dilation, groups):
    """Convolution in NHWC with OHWI weights, by its definition."""
    batch, (out, kernel_h, kernel_w, depth) = len(x), weight.shape
    above, before, below, after = padding
    x = np.pad(wide(x), ((0, 0), (above, below), (before, after), (0, 0)))
    rows = (x.shape[1] - dilation[0] * (kernel_h - 1) - 1) // stride[0] + 1
    columns = (x.shape[2] - dilation[1] * (kernel_w - 1) - 1) // stride[1] + 1
    y = np.zeros((batch, rows, columns, out), x.dtype)
    for group in range(groups):
        inputs = slice(group * depth, (group + 1) * depth)
        outputs = slice(group * out // groups, (group + 1) * out // groups)
        for i in range(kernel_h):
            for j in range(kernel_w):
                top, left = i * dilation[0], j * dilation[1]
                seen = x[:, top:, left:, inputs][:, :: stride[0], :: stride[1]][:, :rows, :columns]
                y[..., outputs] += seen @ wide(weight[outputs, i, j]).T
    return y


@pytest.mark.parametrize(("left", "right"), [("uint8", "int8"), ("int8", "int8"), ("bfloat16", "bfloat16")])
@settings(max_examples=16, deadline=None, derandomize=True)
@given(case=convolutions(), seed=st.integers(0, 1000))
def test_conv2d(left, right, case, seed):
    shape, out, kernel, stride, padding, dilation, groups = case
    rng = np.random.default_rng(seed)
    x = random_array(rng, shape, left)
    weight = random_array(rng, (out, *kernel, shape[3] // groups), right)
    packed = packing.pack_conv2d(weight, find_dot(left, right, EMULATED), groups)
    with emulation():
        got, templates = run(
            lambda a, b: computes.conv2d(a, b, out, stride, padding, dilation, accumulated(left)),
            x,
            packed,
            any_decision(seed),
        )
    assert templates == ["tile_conv2d"] or (kernel == (1, 1) and templates == ["tile_gemm"])
    check(got, convolve(x, weight, stride, padding, dilation, groups))


def test_one_load_for_each_product(emulator):
    """A block of 2 x 2 tiles needs as many loads as products, and every product is full."""
    rows, depth, columns = 256, 512, 128
    problem = tile_gemm.Problem(rows, depth, columns, "uint8", "int8", "int32")
    decision = tile_gemm.Decision(2, 2, amx.ROWS, 8, 4)
    assert decision in tile_gemm.space(problem, EMULATED)
    rng = np.random.default_rng(3)
    x, weight = random_array(rng, (rows, depth), "uint8"), random_array(rng, (depth, columns), "int8")
    packed = packing.pack_dense(weight, find_dot("uint8", "int8", EMULATED))
    counts(emulator)
    got, _ = run(lambda a, b: computes.dense(a, b, columns), x, packed, lambda *_: decision)
    check(got, wide(x) @ wide(weight))
    found = counts(emulator)
    assert found["multiply"] == found["load"] == rows // 16 * columns // 16 * depth // 64
    assert found["store"] == found["zero"] == rows // 16 * columns // 16
    assert found["configure"] == found["release"] == 1


def machine_code(compute, left, right):
    """Instructions of the one kernel of a computation for the real target."""
    func = te.create_prim_func([left, right, compute(left, right)], index_dtype_override="int64")
    target = load_target("x86-64-amx")
    (launch,), _ = schedule(func, target)
    with tempfile.NamedTemporaryFile(suffix=".o") as file:
        file.write(compile_object([lower_kernel(launch.func, "kernel", target)], target))
        file.flush()
        command = ["objdump", "-d", "-j.text", "-Mintel", "--no-show-raw-insn", file.name]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.findall(r"^\s+[0-9a-f]+:\s+(\S.*)$", listing, re.MULTILINE)


@pytest.mark.parametrize(
    ("types", "instruction"), [(("uint8", "int8"), "tdpbusd"), (("bfloat16", "bfloat16"), "tdpbf16ps")]
)
def test_machine_code_of_a_layer(types, instruction):
    """A 3 x 3 convolution of ResNet-50: between two products at most three loads of tiles."""
    left = te.placeholder((1, 14, 14, 256), types[0], name="left")
    group = amx.group_of(types[0])
    right = te.placeholder((1, 16, 3, 3, 256 // group, 16, group), types[1], name="right")
    code = machine_code(lambda a, b: computes.conv2d(a, b, 256, padding=(1, 1, 1, 1)), left, right)
    names = [line.split()[0] for line in code]
    tile = [name for name in names if name in (instruction, "tileloadd")]
    loads = [len(run.split()) for run in " ".join(tile).split(instruction)[:-1]]
    assert max(loads) <= 3
    assert tile.count("tileloadd") <= 1.25 * tile.count(instruction)


@pytest.mark.parametrize(("stride", "pad_value"), [((1, 1), 7), ((2, 2), 131)])
def test_padding_holds_a_value(emulator, stride, pad_value):
    rng = np.random.default_rng(pad_value)
    x, weight = random_array(rng, (1, 13, 15, 32), "uint8"), random_array(rng, (40, 3, 3, 32), "int8")
    padded = np.pad(x, ((0, 0), (1, 2), (2, 1), (0, 0)), constant_values=pad_value)
    packed = packing.pack_conv2d(weight, find_dot("uint8", "int8", EMULATED))
    got, templates = run(
        lambda a, b: computes.conv2d(a, b, 40, stride, (1, 2, 2, 1), pad_value=pad_value), x, packed
    )
    assert templates == ["tile_conv2d"]
    check(got, convolve(padded, weight, stride, (0, 0, 0, 0), (1, 1), 1))


@pytest.mark.parametrize("pitch", [96, 67])
@pytest.mark.parametrize("padding", [0, 1])
def test_rows_apart(emulator, pitch, padding):
    """The image is part of a wider one, as where a concatenation's parts lie in place."""
    window = Window(1, (12, 14), (3, 3), (1, 1), (padding,) * 4, (1, 1))
    problem = tile_conv2d.Problem(window, 1, 64, 24, "uint8", "int8", "int32", pitch)
    matrix = tile_gemm.Problem(168, 64, 24, "uint8", "int8", "int32", pitch)
    rng = np.random.default_rng(pitch)
    image, weight = random_array(rng, (1, 12, 14, pitch), "uint8"), random_array(rng, (24, 3, 3, 64), "int8")
    for template, p, filters in ((tile_conv2d, problem, weight), (tile_gemm, matrix, weight[:, :1, :1])):
        around = window.padding if p is problem else (0,) * 4
        expected = convolve(image[..., :64], filters, (1, 1), around, (1, 1), 1)
        anchor = tirx.decl_buffer(expected.shape, "int32", name="y")
        decision = template.space(p, EMULATED)[0]
        kernel = template.emit(p, decision, Epilogue(anchor, [], [anchor]), EMULATED)
        launch = Launch(kernel.func, (), kernel.extent, kernel.grain, template.__name__, kernel.flops)
        got = np.zeros(expected.shape, np.int32)
        packed = packing.pack_conv2d(filters, find_dot("uint8", "int8", EMULATED))
        run_launch(launch, [image, packed, got], EMULATED)
        check(got, expected)


@pytest.mark.parametrize(("left", "right"), [("uint8", "int8"), ("int8", "int8"), ("bfloat16", "bfloat16")])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(
    batches=st.sampled_from([((), ()), ((3,), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3))]),
    rows=st.integers(8, 70),
    groups=st.sampled_from([4, 8, 16, 18, 32]),
    columns=st.integers(8, 100),
    transposed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_matmul(left, right, batches, rows, groups, columns, transposed, seed):
    rng = np.random.default_rng(seed)
    depth = groups * amx.group_of(left)
    a = random_array(rng, (*batches[0], rows, depth), left)
    b = random_array(rng, (*batches[1], depth, columns), right)
    expected = np.matmul(wide(a), wide(b))
    b = np.ascontiguousarray(b.swapaxes(-1, -2)) if transposed else b
    with emulation():
        got, templates = run(
            lambda x, y: computes.matmul(x, y, transposed, accumulated(left)), a, b, any_decision(seed)
        )
    assert templates == ["tile_matmul"]
    check(got, expected)
