"""Softmax, normalisations and linear resize give the oracle's bytes on every target, under qemu."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.ops.integer_kit import Graph
from tests.ops.test_integer_rows import integers, whole
from tvm_ipu.base.target import load_target, target_names
from tvm_ipu.quantize import reference_functions as ref

TARGETS = [name for name in target_names() if load_target(name).qemu]
pytestmark = [pytest.mark.qemu, pytest.mark.slow]


@pytest.mark.parametrize("name", TARGETS)
def test_same_bytes(name: str, tmp_path: Path):
    g = Graph()
    for dtype in ("uint8", "int16"):
        bits = np.iinfo(dtype).bits
        x_is, x = whole(dtype, 20 / 2**bits), integers(bits, dtype, 5, 3, 48)
        y_is = whole(dtype, 1 / 2**bits)
        g.result(g.op("Softmax", [g.input(x, x_is)], axis=-1), y_is, ref.softmax(x, x_is, y_is))
        gamma, beta = np.random.default_rng(bits).normal(size=(2, 48)).astype(np.float32)
        real = g.op(
            "LayerNormalization", [g.input(x, x_is), g.constant(gamma), g.constant(beta)], epsilon=1e-5
        )
        z_is = whole(dtype, 10 / 2**bits)
        g.result(real, z_is, ref.normalise(x, x_is, [2], np.float32(1e-5), gamma, beta, z_is))
        picture = integers(1, dtype, 2, 5, 7, 6)
        sizes = g.constant(np.array([2, 5, 9, 12]))
        resized = g.op("Resize", [g.input(picture, x_is), "", "", sizes], mode="linear")
        expected = ref.linear_resize(picture, x_is, (9, 12), "half_pixel", x_is, "float-requant")
        g.result(resized, x_is, expected)
    target = load_target(name)
    g.compare(g.run_emulated(target, target.qemu, tmp_path))
