"""Operators one by one, calibrated with 16 bits for a chip with no float unit: integers, and near float."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, parser

from scripts.node_suite import compile_image
from tests.ops.integer_kit import simulate
from tests.unit.frontend_kit import constant, make_model, node, value
from tvm_ipu.base.target import load_target
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.runtime.build import build_runner
from tvm_ipu.runtime.session import Session
from tvm_ipu.simulation import compile_runner

Array = np.ndarray
SHAPE = [1, 8, 6, 10]
RANDOM = np.random.default_rng(0)
INPUTS = {"x": SHAPE, "z": SHAPE, "p": SHAPE, "q": [1, 8, 1, 1]}
"""x and z have both signs; p and q lie between 0.5 and 3."""


@dataclass(frozen=True)
class Case:
    """Nodes from ``INPUTS`` to ``y``, constants, and a bound on the error in steps of the 16-bit result."""

    nodes: list[NodeProto]
    constants: dict[str, Array] = field(default_factory=dict)
    bound: float = 2.0


def one(
    op: str, inputs: str = "x", bound: float = 2.0, consts: dict[str, Array] | None = None, **attrs
) -> Case:
    return Case([node(op, inputs, "y", **attrs)], consts or {}, bound)


def several(text: str, bound: float = 2.0, consts: dict[str, Array] | None = None) -> Case:
    """Nodes in ONNX's text form, one a line or with semicolons between them."""
    lines = text.replace(";", "\n").strip().splitlines()
    return Case([parser.parse_node(line) for line in lines], consts or {}, bound)


def normal(*shape: int) -> Array:
    return RANDOM.normal(0, 0.3, shape).astype(np.float32)


def number(x: float) -> Array:
    return np.float32(x)


