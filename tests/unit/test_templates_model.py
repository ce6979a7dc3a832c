"""Cutting of dimensions into blocks, geometry of windows, and the analytic model."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import tirx

from tests.unit.template_kit import TARGETS, run_launch
from tvm_ipu.kernels import core_model
from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.emit import Emitter, flat_buffer
from tvm_ipu.kernels.isa import find_dot
from tvm_ipu.kernels.launch import Launch
from tvm_ipu.kernels.templates import conv2d, depthwise, gemm, matmul
from tvm_ipu.kernels.window import MAX_STATIC_PRODUCTS, Window


@settings(max_examples=30, deadline=None, derandomize=True)
@given(size=st.integers(1, 60), block=st.integers(1, 20), per_unit=st.integers(1, 8))
def test_blocks_visit_every_element_once(size, block, per_unit):
    blocks = Blocks(size, block, per_unit)
    assert sum(length * count for length, count in blocks.pieces()) == size
    e = Emitter()
    visits = flat_buffer("visits", size, "int32")

    def count_visit(start, length):
        with e.loop("i", 0, length) as i:
            e.store(visits, start + i, e.load(visits, start + i) + 1)

    with e.loop("unit", 0, blocks.units, tirx.ForKind.PARALLEL) as unit:
        blocks.emit(e, "block", unit, count_visit)
    func = tirx.PrimFunc([visits], e.finish())
    counted = np.zeros(size, np.int32)
    launch = Launch(func, (("param", 0),), blocks.units, 1, "test", 0)
    run_launch(launch, [counted], TARGETS[16])
    np.testing.assert_array_equal(counted, 1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    width=st.integers(1, 40),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 3),
    left=st.integers(0, 9),
    right=st.integers(0, 9),
    dilation=st.integers(1, 3),
    block=st.integers(1, 12),
)
def test_segments_hold_the_taps_inside_the_image(width, kernel, stride, left, right, dilation, block):
    window = Window(1, (1, width), (1, kernel), (1, stride), (0, left, 0, right), (1, dilation))
    columns = window.output[1]
    if columns < 1:
        return
    expected = {
        (column, tap)
        for column in range(columns)
        for tap in range(kernel)
        if 0 <= column * stride + tap * dilation - left < width
    }
    found = []
    for segment in window.segments(block):
        for number in range(segment.count):
            start = segment.start + number * segment.width
            for tap, count, inside in segment.runs(mergeable=True):
                found += [(start + column, t) for column in inside for t in range(tap, tap + count)]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_many_taps_become_a_loop():
    wide = Window(1, (1, 3000), (1, 1024), (1, 1), (0, 512, 0, 511), (1, 1))
    segments = wide.segments(8)
    assert sum(len(segment.taps) for segment in segments) == 0
    assert [(s.start, s.width, s.edge) for s in segments] == [
        (0, 1, True),
        (512, 8, False),
        (2488, 1, False),
        (2489, 1, True),
    ]
    narrow = Window(1, (1, 3000), (1, 3), (1, 1), (0, 1, 0, 1), (1, 1))
    products = sum(stop - first for s in narrow.segments(8) for first, stop in s.taps)
    assert 0 < products <= MAX_STATIC_PRODUCTS


@pytest.mark.parametrize("lanes", TARGETS)
def test_register_tiles_fit(lanes):
    dot = find_dot("float32", "float32", TARGETS[lanes])
    shapes = list(core_model.tile_shapes(TARGETS[lanes], dot))
    assert (1, 1) in shapes
    for rows, vectors in shapes:
        assert rows * vectors + vectors + 1 <= TARGETS[lanes].vector_registers


def test_grain_is_the_work_of_a_thread():
    assert core_model.grain(2_500, 7) == 7
    assert core_model.grain(1_000_000, 10) == 1
    assert core_model.grain(50_000, 100) == 10


PROBLEMS = [
    (gemm, gemm.Problem(49, 512, 2048, 16, "float32", "float32", "float32")),
    (
        matmul,
        matmul.Problem((12,), (12,), (12,), 128, 64, 128, True, 16, "float32", "float32", "float32"),
    ),
    (
        conv2d,
        conv2d.Problem(
            Window(1, (28, 28), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
            1,
            128,
            128,
            16,
            "float32",
            "float32",
            "float32",
        ),
    ),
    (
        depthwise,
        depthwise.Problem(
            Window(1, (28, 28), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
            192,
            16,
            "float32",
            "float32",
            "float32",
        ),
    ),
]


@pytest.mark.parametrize(("template", "problem"), PROBLEMS, ids=lambda p: getattr(p, "__name__", ""))
def test_the_preferred_decision_keeps_the_multipliers_busy(template, problem):
    """The modelled time of the first decision is near the least possible, and no other is better."""
    target = TARGETS[16]
    decisions = template.space(problem, target)
    assert len(set(decisions)) == len(decisions)
    cycles = [template.cycles(problem, decision, target) for decision in decisions]
    assert cycles[0] == min(cycles)
    if template is not depthwise:
        products = {
            gemm: 49 * 512 * 2048,
            matmul: 12 * 128 * 64 * 128,
            conv2d: 28 * 28 * 128 * 9 * 128,
        }[template]
        assert cycles[0] < 1.5 * math.ceil(products / 32)
