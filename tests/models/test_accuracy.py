"""Accuracy of calibrated networks on labelled data that they were not calibrated on."""

from __future__ import annotations

import pytest

from scripts.accuracy import measure

pytestmark = [pytest.mark.network, pytest.mark.slow]


def test_cifar_10():
    found = {result.level: result.accuracy for result in measure(["L1", "L5", "Q23"], 100)}
    assert found["float"] > 0.82
    assert found["L1"] >= found["float"] - 0.010
    assert found["L5"] >= found["float"] - 0.002
    assert found["Q23"] >= found["float"] - 0.010
