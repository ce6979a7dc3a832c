"""Products, reductions, normalisation, recurrent layers, attention and quantised arithmetic."""

import platform

import numpy as np
import pytest

from tests.ops.op_kit import (
    Case,
    Const,
    assert_close,
    check,
    const,
    ints,
    parametrize,
    rand,
    run_image,
    run_onnxruntime,
)

A, B = rand(5, 7), rand(7, 6, seed=1)
PRODUCTS = [
    Case("matrices", "MatMul", [A, B]),
    Case("constant", "MatMul", [A, Const(B)]),
    Case("batches", "MatMul", [rand(2, 3, 5, 7), rand(3, 7, 4)]),
    Case("vector right", "MatMul", [rand(2, 5, 7), rand(7)]),
    Case("vector left", "MatMul", [rand(7), rand(2, 7, 3)]),
    Case("vectors", "MatMul", [rand(7), rand(7, seed=1)]),
    Case("i32", "MatMul", [ints(4, 5, dtype="int32"), ints(5, 3, dtype="int32")]),
    Case("f64", "MatMul", [rand(4, 5, dtype="float64"), rand(5, 3, dtype="float64")], tolerance=1e-12),
    Case("transposed", "Gemm", [rand(7, 5), rand(6, 7), rand(6)], {"transA": 1, "transB": 1}),
    Case(
        "constant, scaled",
        "Gemm",
        [A, Const(rand(6, 7)), Const(rand(6))],
        {"transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    Case("no bias", "Gemm", [A, B], {"alpha": 1.5}),
    *(
        Case(equation, "Einsum", list(operands), {"equation": equation})
        for equation, operands in {
            "ij,jk->ik": (A, B),
            "bhid,bhjd->bhij": (rand(2, 3, 4, 5), rand(2, 3, 6, 5)),
            "bij,bjk->bki": (rand(2, 3, 4), rand(2, 4, 5)),
            "ii->i": (rand(4, 4),),
            "...ij->...ji": (rand(2, 3, 4),),
            "i,i": (rand(6), rand(6, seed=1)),
            "ij,k->jki": (rand(2, 3), rand(4)),
        }.items()
    ),
]
X = rand(3, 4, 5)
REDUCTIONS = [
    *(
        Case(f"axes {axes} keep {keep}", f"Reduce{op}", [X, const(axes)], {"keepdims": keep}, opset=18)
        for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp")
        for axes, keep in (([1], 1), ([0, -1], 0))
    ),
    Case("positive", "ReduceLogSum", [rand(3, 4, low=0.1), const([1])], opset=18),
    Case("all", "ReduceSum", [X]),
    Case("nothing", "ReduceSum", [X], {"noop_with_empty_axes": 1}),
    Case("opset 11", "ReduceMean", [X], {"axes": [1, 2], "keepdims": 0}, opset=11),
    Case("i32", "ReduceMax", [ints(4, 5, dtype="int32"), const([0])], opset=18),
    Case("long", "ReduceSum", [rand(3, 5000), const([1])]),
    Case("large values", "ReduceLogSumExp", [rand(3, 4, low=500, high=600), const([1])], opset=18),
]
C = [rand(4, seed=i, low=0.1) for i in range(4)]
NORMS = [
    Case("constants", "BatchNormalization", [rand(2, 4, 5, 6), *map(Const, C)], opset=15),
    Case("at run time", "BatchNormalization", [rand(2, 4, 5, 6), *C], opset=15),
    Case("opset 7", "BatchNormalization", [rand(2, 4, 9), *map(Const, C)], opset=7),
    Case("last axis", "LayerNormalization", [rand(2, 7, 40), rand(40), rand(40, seed=1)], opset=17),
    Case(
        "far from zero",
        "LayerNormalization",
        [rand(2, 64, low=999, high=1001), Const(rand(64))],
        opset=17,
        tolerance=1e-3,
    ),
    Case(
        "two axes, statistics",
        "LayerNormalization",
        [rand(2, 3, 8), rand(3, 8)],
        {"axis": 1},
        opset=17,
        outputs=3,
    ),
    Case("f32", "InstanceNormalization", [rand(2, 4, 5, 6), C[0], C[1]], opset=15),
    Case("size 5", "LRN", [rand(2, 9, 4, 4)], {"size": 5, "alpha": 0.1, "bias": 2.0}),
    *(Case(f"p {p}", "LpNormalization", [rand(3, 6)], {"p": p, "axis": 1}, opset=20) for p in (1, 2)),
    Case("axes", "MeanVarianceNormalization", [rand(2, 4, 5, 6)], {"axes": [0, 2, 3]}, opset=13),
]


def recurrent(
    name,
    op,
    gates,
    *,
    direction="forward",
    bias=True,
    states=0,
    lengths=None,
    fixed=True,
    hidden=20,
    batch=3,
    **attrs,
):
    steps, size = 5, 6
    sides = 2 if direction == "bidirectional" else 1
    wrap = Const if fixed else lambda a: a
    inputs = [
        rand(steps, batch, size),
        wrap(rand(sides, gates * hidden, size, seed=1, low=-0.5, high=0.5)),
        wrap(rand(sides, gates * hidden, hidden, seed=2, low=-0.5, high=0.5)),
        wrap(rand(sides, 2 * gates * hidden, seed=3)) if bias else None,
        None if lengths is None else np.array(lengths, "int32"),
        *(rand(sides, batch, hidden, seed=4 + i) for i in range(states)),
    ]
    attrs |= {"hidden_size": hidden, "direction": direction}
    return Case(name, op, inputs, attrs, opset=14, outputs=3 if op == "LSTM" else 2, tolerance=2e-5)


RECURRENT = [
    recurrent("forward", "LSTM", 4),
    recurrent("both ways", "LSTM", 4, direction="bidirectional", states=2),
    recurrent("reverse, lengths", "LSTM", 4, direction="reverse", lengths=[5, 1, 3], states=2),
    recurrent("weights at run time", "LSTM", 4, fixed=False, bias=False),
    recurrent("activations", "LSTM", 4, activations=["HardSigmoid", "Softsign", "Relu"]),
    recurrent("coupled gates", "LSTM", 4, input_forget=1),
    recurrent("whole vectors", "LSTM", 4, direction="bidirectional", hidden=48, lengths=[5, 1, 3]),
    recurrent(
        "whole vectors, weights at run time", "GRU", 3, direction="bidirectional", hidden=32, fixed=False
    ),
    recurrent("forward", "GRU", 3, states=1),
    recurrent("linear before reset", "GRU", 3, linear_before_reset=1, direction="bidirectional"),
    recurrent("lengths", "GRU", 3, lengths=[2, 5, 4]),
    recurrent("forward", "RNN", 1, states=1),
    recurrent("relu", "RNN", 1, activations=["Relu"], clip=1.5),
]
IN_STEP = [
    recurrent("four at once", "LSTM", 4, direction="bidirectional", hidden=112, batch=8, states=2),
    recurrent("three at once", "GRU", 3, hidden=64, batch=6, linear_before_reset=1, states=1),
    recurrent("two at once, weights at run time", "GRU", 3, hidden=40, batch=4, fixed=False),
    recurrent("no whole vectors", "RNN", 1, direction="bidirectional", hidden=33, batch=4),
    recurrent("lengths", "LSTM", 4, hidden=32, batch=4, lengths=[5, 2, 0, 3]),
]
"""Sequences that share the weights as they are read."""
U8 = ints(1, 3, 8, 8, low=0, high=256, dtype="uint8")
W8 = ints(4, 3, 3, 3, low=-128, high=128, seed=1, dtype="int8")
SCALE = const(0.02, "float32")
QUANTISED = [
    *(
        Case(
            dtype,
            "QuantizeLinear",
            [rand(2, 3, 20, low=-9, high=9), const(0.03, "float32"), const(zero, dtype)],
        )
        for dtype, zero in (("uint8", 128), ("int8", -3), ("int16", 5))
    ),
    Case(
        "each channel",
        "QuantizeLinear",
        [rand(2, 3, 20), const([0.01, 0.02, 0.03], "float32"), const([1, 2, 3], "uint8")],
        {"axis": 1},
    ),
    Case(
        "blocks",
        "QuantizeLinear",
        [rand(2, 6), const(rand(2, 2, low=0.01, high=0.1), "float32"), const(np.zeros((2, 2)), "uint8")],
        {"axis": 1, "block_size": 3},
    ),
    Case(
        "each channel",
        "DequantizeLinear",
        [U8, const([0.1, 0.2, 0.3], "float32"), const([7, 8, 9], "uint8")],
        {"axis": 1},
    ),
    Case("int32", "DequantizeLinear", [ints(9, dtype="int32"), const(0.5, "float32")]),
    Case("f32", "DynamicQuantizeLinear", [rand(50)], opset=11, outputs=3),
    Case(
        "zero points",
        "ConvInteger",
        [U8, const(W8.view("uint8"), "uint8"), const(128, "uint8")],
        {"pads": [1, 1, 1, 1]},
        opset=10,
    ),
    Case(
        "zero points",
        "MatMulInteger",
        [
            ints(5, 9, low=0, high=256, dtype="uint8"),
            ints(9, 4, low=-128, high=128, dtype="int8"),
            np.array(7, "uint8"),
        ],
        opset=10,
    ),
    Case(
        "u8 s8",
        "QLinearConv",
        [
            U8,
            SCALE,
            const(99, "uint8"),
            const(W8, "int8"),
            const([0.01, 0.02, 0.01, 0.03], "float32"),
            const([0] * 4, "int8"),
            const(0.5, "float32"),
            const(120, "uint8"),
            const([100, -50, 0, 9], "int32"),
        ],
        {"pads": [1, 1, 1, 1]},
        opset=10,
    ),
    Case(
        "u8 s8",
        "QLinearMatMul",
        [
            ints(5, 9, low=0, high=256, dtype="uint8"),
            SCALE,
            const(99, "uint8"),
            const(ints(9, 4, low=-128, high=128), "int8"),
            const(0.01, "float32"),
            const(0, "int8"),
            const(0.1, "float32"),
            const(120, "uint8"),
        ],
        opset=10,
    ),
]


@parametrize(PRODUCTS)
def test_product(case):
    check(case)


@parametrize(REDUCTIONS)
def test_reduction(case):
    check(case)


@parametrize(NORMS)
def test_normalisation(case):
    check(case)


@parametrize(RECURRENT)
def test_recurrent(case):
    check(case)


@parametrize(IN_STEP)
@pytest.mark.parametrize("target", ["host", "x86-64-v2"])
def test_recurrent_in_step(case, target):
    """As many sums as the registers hold: the two targets differ in that where the host has AVX-512."""
    if platform.machine() != "x86_64" and target != "host":
        pytest.skip("the target is not this machine's")
    for got, expected in zip(run_image(case, target), run_onnxruntime(case), strict=True):
        assert_close(got, expected, case.tolerance)


@parametrize(QUANTISED)
def test_quantised(case):
    check(case)


@pytest.mark.parametrize("length", [8, 15])
def test_fourier_transform_and_back(length):
    signal = rand(2, length, 2)
    spectrum = np.fft.fft(signal[..., 0] + 1j * signal[..., 1])
    forward = Case("forward", "DFT", [signal, None, const(1)], opset=20)
    back = Case("back", "DFT", [signal, None, const(1)], {"inverse": 1}, opset=20)
    (got,) = run_image(forward)
    assert_close(got, np.stack([spectrum.real, spectrum.imag], -1).astype("float32"), 1e-5)
    (got,) = run_image(back)
    inverse = np.fft.ifft(signal[..., 0] + 1j * signal[..., 1])
    assert_close(got, np.stack([inverse.real, inverse.imag], -1).astype("float32"), 1e-5)
