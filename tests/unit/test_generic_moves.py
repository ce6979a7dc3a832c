"""The generic rule where elements only move: planes, transposes, parts, padding, indices."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi
from tvm import te, tirx, topi

from tests.unit.generic_kit import LANES, Tensor, close, is_scheduled, normal, run, scheduled
from tests.unit.template_kit import TARGETS, random_array
from tvm_ipu.base.tensor import numpy_dtype


@pytest.mark.parametrize("dtype", ["float32", "int8", "float16", "bfloat16"])
@pytest.mark.parametrize("lanes", [16, 4])
@pytest.mark.parametrize("shape", [(1, 3, 20, 31), (2, 3, 16, 17), (1, 2, 40, 5), (3, 4, 33, 1)])
def test_planes_become_pixels(shape: tuple[int, ...], dtype: str, lanes: int) -> None:
    x = random_array(np.random.default_rng(0), shape, dtype)
    batch, planes, height, width = shape

    def pixels(a: Tensor) -> Tensor:
        return te.compute(
            (batch, height, width, planes), lambda b, y, z, c: a(b, c, y, z) * tirx.const(2, dtype)
        )

    found, _ = run(pixels, [x], TARGETS[lanes])
    np.testing.assert_array_equal(found, np.moveaxis(x * x.dtype.type(2), 1, -1))


def test_planes_become_pixels_with_padding_around_them() -> None:
    """Both axes of the image are padded: vectors still run along its rows."""
    x = normal(1, 3, 20, 33)

    def build(a: Tensor) -> Tensor:
        return topi.nn.pad(topi.transpose(a, (0, 2, 3, 1)), (0, 3, 3, 0), (0, 2, 2, 0))

    found, (launch,) = run(build, [x], TARGETS[16])
    np.testing.assert_array_equal(found, np.pad(np.moveaxis(x, 1, -1), [(0, 0), (3, 2), (3, 2), (0, 0)]))
    assert is_scheduled(launch)
    shuffles: list[tirx.Shuffle] = []
    tvm_ffi.structural_walk(launch.func.body, (tirx.Shuffle, shuffles.append))
    assert shuffles


@pytest.mark.parametrize("lanes", [16, 4])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("shape", [(1, 20, 20, 64), (3, 777), (5, 7, 13), (40, 130)])
def test_tables_of_bytes(shape: tuple[int, ...], dtype: str, lanes: int) -> None:
    rng = np.random.default_rng(0)
    table, x = (
        rng.integers(0, 256, 256).astype("uint8").view(dtype),
        rng.integers(0, 256, shape).astype("uint8"),
    )
    found, _ = run(lambda t, a: topi.take(t, a, axis=0, mode="fast"), [table, x], TARGETS[lanes])
    np.testing.assert_array_equal(found, table[x])


@LANES
@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_transpose(order: tuple[int, ...], lanes: int) -> None:
    for shape in [(5, 33, 64), (17, 40, 3), (64, 48, 32)]:
        x = normal(*shape)
        found, launches = run(lambda a: topi.transpose(a, order), [x], TARGETS[lanes])
        np.testing.assert_array_equal(found, x.transpose(order))
        assert scheduled(launches, TARGETS[lanes])


@LANES
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concatenation_of_computed_parts(axis: int, lanes: int) -> None:
    shapes = [(6, 7, 21), (6, 7, 21), (6, 7, 21)]
    for i, extent in enumerate([5, 16, 1]):
        shapes[i] = (*shapes[i][:axis], extent, *shapes[i][axis + 1 :])
    x, y, z = (normal(*shape, seed=i) for i, shape in enumerate(shapes))

    def build(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return topi.concatenate([topi.nn.relu(a), topi.exp(b), c], axis)

    found, _ = run(build, [x, y, z], TARGETS[lanes])
    close(found, np.concatenate([np.maximum(x, 0), np.exp(y), z], axis))


@LANES
@pytest.mark.parametrize("before", [(0, 0, 3), (1, 2, 0), (2, 2, 2)])
def test_padding_of_a_computed_value(before: tuple[int, ...], lanes: int) -> None:
    x, after = normal(4, 20, 33), (1, 0, 2)

    def build(a: Tensor) -> Tensor:
        return topi.sigmoid(topi.nn.pad(topi.exp(a), before, after, tirx.const(0.5, "float32")))

    found, _ = run(build, [x], TARGETS[lanes])
    padded = np.pad(np.exp(x), list(zip(before, after, strict=True)), constant_values=0.5)
    close(found, 1 / (1 + np.exp(-padded)))


@LANES
def test_strided_slice_and_reshape(lanes: int) -> None:
    x = normal(8, 30, 44)

    def build(a: Tensor) -> Tensor:
        part = topi.strided_slice(a, [1, 3, 2], [8, 30, 44], [2, 1, 3])
        return topi.add(topi.reshape(part, (4 * 27, 14)), tirx.const(1.0, "float32"))

    found, _ = run(build, [x], TARGETS[lanes])
    close(found, x[1:8:2, 3:30, 2:44:3].reshape(4 * 27, 14) + 1, 1e-7)


@LANES
@pytest.mark.parametrize("axis", [0, 1])
def test_gather(axis: int, lanes: int) -> None:
    x, at = normal(50, 60), np.random.default_rng(1).integers(0, 50, (7, 9))
    found, _ = run(lambda a, i: topi.take(a, i, axis, mode="fast"), [x, at], TARGETS[lanes])
    np.testing.assert_array_equal(found, np.take(x, at, axis))


@LANES
def test_clamped_indices_stay_within_bounds(lanes: int) -> None:
    x, at = normal(50, 6), np.array([-(2**40), -1, 0, 49, 50, 2**40])
    found, _ = run(lambda a, i: topi.take(a, i, 0, mode="clip"), [x, at], TARGETS[lanes])
    np.testing.assert_array_equal(found, x[np.clip(at, 0, 49)])


@LANES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_floats_are_moved_bit_for_bit(dtype: str, lanes: int) -> None:
    x = np.random.default_rng(0).integers(0, 2**16, (33, 70)).astype(np.uint16).view(numpy_dtype(dtype))

    def build(a: Tensor) -> Tensor:
        return topi.transpose(topi.nn.pad(a, [0, 2], [1, 0], tirx.const(0.0, dtype)), [1, 0])

    found, _ = run(build, [x], TARGETS[lanes])
    expected = np.pad(x.view(np.uint16), [(0, 1), (2, 0)]).T
    np.testing.assert_array_equal(found.view(np.uint16), expected)
