"""Convolutions and pools."""

import pytest

from tests.ops.op_kit import Case, Const, check, const, ints, parametrize, rand


def conv(name, x, w, bias=True, *, fixed=True, op="Conv", **attrs):
    weight = rand(*w, seed=1)
    channels = w[0] if op == "Conv" else w[1] * attrs.get("group", 1)
    b = rand(channels, seed=2)
    extra = [Const(weight), Const(b)] if fixed else [weight, b]
    return Case(name, op, [rand(*x), *extra[: 1 + bias]], attrs)


CONVS = [
    conv("plain", (1, 3, 9, 8), (4, 3, 3, 3)),
    conv("no bias", (2, 3, 9, 8), (4, 3, 3, 3), False),
    conv("1x1", (1, 16, 7, 7), (33, 16, 1, 1)),
    conv("strides and pads", (1, 3, 11, 10), (5, 3, 3, 3), strides=[2, 3], pads=[1, 0, 2, 1]),
    conv("stride leaves a rest", (1, 3, 10, 10), (5, 3, 3, 3), strides=[2, 2]),
    conv("dilations", (1, 3, 12, 12), (5, 3, 3, 2), dilations=[2, 3]),
    conv("groups", (1, 6, 8, 8), (4, 3, 3, 3), group=2),
    conv("depthwise", (1, 8, 9, 9), (8, 1, 3, 3), group=8, pads=[1, 1, 1, 1]),
    conv("depthwise multiplier", (1, 4, 9, 9), (8, 1, 3, 3), group=4),
    conv("same upper", (1, 3, 9, 8), (4, 3, 4, 4), auto_pad="SAME_UPPER", strides=[2, 2]),
    conv("same lower", (1, 3, 9, 8), (4, 3, 4, 4), auto_pad="SAME_LOWER", strides=[2, 2]),
    conv("valid", (1, 3, 9, 8), (4, 3, 4, 4), auto_pad="VALID"),
    conv("in the padding", (1, 4, 1, 1), (8, 4, 1, 1), strides=[2, 2], pads=[1, 1, 1, 1]),
    conv("depthwise in the padding", (1, 4, 1, 1), (4, 1, 1, 1), group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
    conv("1-D", (2, 4, 30), (5, 4, 5), pads=[2, 2], dilations=[2]),
    conv("1-D depthwise", (1, 6, 30), (6, 1, 3), group=6, strides=[2]),
    conv("3-D", (1, 2, 5, 6, 7), (3, 2, 2, 3, 3), pads=[0, 1, 1, 1, 1, 0], strides=[1, 2, 2]),
    conv("1-D, wide window", (1, 8, 50), (20, 4, 65), group=2, pads=[32, 31]),
    conv("3-D, groups", (2, 4, 5, 5, 6), (6, 2, 3, 3, 3), group=2, pads=[1] * 6, dilations=[2, 1, 1]),
    conv("3-D, depthwise", (1, 5, 4, 5, 6), (5, 1, 3, 3, 3), group=5, pads=[1] * 6),
    conv("3-D, weights at run time", (1, 2, 5, 6, 7), (3, 2, 2, 3, 3), fixed=False, strides=[2, 1, 1]),
    conv("weights at run time", (1, 3, 9, 8), (4, 3, 3, 3), fixed=False, pads=[1, 1, 1, 1]),
    conv("grouped weights at run time", (1, 6, 9, 8), (4, 3, 3, 3), fixed=False, group=2),
]
TRANSPOSED = [
    conv("plain", (1, 3, 5, 6), (3, 4, 3, 3), op="ConvTranspose"),
    conv("kernel equals stride", (1, 8, 5, 6), (8, 4, 2, 2), op="ConvTranspose", strides=[2, 2]),
    conv("upsampling", (1, 3, 5, 6), (3, 4, 4, 4), op="ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1]),
    conv(
        "odd kernel",
        (2, 3, 5, 6),
        (3, 4, 3, 3),
        op="ConvTranspose",
        strides=[2, 2],
        pads=[1, 1, 1, 1],
        output_padding=[1, 1],
    ),
    conv("uneven", (1, 3, 5, 6), (3, 4, 5, 2), op="ConvTranspose", strides=[3, 2], pads=[2, 0, 1, 1]),
    conv("dilations", (1, 3, 5, 6), (3, 4, 3, 2), op="ConvTranspose", dilations=[2, 3]),
    conv(
        "dilations and strides",
        (1, 3, 5, 6),
        (3, 4, 3, 3),
        op="ConvTranspose",
        dilations=[2, 3],
        strides=[3, 2],
    ),
    conv("groups", (1, 6, 5, 5), (6, 2, 3, 3), op="ConvTranspose", group=3, strides=[2, 2]),
    conv(
        "depthwise",
        (1, 4, 5, 5),
        (4, 1, 4, 4),
        op="ConvTranspose",
        group=4,
        strides=[2, 2],
        pads=[1, 1, 1, 1],
    ),
    conv(
        "output shape", (1, 3, 5, 5), (3, 4, 3, 3), op="ConvTranspose", strides=[2, 2], output_shape=[10, 10]
    ),
    conv("same upper", (1, 3, 5, 5), (3, 4, 3, 3), op="ConvTranspose", strides=[2, 2], auto_pad="SAME_UPPER"),
    conv("1-D", (1, 3, 9), (3, 4, 6), op="ConvTranspose", strides=[3], pads=[1, 2]),
    conv(
        "weights at run time",
        (1, 3, 5, 5),
        (3, 4, 3, 3),
        op="ConvTranspose",
        fixed=False,
        strides=[2, 2],
        dilations=[2, 1],
    ),
]
X = rand(2, 3, 11, 10)
POOLS = [
    *(Case("plain", op, [X], {"kernel_shape": [3, 2]}) for op in ("MaxPool", "AveragePool", "LpPool")),
    *(
        Case("strides", op, [X], {"kernel_shape": [3, 3], "strides": [2, 3]})
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case("pads", op, [X], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 2]})
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case("ceiling", op, [X], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case(
            "ceiling with pads",
            op,
            [X],
            {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
        )
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case(
            "ceiling, no window behind",
            op,
            [rand(3, 1, 3)],
            {"kernel_shape": [2], "strides": [3], "ceil_mode": 1},
        )
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case("same lower", op, [X], {"kernel_shape": [2, 4], "auto_pad": "SAME_LOWER"})
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case("1-D", op, [rand(2, 3, 20)], {"kernel_shape": [4], "strides": [3], "pads": [1, 2]})
        for op in ("MaxPool", "AveragePool")
    ),
    *(
        Case("3-D", op, [rand(1, 2, 6, 7, 8)], {"kernel_shape": [2, 3, 2], "strides": [2, 2, 1]})
        for op in ("MaxPool", "AveragePool")
    ),
    Case(
        "counts padding",
        "AveragePool",
        [X],
        {"kernel_shape": [3, 3], "pads": [1, 1, 2, 0], "count_include_pad": 1},
    ),
    Case("dilations", "MaxPool", [X], {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    Case(
        "indices",
        "MaxPool",
        [X],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        outputs=2,
    ),
    Case(
        "indices of equal elements",
        "MaxPool",
        [ints(1, 2, 6, 6, low=0, high=2, dtype="float32")],
        {"kernel_shape": [2, 2]},
        outputs=2,
    ),
    Case("uint8", "MaxPool", [ints(1, 2, 6, 6, low=0, high=255, dtype="uint8")], {"kernel_shape": [2, 2]}),
    Case("order 1", "LpPool", [X], {"kernel_shape": [2, 2], "p": 1}),
    *(Case("f32", op, [X]) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    Case("order 3", "GlobalLpPool", [X], {"p": 3}),
    Case(
        "restores",
        "MaxUnpool",
        [rand(1, 1, 2, 2), const([[[[1, 6], [8, 15]]]])],
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
]


@parametrize(CONVS)
def test_convolution(case):
    check(case)


@parametrize(TRANSPOSED)
def test_transposed_convolution(case):
    check(case)


@parametrize(POOLS)
def test_pool(case):
    check(case)


@pytest.mark.parametrize("size", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("how", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
def test_resize(mode, how, size):
    rounding = {"nearest_mode": "floor"} if mode == "nearest" else {}
    attrs = {"mode": mode, "coordinate_transformation_mode": how, **rounding}
    scales = const([1, 1, size, size], "float32")
    check(Case(f"{mode} {how} {size}", "Resize", [rand(1, 3, 8, 6), None, scales], attrs))


@parametrize(
    [
        Case(
            "nearest, uneven",
            "Resize",
            [rand(1, 2, 5, 7), None, None, const([1, 2, 8, 3])],
            {"nearest_mode": "round_prefer_floor"},
        ),
        Case(
            "linear, uneven",
            "Resize",
            [rand(1, 2, 5, 7), None, None, const([1, 2, 8, 3])],
            {"mode": "linear"},
        ),
        Case(
            "antialias",
            "Resize",
            [rand(1, 2, 16, 12), None, None, const([1, 2, 5, 7])],
            {"mode": "linear", "antialias": 1},
        ),
        Case(
            "three axes",
            "Resize",
            [rand(1, 1, 4, 4, 4), None, const([1, 1, 2, 2, 2], "float32")],
            {"mode": "linear"},
        ),
        Case(
            "nearest",
            "Upsample",
            [rand(1, 2, 3, 4), const([1, 1, 2, 3], "float32")],
            {"mode": "nearest"},
            opset=9,
        ),
        Case(
            "opset 10",
            "Resize",
            [rand(1, 2, 3, 4), const([1, 1, 2, 2], "float32")],
            {"mode": "linear"},
            opset=10,
        ),
    ]
)
def test_resize_forms(case):
    check(case)


@parametrize(
    [
        *(
            Case(
                f"{m} {p} {a}",
                "GridSample",
                [rand(2, 3, 6, 7), rand(2, 5, 4, 2, low=-1.6, high=1.6)],
                {"mode": m, "padding_mode": p, "align_corners": a},
                tolerance=1e-4,
            )
            for m in ("linear", "nearest", "cubic")
            for p in ("zeros", "border", "reflection")
            for a in (0, 1)
        ),
    ]
)
def test_grid_sample(case):
    check(case)
