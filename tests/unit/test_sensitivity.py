"""Which layers stay in float32, on errors that are known: independent layers add up as squares."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from tvm_ipu.base.program import Arg, Call, Plan, Program, Space
from tvm_ipu.base.target import load_target
from tvm_ipu.quantize.sensitivity import MARGIN, Sensitivity, layer_sensitivities, sensitive_layers

LAYERS = {
    "dear": Sensitivity(0.010, 1000.0),
    "cheap": Sensitivity(0.009, 10.0),
    "small": Sensitivity(0.003, 10.0),
    "none": Sensitivity(0.0, 500.0),
}
BOUND = 0.02


def measured(
    scale: float = 1.0, least: float = 0.0
) -> tuple[Callable[[tuple[str, ...]], float], list[tuple[str, ...]]]:
    """Error of all layers that are not kept, times ``scale``, on top of ``least``; and what was asked."""
    asked: list[tuple[str, ...]] = []

    def measure(kept: tuple[str, ...]) -> float:
        asked.append(kept)
        return math.hypot(least, *(scale * s.error for name, s in LAYERS.items() if name not in kept))

    return measure, asked


def unwanted() -> dict[str, Sensitivity]:
    raise AssertionError("no layer's sensitivity is needed")


def test_where_16_bits_cost_little_nothing_is_asked_of_the_layers() -> None:
    measure, asked = measured(scale=0.1)
    kept, error = sensitive_layers(unwanted, measure, BOUND)
    assert kept == ()
    assert error == pytest.approx(0.1 * math.sqrt(0.010**2 + 0.009**2 + 0.003**2))
    assert asked == [()]


def test_layer_that_saves_most_error_for_its_time_is_kept() -> None:
    measure, asked = measured(scale=0.62)  # all: 0.0085, without the cheap one: 0.0065
    kept, error = sensitive_layers(lambda: LAYERS, measure, BOUND)
    assert kept == ("cheap",)
    assert error <= MARGIN * BOUND
    assert len(asked) == 2


def test_cheap_layer_is_not_kept_where_the_dear_one_is_needed_anyway() -> None:
    layers = LAYERS | {"dear": Sensitivity(0.1, 1000.0), "cheap": Sensitivity(0.003, 10.0)}

    def measure(kept: tuple[str, ...]) -> float:
        return math.hypot(0.0, *(s.error for name, s in layers.items() if name not in kept))

    kept, _ = sensitive_layers(lambda: layers, measure, BOUND)
    assert kept == ("dear",)


def test_choices_go_on_until_the_error_that_is_measured_is_small() -> None:
    measure, asked = measured(least=0.0075)
    kept, error = sensitive_layers(lambda: LAYERS, measure, BOUND)
    assert error <= MARGIN * BOUND
    assert set(asked[1]) == {"dear", "cheap"}  # with 0.0081 left
    assert set(kept) == {"dear", "cheap", "small"}


def test_where_no_choice_keeps_the_bound_all_layers_are_kept_and_the_error_is_told() -> None:
    measure, _ = measured(least=0.03)
    kept, error = sensitive_layers(lambda: LAYERS, measure, BOUND)
    assert set(kept) >= {"dear", "cheap", "small"}
    assert error == pytest.approx(0.03)


def test_sensitivities_are_of_each_layer_s_own_weights() -> None:
    weights = np.array([1.0, 1.0 + 2**-9, 3.0, 5.0], np.float32)  # bfloat16 has 8 bits, so the second rounds

    def call(layer: str, offset: int, flops: int) -> Call:
        args = (Arg(Space.ARENA, 0, 0, 4), Arg(Space.WEIGHTS, 0, offset, 8))
        return Call("k", args, 1, 1, layer, "dense", "gemm", flops, 16)

    plan = Plan((), (), (), (), (call("a+relu", 0, 1000), call("b", 8, 1)), 0, 0, 0)
    program = Program(load_target("x86-64-v3"), (plan,), b"", {}, weights.tobytes(), b"")

    used = weights.copy()
    found = layer_sensitivities(
        program, used.view(np.uint8), lambda: [used.copy()], np.dtype(ml_dtypes.bfloat16)
    )
    assert found["a"] == Sensitivity(pytest.approx(2**-9 / 5), 1000)
    assert found["b"] == Sensitivity(0.0, 64)  # its weights are read for longer than they are used
    assert (used == weights).all()
