"""The numpy oracle against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tvm_ipu.quantize import reference as ref
from tvm_ipu.quantize.reference import Meaning, Operand

FAMILIES = st.sampled_from(ref.FAMILIES)
int32 = st.integers(-(2**31) + 1, 2**31 - 1)
ratios = st.floats(1e-9, 4.0)
uint8 = st.integers(0, 255)
steady = settings(deadline=None)


def exact(value: Fraction, meaning: Meaning) -> Fraction:
    """Steps of the result, clipped, without rounding."""
    low, high = meaning.bounds
    return min(max(value + meaning.zero, Fraction(int(low))), Fraction(int(high)))


@steady
@given(int32, ratios, uint8, FAMILIES)
def test_requantised_sums_are_nearest(total, ratio, zero, family):
    result = Meaning("uint8", 1.0, zero)
    y = ref.requantize(np.array([total]), np.float64(ratio), result, family)[0]
    wanted = exact(total * Fraction(ratio), result)
    slack = Fraction(1, 2) + abs(wanted) * Fraction(1, 2**20)  # float32 rounds three times
    assert abs(int(y) - wanted) <= slack


@steady
@given(st.integers(-1000, 1000))
def test_halves(total):
    result = Meaning("int16", 1.0)
    even, up = (ref.requantize(np.array([total]), np.float64(0.5), result, f)[0] for f in ref.FAMILIES)
    assert even == np.rint(total / 2)
    assert up == (total + 1) // 2


@steady
@given(st.floats(1e-15, 1e8))
def test_fixed_point_has_31_bits(ratio):
    multiplier, shift = (int(v) for v in ref.fixed_point(np.float64(ratio)))
    assert 1 <= shift <= 62
    assert multiplier < 2**31
    if shift < 62:
        assert multiplier >= 2**30
        assert abs(Fraction(multiplier, 2**shift) / Fraction(ratio) - 1) <= Fraction(1, 2**31)


def test_fixed_point_refuses_what_it_cannot_express():
    with pytest.raises(ValueError, match="2\\*\\*30"):
        ref.fixed_point(np.float64(2.0**31))


@steady
@given(uint8, uint8, uint8, uint8, st.floats(0.01, 5), st.floats(0.01, 5))
def test_additions_do_not_depend_on_fused_multiply_add(a, b, a_zero, b_zero, a_scale, b_scale):
    result = Meaning("uint8", 1.0, 100)
    operands = [
        Operand(np.array([a]), Meaning("uint8", a_scale, a_zero)),
        Operand(np.array([b]), Meaning("uint8", b_scale, b_zero)),
    ]
    y = int(ref.add(operands, result, "float-requant")[0])
    left, right = (Fraction(ref.short_ratio(s, 16)) for s in (a_scale, b_scale))
    products = (a - a_zero) * left, (b - b_zero) * right
    assert all(Fraction(float(np.float32(float(p)))) == p for p in products)  # exact in float32
    fused = np.float32(float(products[0] + products[1]))  # one rounding, as with a fused multiply-add
    assert y == int(np.clip(np.rint(fused), -100, 155)) + 100


@steady
@given(uint8, uint8, st.floats(0.01, 5), st.floats(0.01, 5), FAMILIES)
def test_additions_are_nearest(a, b, a_scale, b_scale, family):
    result = Meaning("uint8", 1.0, 30)
    operands = [Operand(np.array([v]), Meaning("uint8", s, 9)) for v, s in ((a, a_scale), (b, b_scale))]
    wanted = exact((a - 9) * Fraction(a_scale) + (b - 9) * Fraction(b_scale), result)
    assert abs(int(ref.add(operands, result, family)[0]) - wanted) < Fraction(52, 100)


@steady
@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(1, 2))
def test_convolution_is_its_definition(seed, kernel, groups, stride):
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (1, groups * 2, 5, 6))
    w = random.integers(-128, 128, (groups * 3, 2, kernel, kernel))
    sums = ref.conv2d(x, 7, w, (stride, stride), (1, 0, 0, 1), groups=groups)
    padded = np.pad(x - 7, ((0, 0), (0, 0), (1, 0), (0, 1)))
    for at in ((0, 0), (sums.shape[2] - 1, sums.shape[3] - 1)):
        y, z = (v * stride for v in at)
        window = padded[0, :, y : y + kernel, z : z + kernel].reshape(groups, 2, kernel, kernel)
        expected = [(window[o // 3] * w[o]).sum() for o in range(groups * 3)]
        np.testing.assert_array_equal(sums[0, :, at[0], at[1]], expected)


def test_tables_saturate_and_survive_nan():
    x, y = Meaning("int8", 1.0, 0), Meaning("uint8", 1.0, 5)
    with np.errstate(all="ignore"):
        entries = ref.table(lambda v: np.log(v) * 1000, x, y)
    assert entries[0] == 5  # NaN: the zero point
    assert entries[128] == 0  # minus infinity
    assert entries[129 + 10] == 255
