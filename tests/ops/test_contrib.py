"""Operators of ONNX Runtime's own domain, and of classical machine learning."""

import numpy as np

from tests.ops.op_kit import Case, Const, check, const, ints, parametrize, rand

MS, ML = "com.microsoft", "ai.onnx.ml"
X = rand(2, 5, 16)
U8 = ints(2, 4, 6, 6, low=0, high=256, dtype="uint8")
V8 = ints(2, 4, 6, 6, low=0, high=256, seed=1, dtype="uint8")
S1, S2, S3 = (const(s, "float32") for s in (0.02137, 0.05173, 0.04411))
Z1, Z2, Z3 = (const(z, "uint8") for z in (128, 100, 120))
W8 = ints(9, 4, low=-128, high=128, dtype="int8")

FLOATS = [
    Case("f32", "Gelu", [X], domain=MS),
    Case("f32", "BiasGelu", [X, Const(rand(16))], domain=MS),
    Case("with bias", "FastGelu", [X, Const(rand(16))], domain=MS, tolerance=1e-5),
    Case("f32", "QuickGelu", [X], domain=MS),
    Case(
        "f32",
        "SkipLayerNormalization",
        [X, rand(2, 5, 16, seed=1), *(Const(rand(16, seed=i)) for i in range(3))],
        domain=MS,
    ),
    Case("f32", "SkipSimplifiedLayerNormalization", [X, rand(2, 5, 16, seed=1), Const(rand(16))], domain=MS),
    Case("f32", "SimplifiedLayerNormalization", [X, Const(rand(16))], opset=17),
    Case(
        "transposed",
        "FusedMatMul",
        [rand(2, 7, 5), Const(rand(6, 7))],
        {"transA": 1, "transB": 1, "alpha": 0.5},
        domain=MS,
    ),
    Case(
        "leaky",
        "FusedConv",
        [rand(1, 3, 6, 6), Const(rand(4, 3, 3, 3))],
        {"activation": "LeakyRelu", "activation_params": [0.1]},
        domain=MS,
    ),
    Case(
        "sum",
        "FusedConv",
        [rand(1, 3, 6, 6), Const(rand(4, 3, 3, 3)), Const(rand(4)), rand(1, 4, 4, 4)],
        {"activation": "Relu"},
        domain=MS,
    ),
    Case(
        "words",
        "EmbedLayerNormalization",
        [
            ints(2, 5, low=0, high=30, dtype="int32"),
            ints(2, 5, low=0, high=2, dtype="int32"),
            Const(rand(30, 16)),
            Const(rand(9, 16)),
            Const(rand(2, 16)),
            Const(rand(16)),
            Const(rand(16)),
        ],
        domain=MS,
        outputs=2,
    ),
]
INTEGERS = [
    *(Case("u8", op, [U8, S1, Z1, V8, S2, Z2, S3, Z3], domain=MS) for op in ("QLinearAdd", "QLinearMul")),
    *(Case("u8", op, [U8, S1, Z1, S3, Z3], domain=MS) for op in ("QLinearLeakyRelu",)),
    Case("u8", "QLinearSigmoid", [U8, S1, Z1, const(1 / 256, "float32"), const(0, "uint8")], domain=MS),
    Case("u8", "QLinearGlobalAveragePool", [U8, S1, Z1, S3, Z3], domain=MS),
    Case(
        "u8",
        "QLinearAveragePool",
        [U8, S1, Z1, S3, Z3],
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        domain=MS,
    ),
    Case("axis 1", "QLinearConcat", [S3, Z3, U8, S1, Z1, V8, S2, Z2], {"axis": 1}, domain=MS),
    Case(
        "u8 s8",
        "QGemm",
        [
            ints(5, 9, low=0, high=256, dtype="uint8"),
            S1,
            Z1,
            Const(W8),
            S2,
            const(0, "int8"),
            const([9, -8, 7, 0], "int32"),
            S3,
            Z3,
        ],
        domain=MS,
    ),
    Case(
        "u8 s8",
        "MatMulIntegerToFloat",
        [ints(5, 9, low=0, high=256, dtype="uint8"), Const(W8), S1, S2, Z1, const(0, "int8"), Const(rand(4))],
        domain=MS,
    ),
    Case("s16", "QuantizeLinear", [X, S1, const(0, "int16")], domain=MS),
    Case("u16", "QuantizeLinear", [X, S1, const(32768, "uint16")], domain=MS),
    Case("s16", "DequantizeLinear", [ints(3, 7, low=-(2**15), high=2**15, dtype="int16"), S1], domain=MS),
    Case(
        "u8 by channel",
        "DequantizeLinear",
        [U8, Const(rand(4, low=0.1)), Const(ints(4, dtype="uint8"))],
        {"axis": 1},
        domain=MS,
    ),
    Case(
        "s8",
        "DynamicQuantizeMatMul",
        [rand(5, 9), Const(W8), S2, const(0, "int8"), Const(rand(4))],
        domain=MS,
    ),
]
LEARNED = [
    Case("f32", "Binarizer", [rand(3, 4)], {"threshold": 0.3}, domain=ML),
    Case(
        "f32",
        "Scaler",
        [rand(3, 4)],
        {"offset": [1.0, 2.0, 3.0, 4.0], "scale": [0.5, 1.0, 1.5, 2.0]},
        domain=ML,
    ),
    *(
        Case(norm, "Normalizer", [rand(3, 4, low=0.1)], {"norm": norm}, domain=ML)
        for norm in ("MAX", "L1", "L2")
    ),
    Case(
        "NaN",
        "Imputer",
        [np.array([[1, np.nan], [np.nan, 2]], "float32")],
        {"imputed_value_floats": [5.0, 6.0], "replaced_value_float": float("nan")},
        domain=ML,
    ),
    Case(
        "f32",
        "LinearRegressor",
        [rand(5, 3)],
        {"coefficients": [1.0, -2.0, 0.5, 3.0, 1.0, 0.0], "intercepts": [0.5, -0.5], "targets": 2},
        domain=ML,
    ),
    Case("f32", "ArrayFeatureExtractor", [rand(3, 6), np.array([[0, 5, 2]])], domain=ML),
    Case(
        "one tree of depth 2",
        "TreeEnsembleRegressor",
        [rand(50, 3)],
        {
            "n_targets": 1,
            "nodes_treeids": [0] * 5 + [1] * 3,
            "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
            "nodes_featureids": [0, 1, 0, 0, 0, 2, 0, 0],
            "nodes_values": [0.1, -0.5, 0, 0, 0, 0.7, 0, 0],
            "nodes_modes": ["BRANCH_LEQ", "BRANCH_LT", "LEAF", "LEAF", "LEAF", "BRANCH_GT", "LEAF", "LEAF"],
            "nodes_truenodeids": [1, 3, 0, 0, 0, 1, 0, 0],
            "nodes_falsenodeids": [2, 4, 0, 0, 0, 2, 0, 0],
            "target_treeids": [0, 0, 0, 1, 1],
            "target_nodeids": [2, 3, 4, 1, 2],
            "target_ids": [0] * 5,
            "target_weights": [1.0, 2.0, 3.0, 10.0, 20.0],
            "base_values": [0.25],
        },
        domain=ML,
    ),
    Case(
        "three classes",
        "TreeEnsembleClassifier",
        [rand(50, 2)],
        {
            "classlabels_int64s": [4, 7, 9],
            "nodes_treeids": [0] * 5,
            "nodes_nodeids": [0, 1, 2, 3, 4],
            "nodes_featureids": [0, 1, 0, 0, 0],
            "nodes_values": [0.1, -0.5, 0.0, 0.0, 0.0],
            "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
            "nodes_truenodeids": [1, 3, 0, 0, 0],
            "nodes_falsenodeids": [2, 4, 0, 0, 0],
            "class_treeids": [0] * 4,
            "class_nodeids": [2, 3, 4, 4],
            "class_ids": [0, 1, 2, 0],
            "class_weights": [1.0, 1.0, 0.7, 0.3],
        },
        domain=ML,
        outputs=2,
    ),
    Case(
        "numbers",
        "LabelEncoder",
        [ints(20, low=0, high=6)],
        {"keys_int64s": [1, 3, 5], "values_floats": [0.1, 0.3, 0.5], "default_float": -1.0},
        domain=ML,
    ),
]


@parametrize(FLOATS)
def test_runtime_operator(case):
    check(case)


@parametrize(INTEGERS)
def test_quantised_runtime_operator(case):
    check(case)


@parametrize(LEARNED)
def test_learned(case):
    check(case)
