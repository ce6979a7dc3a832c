"""GELU in each of the forms that exporters write."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import relax

from tests.passes.test_passes import build, image_like, operators, run
from tvm_ipu.passes.fold_division import fold_division
from tvm_ipu.passes.fuse_gelu import fuse_gelu

R = relax.op
Builder = relax.BlockBuilder


def scalar(value: float) -> relax.Expr:
    return relax.const(np.float32(value))


def bracket(b: Builder, x: relax.Expr) -> relax.Expr:
    erf = b.emit(R.erf(b.emit(R.divide(x, scalar(math.sqrt(2))))))
    return b.emit(R.add(erf, scalar(1)))


def half_last(b: Builder, x: relax.Var) -> relax.Expr:
    return b.emit(R.multiply(b.emit(R.multiply(x, bracket(b, x))), scalar(0.5)))


def half_first(b: Builder, x: relax.Var) -> relax.Expr:
    half = b.emit(R.multiply(scalar(0.5), x))
    return b.emit(R.multiply(half, bracket(b, x)))


def half_inside(b: Builder, x: relax.Var) -> relax.Expr:
    return b.emit(R.multiply(b.emit(R.multiply(bracket(b, x), scalar(0.5))), x))


def erfc(b: Builder, x: relax.Var) -> relax.Expr:
    scaled = b.emit(R.multiply(b.emit(R.negative(x)), scalar(math.sqrt(0.5))))
    bracket = b.emit(R.subtract(scalar(1), b.emit(R.erf(scaled))))
    return b.emit(R.multiply(b.emit(R.multiply(scalar(0.5), x)), bracket))


@pytest.mark.parametrize("body", [half_last, half_first, half_inside, erfc])
def test_one_operator(body: Callable[[Builder, relax.Var], relax.Expr]) -> None:
    before = build(body, 3, 50)
    assert operators(fuse_gelu(fold_division(before))) == ["nn.gelu"]
    after = fuse_gelu(before)
    assert operators(after) == ["nn.gelu"]
    x = image_like(3, 50)
    np.testing.assert_allclose(run(after, x), run(before, x), rtol=1e-5, atol=1e-6)


def other_factor(b: Builder, x: relax.Var) -> relax.Expr:
    return b.emit(R.multiply(b.emit(R.multiply(x, bracket(b, x))), scalar(0.6)))


def other_tensor(b: Builder, x: relax.Var) -> relax.Expr:
    return b.emit(R.multiply(b.emit(R.multiply(b.emit(R.negative(x)), bracket(b, x))), scalar(0.5)))


def other_sign(b: Builder, x: relax.Var) -> relax.Expr:
    erf = b.emit(R.erf(b.emit(R.multiply(x, scalar(math.sqrt(0.5))))))
    return b.emit(R.multiply(b.emit(R.multiply(x, b.emit(R.subtract(scalar(1), erf)))), scalar(0.5)))


@pytest.mark.parametrize("body", [other_factor, other_tensor, other_sign])
def test_what_is_not_gelu_stays(body: Callable[[Builder, relax.Var], relax.Expr]) -> None:
    before = fold_division(build(body, 3, 5))
    tvm.ir.assert_structural_equal(fuse_gelu(before), before)
