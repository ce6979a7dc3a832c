"""The attention template against numpy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tvm import te, tirx, topi

from tests.unit.amx_kit import EMULATED, counts, emulation
from tests.unit.template_kit import TARGETS, evaluate, random_array
from tvm_ipu.base.target import load_target
from tvm_ipu.kernels.attention import Axes, attention, where


def softmax(x):
    power = np.exp(x - x.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def run(
    target,
    q,
    k,
    v,
    axes,
    extras=(),
    transform=lambda x, *_: x,
    reference=lambda x, *_: x,
    rtol=2e-6,
    dtype="float32",
):
    """Compare with float64; the arrays are stored as ``axes`` says."""
    tensors = [te.placeholder(a.shape, a.dtype.name, name=f"x{i}") for i, a in enumerate((q, k, v, *extras))]
    output = attention(*tensors[:3], axes, lambda x: transform(x, *tensors[3:]), dtype)
    got, launches = evaluate(dict(zip(tensors, (q, k, v, *extras), strict=True)), output, target)
    assert [launch.template for launch in launches] == ["attention"]
    wide = [
        a.astype(np.float64).transpose(own) for a, own in ((q, axes.query), (k, axes.key), (v, axes.value))
    ]
    weights = softmax(reference(wide[0] @ wide[1].swapaxes(-1, -2), *extras))
    expected = (weights @ wide[2]).transpose(np.argsort(axes.result))
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


HEADS_FIRST = Axes(*[(0, 1, 2, 3)] * 4)
TOKENS_FIRST = Axes(*[(0, 2, 1, 3)] * 4)


@pytest.mark.parametrize("lanes", TARGETS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    batch=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    queries=st.integers(1, 40),
    keys=st.integers(1, 50),
    depth=st.integers(1, 40),
    width=st.integers(1, 40),
    tokens_first=st.booleans(),
    shared=st.booleans(),
)
def test_shapes(lanes, batch, queries, keys, depth, width, tokens_first, shared):
    rng = np.random.default_rng(0)
    axes = TOKENS_FIRST if tokens_first else HEADS_FIRST

    def matrices(heads, rows, columns):
        shape = (batch[0], rows, heads, columns) if tokens_first else (batch[0], heads, rows, columns)
        return random_array(rng, shape, "float32")

    heads = 1 if shared else batch[1]
    q, k, v = matrices(batch[1], queries, depth), matrices(heads, keys, depth), matrices(heads, keys, width)
    run(TARGETS[lanes], q, k, v, axes)


@pytest.mark.parametrize("shape", [(1, 1, 1, 37), (2, 1, 1, 37), (2, 1, 19, 37), (1, 3, 19, 37), (37,)])
def test_scale_and_additive_mask(shape):
    rng = np.random.default_rng(1)
    q, k, v = (random_array(rng, (2, rows, 3, 24), "float32") for rows in (19, 37, 37))
    mask = np.where(rng.random(shape) < 0.3, np.float32(-10000), np.float32(0))
    run(
        TARGETS[16],
        q,
        k,
        v,
        TOKENS_FIRST,
        (mask,),
        lambda x, m: topi.add(topi.multiply(x, 0.25), m),
        lambda x, m: x * 0.25 + m,
    )


@pytest.mark.parametrize("lanes", TARGETS)
def test_causal_mask_of_infinities_hides_keys(lanes):
    rng = np.random.default_rng(2)
    q, k, v = (random_array(rng, (2, 2, 33, 20), "float32") for _ in range(3))
    seen = np.tril(np.ones((33, 33), bool))
    hidden = tirx.const(-np.inf, "float32")
    run(
        TARGETS[lanes],
        q,
        k,
        v,
        HEADS_FIRST,
        (seen,),
        lambda x, m: where(m, x, hidden),
        lambda x, m: np.where(m, x, -np.inf),
    )


@pytest.mark.parametrize("lanes", [16, 1])
def test_large_scores_do_not_overflow(lanes):
    rng = np.random.default_rng(3)
    q, k, v = (random_array(rng, (3, 21, 18), "float32") for _ in range(3))
    run(TARGETS[lanes], q * 40, k * 40, v, Axes(*[(0, 1, 2)] * 4), rtol=3e-4)


@pytest.mark.parametrize(
    ("target", "dtype", "rounded"),
    [
        ("x86-64-v4", "bfloat16", False),
        ("x86-64-v4", "float16", True),
        ("x86-64-v3", "bfloat16", True),
        ("x86-64-v3", "float16", False),
        ("x86-64-v2", "bfloat16", True),
        ("x86-64-vnni-bf16", "bfloat16", False),
        ("x86-64-vnni-bf16", "bfloat16", True),
    ],
)
def test_sixteen_bit_operands(target, dtype, rounded):
    rng = np.random.default_rng(4)
    q, k, v = (random_array(rng, (2, rows, 2, 33), dtype) for rows in (26, 45, 45))
    rtol = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype] if rounded else 2e-6
    run(load_target(target), q, k, v, TOKENS_FIRST, rtol=rtol, dtype=dtype if rounded else "float32")


@pytest.mark.parametrize(("queries", "keys", "depth", "width"), [(32, 64, 64, 40), (12, 32, 32, 80)])
def test_tile_registers(queries, keys, depth, width):
    rng = np.random.default_rng(5)
    shapes = (2, queries, 3, depth), (2, keys, 3, depth), (2, keys, 3, width)
    q, k, v = (random_array(rng, shape, "bfloat16") for shape in shapes)
    with emulation() as emulator:
        counts(emulator)
        run(EMULATED, q, k, v, TOKENS_FIRST, rtol=2.0**-8, dtype="bfloat16")
        assert counts(emulator)["multiply"] > 0


@pytest.mark.parametrize("target", [TARGETS[8], load_target("x86-64-vnni")], ids=lambda target: target.name)
def test_eight_bit_queries_and_keys(target):
    rng = np.random.default_rng(5)
    q, k = (random_array(rng, (2, rows, 2, 33), dtype) for rows, dtype in ((26, "uint8"), (45, "int8")))
    v = random_array(rng, (2, 45, 2, 33), "float32")
    shift = rng.integers(-9999, 9999, (2, 2, 1, 45)).astype("int32")
    run(
        target,
        q,
        k,
        v,
        TOKENS_FIRST,
        (shift,),
        lambda x, s: topi.multiply(topi.cast(topi.subtract(x, s), "float32"), 1e-5),
        lambda x, s: (x - s) * 1e-5,
    )
