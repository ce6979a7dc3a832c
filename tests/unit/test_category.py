"""Categories of models."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ipu.base.category import Box, boxes, check_category, top_scores
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.tensor import DType, TensorSpec


def spec(name, *shape):
    return TensorSpec(name, shape, DType.FLOAT32)


def test_top_scores_of_each_element():
    scores = np.array([[0.1, 0.9, 0.9, 0.2], [4, 3, 2, 1]])
    assert top_scores(scores, 2) == [[(1, 0.9), (2, 0.9)], [(0, 4.0), (1, 3.0)]]
    assert top_scores(np.array([1, 3, 2], np.int16)) == [[(1, 3.0), (2, 2.0), (0, 1.0)]]


def test_boxes_of_the_picture():
    outputs = {
        "boxes": np.array([[[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [9, 9, 9, 9]]], np.float32),
        "classes": np.array([[17, 3, 0]], np.float32),
        "scores": np.array([[0.75, 0.5, 0]], np.float32),
        "count": np.array([2], np.float32),
    }
    (found,) = boxes(outputs, 100, 200)
    assert [(box.label, box.score) for box in found] == [(17, 0.75), (3, 0.5)]
    assert found[1] == Box(3, 0.5, 0, 0, 200, 100)
    edges = [found[0].left, found[0].top, found[0].right, found[0].bottom]
    np.testing.assert_allclose(edges, [40, 10, 120, 50], rtol=1e-6)


def test_classes_and_counts_in_steps_of_a_fixed_model():
    """45 of a range of 75 and 1 of a range of 5 are a little less at 16 bits."""
    grid = [np.float32(np.rint(number / step) * step) for number, step in ((45, 75 / 32767), (1, 5 / 32767))]
    assert grid[0] < 45
    assert grid[1] < 1
    outputs = {
        "boxes": np.zeros((1, 2, 4), np.float32),
        "classes": np.array([[grid[0], 0]]),
        "scores": np.ones((1, 2), np.float32),
        "count": np.array([grid[1]]),
    }
    (found,) = boxes(outputs, 1, 1)
    assert [box.label for box in found] == [45]


@pytest.mark.parametrize(
    ("category", "outputs", "message"),
    [
        ("Segmentation", [spec("y", 1, 10)], "'Segmentation' is not known .allowed are Classification"),
        ("Classification", [spec("a", 1, 10), spec("b", 1)], "1 output, found 2: a, b"),
        ("Detection", [spec("a", 1, 10)], "4 outputs, found 1: a"),
        ("Detection", [spec("a", 1, 4)] * 4, r"boxes of shape \[N, boxes, 4\] as the first output, found a"),
    ],
)
def test_outputs_that_do_not_fit(category, outputs, message):
    with pytest.raises(OptionError, match=message):
        check_category(category, outputs)


def test_outputs_that_fit():
    check_category("Unknown", [spec("a", 1)] * 7)
    check_category("Classification", [spec("a", 1, 1000)])
    check_category("Detection", [spec("a", 1, 10, 4), spec("b", 1, 10), spec("c", 1, 10), spec("d", 1)])
