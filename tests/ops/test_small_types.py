"""Floats of 8 and 4 bits and integers of 4 and 2: every number of each type, and conversions at its edges.

Expected are ml_dtypes and onnx's own saturation.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from onnx import helper, numpy_helper

from scripts.node_suite import compile_image
from tests.ops.op_kit import Array, Case
from tvm_ipu.runtime.session import Session

FLOATS = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn")
INTEGERS = ("int4", "uint4", "int2", "uint2")
OPSET = 25


def every_number(label: str) -> Array:
    bits = {"4": 4, "2": 2}.get(label.removeprefix("u").removeprefix("int"), 4 if "float4" in label else 8)
    return np.arange(2**bits, dtype=np.uint8).view(getattr(ml_dtypes, label))


def cast(values: Array, label: str, **attrs: int) -> Array:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, label, label)))
    case = Case("cast", "Cast", [values], {"to": code, **attrs}, opset=OPSET)
    with Session(compile_image(case.model(), {}, "host")) as session:
        assert session.outputs[0].dtype.label == label
        return session.run(case.feeds())["y0"]


def bits(array: Array) -> Array:
    """Without the differences among numbers that are none."""
    values = array.astype(np.float32)
    return np.where(np.isnan(values), -1, array.view(np.uint8).astype(int))


def edges(label: str) -> Array:
    """All numbers of a type, those half-way between, their neighbours, and numbers far away."""
    known = np.unique(every_number(label).astype(np.float32))
    known = known[np.isfinite(known)]
    top = 2 * known[-1] - known[-2]
    known = np.concatenate([known, [top, -top]]).astype(np.float32)
    known.sort()
    middle = (known[1:] + known[:-1]) / 2
    exact = np.concatenate([known, middle])
    near = [np.nextafter(exact, np.float32(side)) for side in (-np.inf, np.inf)]
    far = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30, -1e-30, -0.0], np.float32)
    return np.concatenate([exact, *near, far]).astype(np.float32)


@pytest.mark.parametrize("label", [*FLOATS, "float8_e8m0fnu", *INTEGERS])
def test_numbers_go_through(label: str) -> None:
    numbers = every_number(label)
    wide = "float32" if "float" in label else "int8"
    np.testing.assert_array_equal(cast(numbers, wide), numbers.astype(wide))
    np.testing.assert_array_equal(bits(cast(numbers, label)), bits(numbers))


@pytest.mark.parametrize("label", FLOATS)
def test_floats_are_rounded(label: str) -> None:
    values, kind = edges(label), np.dtype(getattr(ml_dtypes, label))
    saturated = numpy_helper.saturate_cast(values, kind)
    number = ~np.isnan(values) if label == "float4_e2m1fn" else slice(None)  # it has no NaN
    np.testing.assert_array_equal(bits(cast(values, label))[number], bits(saturated)[number])
    found = cast(values, label, saturate=0)
    np.testing.assert_array_equal(bits(found)[number], bits(values.astype(kind))[number])


@given(st.lists(st.floats(width=32), min_size=32, max_size=32), st.sampled_from(FLOATS[:4]))
@settings(max_examples=8, deadline=None)
def test_any_float_is_rounded(numbers: list[float], label: str) -> None:
    values = np.array(numbers, np.float32)
    expected = numpy_helper.saturate_cast(values, np.dtype(getattr(ml_dtypes, label)))
    np.testing.assert_array_equal(bits(cast(values, label)), bits(expected))


@pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
def test_exponents(round_mode: str) -> None:
    values = np.array([1.0, 1.1, 1.5, 1.75, 2.0, 3.0, 3e38, 1e-38, np.inf, np.nan], np.float32)
    found = cast(values, "float8_e8m0fnu", round_mode=round_mode)
    np.testing.assert_array_equal(bits(found), bits(numpy_helper.to_float8e8m0(values, True, round_mode)))


@pytest.mark.parametrize("label", INTEGERS)
def test_integers_keep_their_low_bits(label: str) -> None:
    values = np.arange(-30, 30, dtype=np.int32)
    np.testing.assert_array_equal(bits(cast(values, label)), bits(values.astype(getattr(ml_dtypes, label))))


def test_a_session_takes_bits_too() -> None:
    numbers = every_number("int4")
    case = Case(
        "cast", "Cast", [numbers], {"to": helper.np_dtype_to_tensor_dtype(np.dtype("int8"))}, opset=OPSET
    )
    with Session(compile_image(case.model(), {}, "host")) as session:
        found = session.run({"x0": numbers.view(np.uint8)})["y0"]
    np.testing.assert_array_equal(found, numbers.astype(np.int8))