UNARY = (
    "Abs", "Atan", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh",
    "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
STEEP = {"Erf": 4, "Softsign": 4, "Cos": 4, "Sin": 4, "Tanh": 4, "Atan": 3}
"""Bounds where a step of the argument is several of the result."""

LAYER_NORM = """
    m = ReduceMean(x, last); d = Sub(x, m); s = Pow(d, two); v = ReduceMean(s, last); e = Add(v, eps)
    r = Sqrt(e); n = Div(d, r); t = Mul(n, g); y = Add(t, b)"""
RMS_NORM = """
    s = Mul(x, x); v = ReduceMean(s, last); e = Add(v, eps); r = Sqrt(e); i = Reciprocal(r); y = Mul(x, i)"""
GELU = "a = Div(x, root); e = Erf(a); o = Add(e, one); h = Mul(x, o); y = Mul(h, half)"
GELU_TANH = """
    a = Pow(x, three); e = Mul(a, k); o = Add(x, e); h = Mul(o, r); t = Tanh(h); u = Add(t, one)
    v = Mul(x, half); y = Mul(v, u)"""
HARD_SWISH = "a = Add(x, t); b = Clip(a, lo, hi); c = Mul(x, b); y = Div(c, hi)"
GATED = "t = Conv(x, w); g = GlobalAveragePool(t); h = Conv(g, w); i = HardSigmoid(h); y = Mul(t, i)"
SWIGLU = """
    t = Conv(x, w); u, v = Split<axis=1, num_outputs=2>(t); s = Sigmoid(u); us = Mul(u, s); y = Mul(us, v)"""
RESIDUAL = "t = Conv(x, w); s = Sigmoid(t); u = Mul(t, s); y = Add(u, x)"
NUMBERS = {
    name: number(v) for name, v in (("one", 1), ("half", 0.5), ("two", 2), ("three", 3), ("eps", 1e-5))
}
LAST, PLANE = {"last": np.array([-1])}, {"axes": np.array([2, 3])}
MASK = {"k": RANDOM.random(SHAPE) > 0.5}

CASES = {
    **{op.lower(): one(op, bound=STEEP.get(op, 2.0)) for op in UNARY},
    "clip": one("Clip", "x lo hi", 3, {"lo": number(-1), "hi": number(0.7)}),
    "log": one("Log", "p", 3),
    "reciprocal": one("Reciprocal", "p", 4),
    "sqrt": one("Sqrt", "p"),
    "add": one("Add", "x z"),
    "sub": one("Sub", "x z"),
    "mul": one("Mul", "x z"),
    "mul_broadcast": one("Mul", "x q"),
    "mul_constant": one("Mul", "x k", consts={"k": number(-0.37)}),
    "div": one("Div", "x p", 4),
    "div_broadcast": one("Div", "x q"),
    "div_constant": one("Div", "x k", consts={"k": normal(8, 1, 1) + 1}),
    "max": one("Max", "x z p"),
    "min": one("Min", "x z"),
    "max_constant": one("Max", "x k", consts={"k": normal(8, 1, 1)}),
    "sum": one("Sum", "x z p"),
    "mean": one("Mean", "x z p"),
    "square": one("Pow", "x two", consts=NUMBERS),
    "power": one("Pow", "p k", consts={"k": number(0.3)}),
    "prelu": one("PRelu", "x k", consts={"k": normal(8, 1, 1)}),
    "greater_where": several("m = Greater(x, z); y = Where(m, x, p)"),
    "less_cast": several("m = Less(x, z); f = Cast<to=1>(m); y = Mul(f, p)"),
    "above_a_number": several("m = GreaterOrEqual(x, k); y = Where(m, z, p)", consts={"k": number(0.3)}),
    "equal": several("m = Equal(x, x); y = Where(m, x, p)"),
    "where_mask": one("Where", "k x z", consts=MASK),
    "where_fill": one("Where", "k x f", consts={**MASK, "f": number(-3)}),
    "softmax": one("Softmax", bound=2),
    "softmax_of_channels": one("Softmax", axis=1),
    "log_softmax": one("LogSoftmax", axis=1),
    "reduce_mean": one("ReduceMean", "x axes", keepdims=0, consts=PLANE),
    "reduce_sum": one("ReduceSum", "x axes", consts=PLANE),
    "reduce_max": one("ReduceMax", "x axes", consts=PLANE),
    "reduce_min": one("ReduceMin", "x axes", consts=PLANE),
    "reduce_l1": one("ReduceL1", "x axes", consts=PLANE),
    "reduce_l2": one("ReduceL2", "x axes", consts=PLANE),
    "reduce_sum_square": one("ReduceSumSquare", "x axes", consts=PLANE),
    "layer_norm": one("LayerNormalization", "x g b", 3, consts={"g": normal(10), "b": normal(10)}),
    "layer_norm_written": several(LAYER_NORM, consts={**NUMBERS, **LAST, "g": normal(10), "b": normal(10)}),
    "rms_norm_written": several(RMS_NORM, 6, {**NUMBERS, **LAST}),
    "instance_norm": one("InstanceNormalization", "x g b", consts={"g": normal(8), "b": normal(8)}),
    "gelu_tanh": one("Gelu", approximate="tanh"),
    "gelu_written": several(GELU, consts={**NUMBERS, "root": number(2**0.5)}),
    "gelu_tanh_written": several(
        GELU_TANH, consts={**NUMBERS, "k": number(0.044715), "r": number((2 / np.pi) ** 0.5)}
    ),
    "hard_swish_written": several(HARD_SWISH, consts={"t": number(3), "lo": number(0), "hi": number(6)}),
    "nearest": one("Resize", "x none f", mode="nearest", consts={"f": np.float32([1, 1, 2, 2])}),
    "linear": one("Resize", "x none f", mode="linear", consts={"f": np.float32([1, 1, 2, 2])}),
    "cubic": one("Resize", "x none f", mode="cubic", consts={"f": np.float32([1, 1, 2, 1.5])}),
    "antialias": one(
        "Resize", "x none f", mode="linear", antialias=1, consts={"f": np.float32([1, 1, 0.5, 0.5])}
    ),
    "average_pool": one("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
    "global_average_pool": one("GlobalAveragePool"),
    "max_pool": one("MaxPool", kernel_shape=[2, 2]),
    "concat": one("Concat", "x z", axis=1),
    "concat_constant": one("Concat", "x k", axis=1, consts={"k": normal(1, 2, 6, 10)}),
    "slice": one("Slice", "x b e", consts={"b": np.array([0, 1]), "e": np.array([1, 4])}),
    "gather": one("Gather", "x i", axis=1, consts={"i": np.array([3, 1])}),
    "pad": one("Pad", "x w", consts={"w": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "pad_reflect": one("Pad", "x w", mode="reflect", consts={"w": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "expand": one("Expand", "q s", consts={"s": np.array(SHAPE)}),
    "tile": one("Tile", "x s", consts={"s": np.array([1, 1, 2, 1])}),
    "depth_to_space": one("DepthToSpace", blocksize=2),
    "conv": one("Conv", "x w b", 4, {"w": normal(5, 8, 3, 3), "b": normal(5)}),
    "depthwise": one("Conv", "x w b", 4, {"w": normal(8, 1, 3, 3), "b": normal(8)}, group=8),
    "conv_transpose": one(
        "ConvTranspose", "x w b", 4, {"w": normal(8, 5, 4, 4), "b": normal(5)}, strides=[2, 2], pads=[1] * 4
    ),
    "conv_transpose_of_groups": one(
        "ConvTranspose", "x w", 4, {"w": normal(8, 5, 2, 2)}, strides=[2, 2], group=2
    ),
    "gated": several(GATED, 6, {"w": normal(8, 8, 1, 1)}),
    "swiglu": several(SWIGLU, 4, {"w": normal(8, 8, 1, 1)}),
    "residual": several(RESIDUAL, 4, {"w": normal(8, 8, 1, 1)}),
    "matmul": several("t = Transpose<perm=[0, 1, 3, 2]>(z); y = MatMul(x, t)", 4),
    "dense": several("f = Flatten(x); y = Gemm(f, w, b)", 4, {"w": normal(480, 7), "b": normal(7)}),
}


def named(case: str, tensor: str) -> str:
    """Name of a case's tensor among the others."""
    if tensor == "none":
        return ""
    return tensor if tensor in INPUTS else f"{case}/{tensor}"


def network(cases: Collection[str] = CASES) -> ModelProto:
    """Cases side by side."""
    nodes, constants, outputs = [], [], []
    for case in cases:
        made = CASES[case]
        for part in made.nodes:
            copy = NodeProto()
            copy.CopyFrom(part)
            copy.name = f"{case}/{part.op_type}:{' '.join(part.output)}"
            copy.input[:] = [named(case, n) for n in part.input]
            copy.output[:] = [case if n == "y" else f"{case}/{n}" for n in part.output]
            nodes.append(copy)
        constants += [constant(f"{case}/{name}", array) for name, array in made.constants.items()]
        outputs.append(value(case, None))
    inputs = [value(name, shape) for name, shape in INPUTS.items()]
    model = make_model(nodes, inputs, outputs, constants, opset=22)
    model.ir_version = 10
    return model


def sample(seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        name: (random.uniform(0.5, 3, s) if name in "pq" else random.normal(0, 1.5, s).clip(-5, 5)).astype(
            np.float32
        )
        for name, s in INPUTS.items()
    }


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Outputs of the image, the simulator and the float model."""
    model, samples = network(), [sample(seed) for seed in range(4)]
    fixed = quantised(model, samples)
    with Session(compile_image(load_proto(fixed), {}, "ipu-ref")) as session:
        assert not session.metadata["float_layers"]
        found = session.run(samples[1])
    floating = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = dict(zip(CASES, floating.run(list(CASES), samples[1]), strict=True))
    return found, simulate(fixed, "ipu-ref", samples[1]), expected


def load_proto(model: bytes) -> ModelProto:
    proto = ModelProto()
    proto.ParseFromString(model)
    return proto


def quantised(model: ModelProto, samples: Sequence[dict[str, Array]]) -> bytes:
    """The model with 16 bits everywhere."""
    options = CalibrationOptions("Q10", operator_bits=16)
    graph, _ = calibrate(load_graph(model), lambda: iter(samples), compile_runner, options)
    return graph_to_onnx(graph)


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("machine", ["armv7-neon", "riscv64", "hexagon-v67"])
def test_other_machines(machine: str, tmp_path: Path):
    """Operators with kernels of their own give the simulator's bytes, also without 64-bit division."""
    names, target = ["div", "log_softmax", "cubic", "greater_where", "reduce_l2"], f"ipu-ref@{machine}"
    samples = [sample(seed) for seed in range(2)]
    model = quantised(network(names), samples)
    used = [spec.name for spec in load_graph(model).inputs]
    (tmp_path / "model.img").write_bytes(compile_image(load_proto(model), {}, target))
    for name in used:
        samples[1][name].tofile(tmp_path / f"{name}.bin")
    chip = load_target(target)
    files = ["--inputs", *(str(tmp_path / f"{name}.bin") for name in used), "--output", str(tmp_path)]
    command = [*chip.qemu, str(build_runner(chip)), str(tmp_path / "model.img"), *files]
    subprocess.run(command, check=True, timeout=300)
    expected = simulate(model, "ipu-ref", {name: samples[1][name] for name in used})
    for number, name in enumerate(names):
        assert (tmp_path / f"output_{number}.bin").read_bytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("case", CASES)
def test_operator(results, case: str):
    image, simulated, expected = (one[case] for one in results)
    assert image.tobytes() == simulated.tobytes()
    step = np.abs(expected).max() / 32767
    assert np.abs(image.astype(np.float64) - expected).max() / step < CASES[case].bound
