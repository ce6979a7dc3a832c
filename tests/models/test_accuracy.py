"""Accuracy of calibrated networks on labelled data that they were not calibrated on."""

from __future__ import annotations

import pytest

from scripts.accuracy import measure, measure_mobilenet

pytestmark = [pytest.mark.network, pytest.mark.slow]


def test_cifar_10():
    found = {result.level: result.accuracy for result in measure(["L1", "L5", "Q23"], 100)}
    assert found["float"] > 0.82
    assert found["L1"] >= found["float"] - 0.010
    assert found["L5"] >= found["float"] - 0.002
    assert found["Q23"] >= found["float"] - 0.010


def test_mobilenet_v2_on_imagenet():
    """The quantisers of NNCF 3.4 and onnxruntime give 18.9 and 7.9 dB with the same photographs."""
    found = {result.level: result for result in measure_mobilenet(["L4"])}
    assert found["float"].accuracy == 18 / 20
    assert found["L4"].accuracy >= 17 / 20
    assert found["L4"].decibels > 18.9
