"""Timing of repeated runs."""

import math

from tvm_ipu.bench.timing import Timing, measure


def test_summary_of_known_samples():
    timing = Timing((2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0))
    assert (timing.mean, timing.median, timing.max, timing.min) == (5.0, 4.5, 9.0, 2.0)
    assert math.isclose(timing.std, 2.0)


def test_contenders_take_turns_after_the_warmup():
    order = []
    a, b = measure([lambda: order.append("a"), lambda: order.append("b")], repeat=3, warmup=2)
    assert "".join(order) == "abab" + "ababab"
    assert len(a.samples) == len(b.samples) == 3
