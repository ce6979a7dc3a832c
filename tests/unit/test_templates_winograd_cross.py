"""Winograd's filtering on other machines, under qemu, against float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit import link_kit as kit
from tests.unit.test_templates_conv2d import conv2d_reference
from tests.unit.test_templates_dot_cross import TARGETS, Batch, placeholders
from tvm_ipu.base.target import load_target
from tvm_ipu.kernels import computes, packing
from tvm_ipu.kernels.winograd import OUTPUTS

pytestmark = [pytest.mark.qemu, pytest.mark.slow]


@pytest.mark.parametrize("name", TARGETS)
def test_convolutions(name: str, tmp_path: Path) -> None:
    target = load_target(name)
    kit.need_qemu(target)
    kernels = Batch(target, tmp_path)
    rng = np.random.default_rng(0)
    for outputs in OUTPUTS:
        x = rng.standard_normal((1, 9, 11, 20)).astype(np.float32)
        weight = (rng.standard_normal((21, 3, 3, 20)) / 13).astype(np.float32)
        inputs = placeholders(x, packing.pack_winograd(weight, target.lanes(), outputs))
        padding = (1, 2, 0, 1)
        expected = conv2d_reference(x, weight, (1, 1), padding, (1, 1), 1).astype(np.float32)
        kernels.add(f"F({outputs}, 3)", inputs, computes.winograd_conv2d(*inputs, 21, padding), expected)
    kernels.check(kit.build_runner(target, tmp_path))
