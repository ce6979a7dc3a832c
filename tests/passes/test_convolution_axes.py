"""Convolutions over one and three axes become 2-D ones that take their elementwise followers with them."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import relax

from tests.passes.test_passes import build, constant, image_like, operators, run
from tvm_ipu.base.target import load_target
from tvm_ipu.passes.flatten_depth import flatten_depth
from tvm_ipu.passes.fold_constants import fold_constants
from tvm_ipu.passes.lower_operators import lower_operators
from tvm_ipu.passes.sink_reshapes import sink_reshapes


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((6, 4, 3, 3, 3), {"padding": 1}),
        ((6, 4, 3, 2, 1), {"strides": [2, 1, 2], "padding": [0, 1, 0, 2, 0, 0]}),
        ((6, 4, 2, 3, 3), {"dilation": [3, 2, 1]}),
        ((6, 4, 1, 1, 1), {"strides": [2, 2, 2]}),
        ((6, 2, 3, 3, 3), {"groups": 2, "padding": 1}),
        ((4, 1, 3, 3, 3), {"groups": 4, "padding": 1}),
    ],
)
def test_flatten_depth_gives_what_the_convolution_gives(kernel, options) -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        return builder.emit(relax.op.nn.conv3d(x, constant(*kernel), **options))

    before = build(body, 2, 4, 5, 6, 7)
    after = flatten_depth(before)
    assert "nn.conv3d" not in operators(after)
    assert operators(after).count("nn.conv2d") == (3 if options.get("groups") == 4 else 1)
    x = image_like(2, 4, 5, 6, 7)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


def test_sink_reshapes_brings_bias_and_activation_to_the_convolution() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        image = builder.emit(relax.op.reshape(x, (2, 4, 1, 9)))
        y = builder.emit(relax.op.nn.conv2d(image, constant(6, 4, 1, 3), padding=[0, 1]))
        y = builder.emit(relax.op.reshape(y, (2, 6, 9)))
        y = builder.emit(relax.op.add(y, constant(1, 6, 1, seed=1)))
        y = builder.emit(relax.op.clip(y, 0, 1))
        y = builder.emit(relax.op.add(y, builder.emit(relax.op.sigmoid(y))))
        image = builder.emit(relax.op.reshape(y, (2, 6, 1, 9)))
        return builder.emit(relax.op.nn.conv2d(image, constant(3, 6, 1, 1, seed=2)))

    before = build(body, 2, 4, 9)
    after = fold_constants(sink_reshapes(before))
    assert operators(after) == ["reshape", "nn.conv2d", "add", "clip", "sigmoid", "add", "nn.conv2d"]
    x = image_like(2, 4, 9)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


def test_sink_reshapes_takes_a_residual_of_another_shape() -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        image = builder.emit(relax.op.reshape(x, (2, 4, 1, 9)))
        y = builder.emit(relax.op.nn.conv2d(image, constant(4, 4, 1, 3), padding=[0, 1]))
        return builder.emit(relax.op.add(builder.emit(relax.op.reshape(y, (2, 4, 9))), x))

    before = build(body, 2, 4, 9)
    after = sink_reshapes(before)
    assert operators(after) == ["reshape", "nn.conv2d", "reshape", "add", "reshape"]
    x = image_like(2, 4, 9)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("other", [(2, 3, 1), (2, 3, 12), (1, 1, 12)])
def test_sink_reshapes_leaves_what_has_no_counterpart_before_the_reshape(other: tuple[int, ...]) -> None:
    """Groups of channels: neither a mean of each nor a value for each element of one broadcasts to NCHW."""

    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        y = builder.emit(relax.op.nn.conv2d(x, constant(6, 6, 1, 1)))
        y = builder.emit(relax.op.reshape(y, (2, 3, 12)))
        return builder.emit(relax.op.add(y, constant(*other)))

    before = build(body, 2, 6, 2, 3)
    after = sink_reshapes(before)
    moved = other == (2, 3, 12)
    assert operators(after) == ["nn.conv2d", *(("add", "reshape") if moved else ("reshape", "add"))]
    x = image_like(2, 6, 2, 3)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("columns", "is_stored"), [(3, False), (65, True)])
def test_padding_of_a_wide_window_is_stored(columns: int, is_stored: bool) -> None:
    def body(builder: relax.BlockBuilder, x: relax.Var) -> relax.Expr:
        options = {"padding": [0, columns // 2], "data_layout": "NHWC", "kernel_layout": "OHWI"}
        return builder.emit(relax.op.nn.conv2d(x, constant(32, 1, columns, 16), **options))

    target = load_target("x86-64-v3")
    after = lower_operators(build(body, 1, 1, 50, 16), target)
    assert operators(after) == [*(["nn.pad"] if is_stored else []), "call_tir"]
