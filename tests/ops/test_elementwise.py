"""Arithmetic, activations, comparisons and conversions."""

import numpy as np

from tests.ops.op_kit import Case, Const, check, const, ints, parametrize, rand

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e30, 3.5], "float32")
UNARY = [
    "Abs",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Floor",
    "Neg",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Tanh",
    "Atan",
    "Asinh",
]
POSITIVE = ["Sqrt", "Log", "Reciprocal"]
ACTIVATIONS = {
    "Relu": {},
    "LeakyRelu": {"alpha": 0.3},
    "Elu": {"alpha": 0.7},
    "Selu": {},
    "Celu": {"alpha": 1.7},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "HardSwish": {},
    "Mish": {},
    "ThresholdedRelu": {"alpha": 0.5},
    "Gelu": {},
    "Shrink": {"lambd": 0.4, "bias": 0.2},
}

CASES = [
    *(Case("f32", op, [rand(3, 4, 5)]) for op in UNARY),
    *(Case("f64", op, [rand(7, dtype="float64")], tolerance=1e-12) for op in ("Exp", "Tanh", "Sqrt", "Sin")),
    *(Case("f32", op, [rand(33, low=0.01, high=9)]) for op in POSITIVE),
    *(Case("special values", op, [SPECIAL]) for op in ("Abs", "Neg", "Floor", "Ceil", "IsNaN", "IsInf")),
    *(Case("special values", op, [np.tile(SPECIAL, 5)]) for op in ("Relu", "LeakyRelu")),
    Case("special values", "Clip", [np.tile(SPECIAL, 5), const(0, "float32"), const(6, "float32")]),
    Case("a slope a channel", "PRelu", [rand(2, 3, 4, 5), Const(rand(3, 1, 1, seed=1))]),
    *(Case("f32", op, [rand(2, 3, 17, low=-6, high=6)], a, opset=20) for op, a in ACTIVATIONS.items()),
    Case("tanh form", "Gelu", [rand(64, low=-6, high=6)], {"approximate": "tanh"}, opset=20),
    *(
        Case("broadcast", op, [rand(3, 1, 5), rand(4, 1, seed=1, low=0.5)])
        for op in ("Add", "Sub", "Mul", "Div")
    ),
    *(
        Case("i32", op, [ints(50, dtype="int32"), ints(50, seed=1, dtype="int32")])
        for op in ("Add", "Sub", "Mul")
    ),
    Case("i32", "Div", [ints(50, dtype="int32"), ints(50, low=1, seed=1, dtype="int32")]),
    Case("negative i64", "Div", [ints(50), -ints(50, low=1, seed=1)]),
    Case("i64", "Mod", [ints(50), ints(50, low=1, seed=1)]),
    Case("negative divisors", "Mod", [ints(50), -ints(50, low=1, seed=1)]),
    Case("fmod of floats", "Mod", [rand(50, low=-9, high=9), rand(50, seed=1, low=0.3)], {"fmod": 1}),
    *(Case(f"exponent {e}", "Pow", [rand(20, low=0.1), const(e, "float32")]) for e in (0.5, 1, 2, 3, -1.5)),
    Case("exponent at run time", "Pow", [rand(4, 5, low=0.1), rand(5, seed=1)]),
    Case("integer exponent", "Pow", [rand(20), ints(20, low=0, high=5, seed=1)]),
    Case("integers", "Pow", [ints(20, low=-4, high=5), ints(20, low=0, high=6, seed=1)]),
    *(
        Case("three", op, [rand(3, 4), rand(4, seed=1), rand(3, 1, seed=2)])
        for op in ("Max", "Min", "Sum", "Mean")
    ),
    Case("i64", "Max", [ints(9), ints(9, seed=1)]),
    Case("limits at run time", "Clip", [rand(30), np.array(-0.5, "float32"), np.array(0.7, "float32")]),
    Case("constant limits", "Clip", [rand(30), const(-0.5, "float32"), const(0.7, "float32")]),
    Case("only above", "Clip", [rand(30), None, const(0.7, "float32")]),
    Case("attributes", "Clip", [rand(30)], {"min": -0.5, "max": 0.25}, opset=7),
    Case("slope per channel", "PRelu", [rand(2, 3, 4, 5), const(rand(3, 1, 1, seed=1), "float32")]),
    Case("slope at run time", "PRelu", [rand(2, 3, 4), rand(4, seed=1)]),
    *(
        Case("f32", op, [ints(40, dtype="float32"), ints(40, seed=1, dtype="float32")])
        for op in ("Equal", "Less", "GreaterOrEqual")
    ),
    *(Case("bool", op, [ints(40) > 0, ints(40, seed=1) > 0]) for op in ("And", "Or", "Xor")),
    Case("bool", "Not", [ints(40) > 0]),
    Case("broadcast", "Where", [ints(3, 1) > 0, rand(3, 4), rand(4, seed=1)]),
    *(
        Case(
            "u32",
            "BitShift",
            [ints(20, low=0, high=99, dtype="uint32"), ints(20, low=0, high=9, seed=1, dtype="uint32")],
            {"direction": d},
        )
        for d in ("LEFT", "RIGHT")
    ),
    *(
        Case("i32", op, [ints(20, dtype="int32"), ints(20, seed=1, dtype="int32")])
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ),
    *(Case(f"to {to}", "Cast", [rand(40, low=-90, high=90)], {"to": to}) for to in (6, 7, 9, 10, 11)),
    Case("i64 to i8", "Cast", [ints(40, low=-999, high=999)], {"to": 3}),
    Case("bool to f32", "Cast", [ints(40) > 0], {"to": 1}),
    *(
        Case(f"axis {a}", op, [rand(3, 4, 5, low=-9, high=9)], {"axis": a})
        for op in ("Softmax", "LogSoftmax")
        for a in (0, 1, -1)
    ),
    Case("opset 11", "Softmax", [rand(2, 3, 4)], {"axis": 1}, opset=11),
    Case("opset 11", "Hardmax", [rand(2, 3, 4)], {"axis": 1}, opset=11),
    Case("f16", "Softmax", [rand(4, 40, dtype="float16")], tolerance=2e-3),
]


@parametrize(CASES)
def test_elementwise(case: Case):
    check(case)
