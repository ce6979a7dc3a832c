"""Operators that move elements, gather and scatter them."""

import numpy as np

from tests.ops.op_kit import Case, Const, check, const, ints, parametrize, rand

X = rand(3, 4, 5)
MOVES = [
    Case("with -1 and 0", "Reshape", [X, const([0, -1, 2, 5])]),
    Case("axes", "Squeeze", [rand(3, 1, 4, 1), const([1])]),
    Case("all", "Squeeze", [rand(3, 1, 4, 1)]),
    Case("opset 11", "Squeeze", [rand(3, 1, 4, 1)], {"axes": [-1]}, opset=11),
    Case("two axes", "Unsqueeze", [X, const([0, -1])]),
    Case("axis 2", "Flatten", [rand(2, 3, 4, 5)], {"axis": 2}),
    Case("axis 0", "Flatten", [rand(2, 3, 4, 5)], {"axis": 0}),
    Case("reversed", "Transpose", [X]),
    Case("perm", "Transpose", [rand(2, 3, 4, 5)], {"perm": [0, 3, 1, 2]}),
    Case("three", "Concat", [X, rand(3, 2, 5, seed=1), Const(rand(3, 1, 5, seed=2))], {"axis": 1}),
    Case("uneven", "Split", [X, const([1, 3])], {"axis": 1}, outputs=2),
    Case("opset 18, rest", "Split", [rand(7)], {"num_outputs": 3}, opset=18, outputs=3),
    Case("opset 11", "Split", [X], {"axis": 2, "split": [2, 3]}, opset=11, outputs=2),
    Case("steps", "Slice", [rand(9, 8), const([1, -1]), const([8, -100]), const([0, 1]), const([3, -2])]),
    Case("open ends", "Slice", [rand(9, 8), const([-3]), const([2**62])]),
    Case("opset 9", "Slice", [rand(9, 8)], {"starts": [2], "ends": [-1], "axes": [1]}, opset=9),
    Case("both ways", "Expand", [rand(3, 1, 5), const([2, 1, 4, 1])]),
    Case("powers of two", "Tile", [rand(2, 3, 4, 5), const([7, 6, 4, 2])]),
    Case("one axis", "Tile", [rand(1, 5), const([3, 1])]),
    *(
        Case(mode, "Pad", [rand(2, 3, 5, 4), const([0, 0, 2, 1, 0, 0, 1, 2])], {"mode": mode})
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    Case("value at run time", "Pad", [X, const([1, 0, 0, 0, 2, 1]), np.array(2.5, "float32")]),
    Case("negative", "Pad", [X, const([-1, 2, 0, 0, -1, -2])]),
    Case("axes", "Pad", [X, const([1, 2]), None, const([1])]),
    Case("opset 10", "Pad", [X], {"pads": [0, 1, 0, 0, 0, 1], "value": 3.0}, opset=10),
    *(
        Case(mode, "DepthToSpace", [rand(2, 12, 3, 4)], {"blocksize": 2, "mode": mode})
        for mode in ("DCR", "CRD")
    ),
    Case("DCR", "SpaceToDepth", [rand(2, 3, 6, 4)], {"blocksize": 2}),
    Case(
        "time first",
        "ReverseSequence",
        [rand(6, 3, 2), np.array([6, 2, 0])],
        {"time_axis": 0, "batch_axis": 1},
    ),
    Case("upper", "Trilu", [rand(2, 5, 4), const(1)]),
    Case("diagonal at run time", "Trilu", [rand(2, 5, 4), np.array(-1)], {"upper": 0}),
    Case("shifted", "EyeLike", [rand(4, 6)], {"k": 1}, opset=9),
]
GATHERS = [
    *(Case(f"axis {a}", "Gather", [X, ints(2, 3, low=-3, high=3)], {"axis": a}) for a in (0, 1, -1)),
    Case("constant scalar", "Gather", [X, const(-1)], {"axis": 1}),
    Case("constant run", "Gather", [X, const([3, 2, 1])], {"axis": 2}),
    Case("constant", "Gather", [X, const([[3, 0], [1, 1]])], {"axis": 1}),
    Case("table", "Gather", [Const(rand(50, 16)), ints(2, 7, low=0, high=50)]),
    Case("i32 indices", "Gather", [X, ints(4, low=-3, high=3, dtype="int32")]),
    Case("axis 1", "GatherElements", [X, ints(3, 2, 5, low=-4, high=4)], {"axis": 1}),
    Case("pairs", "GatherND", [X, ints(6, 2, low=-3, high=3)]),
    Case("whole index", "GatherND", [X, ints(6, 3, low=0, high=3)]),
    Case("batch", "GatherND", [X, ints(3, 2, 1, low=0, high=4)], {"batch_dims": 1}),
    Case("axis 1", "ScatterElements", [X, ints(3, 1, 5, low=0, high=4), rand(3, 1, 5, seed=3)], {"axis": 1}),
    Case(
        "constant places", "ScatterElements", [X, const([[[3], [0], [2], [1]]]), rand(1, 4, 1)], {"axis": 1}
    ),
    Case(
        "constant places, truth values",
        "ScatterElements",
        [X[0] > 0, const([[3, 1, 0, 2, 1], [1, 3, 2, 0, 0]]), rand(2, 5, seed=1) > 0],
    ),
    *(
        Case(
            r,
            "ScatterElements",
            [X, ints(3, 4, 5, low=-4, high=4), rand(3, 4, 5)],
            {"axis": 1, "reduction": r},
        )
        for r in ("add", "mul", "max", "min")
    ),
    Case("rows", "ScatterND", [X, np.array([[2], [0]]), rand(2, 4, 5)]),
    Case("constant rows", "ScatterND", [X, const([[2], [0]]), rand(2, 4, 5)]),
    Case("constant elements", "ScatterND", [X, const([[2, 1, 0], [-1, -1, -1]]), rand(2)]),
    Case("sums", "ScatterND", [X, np.array([[1], [1], [0]]), rand(3, 4, 5)], {"reduction": "add"}),
    Case("axis 0", "OneHot", [ints(3, 4, low=-5, high=8), const(6), rand(2)], {"axis": 0}),
    Case("constant condition", "Compress", [X, Const(np.array([True, False, True]))], {"axis": 1}),
]
ORDERED = [
    *(Case(f"axis {a}", "TopK", [rand(4, 9, 7), const([3])], {"axis": a}, outputs=2) for a in (0, 1, -1)),
    Case("smallest", "TopK", [rand(5, 100), const([17])], {"largest": 0}, outputs=2),
    Case("all", "TopK", [rand(3, 40), const([40])], outputs=2),
    Case("equal elements", "TopK", [ints(3, 50, low=0, high=4), const([20])], outputs=2),
    *(
        Case(f"{e} {r}", "CumSum", [X, const(1)], {"exclusive": e, "reverse": r})
        for e in (0, 1)
        for r in (0, 1)
    ),
    *(
        Case(
            f"last {last}",
            op,
            [ints(4, 9, low=0, high=3, dtype="float32")],
            {"axis": 1, "select_last_index": last},
        )
        for op in ("ArgMax", "ArgMin")
        for last in (0, 1)
    ),
    Case("axis 0", "ArgMax", [rand(4, 9, 33)], {"axis": 0, "keepdims": 0}),
    Case("all the same", "ArgMax", [np.full((2, 3), -np.inf, "float32")], {"axis": 1}),
]


@parametrize(MOVES)
def test_move(case):
    check(case)


@parametrize(GATHERS)
def test_gather(case):
    check(case)


@parametrize(ORDERED)
def test_order(case):
    check(case)
