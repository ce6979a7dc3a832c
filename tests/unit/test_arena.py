"""The arena planner and the constant pool."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from tvm_ipu.base.program import ALIGNMENT, Space
from tvm_ipu.codegen.tensors import ConstantPool, Storage, plan_arena

lifetimes = st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10))


@given(st.lists(lifetimes, max_size=40), st.sampled_from([0, 64, 4096]))
def test_storages_alive_together_never_overlap(sizes: list[tuple[int, int, int]], start: int) -> None:
    storages = [Storage(Space.ARENA, size, first=first, last=first + length) for size, first, length in sizes]
    total = plan_arena(storages, start)
    for i, one in enumerate(storages):
        assert one.offset % ALIGNMENT == 0
        assert start <= one.offset
        assert one.offset + one.size <= max(total, start)
        for other in storages[:i]:
            together = one.first <= other.last and other.first <= one.last
            apart = one.offset + one.size <= other.offset or other.offset + other.size <= one.offset
            assert not together or apart or not one.size or not other.size


def test_memory_is_reused() -> None:
    chain = [Storage(Space.ARENA, 1000, first=i, last=i + 1) for i in range(10)]
    assert plan_arena(chain, 0) == 2048


def test_equal_constants_are_stored_once() -> None:
    pool = ConstantPool()
    weight = np.arange(6, dtype="float32").reshape(2, 3)
    first, again = pool.add(weight), pool.add(weight.copy().reshape(3, 2))
    index = pool.add(np.arange(6, dtype="int64"))
    assert first is again
    assert first.space is Space.WEIGHTS
    assert index.space is Space.CONSTS
    assert b"".join(pool.weights.parts) == weight.tobytes()
    assert len(pool.consts) == 48
