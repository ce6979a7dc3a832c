"""Rounded products of integers and floats on HVX, in integer arithmetic, are what IEEE float32 gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tvm import tirx

from tests.unit import link_kit as kit
from tvm_ipu.base.target import load_target
from tvm_ipu.codegen.link import link
from tvm_ipu.codegen.lower import compile_object
from tvm_ipu.kernels.emit import Emitter, flat_buffer, index

COUNT = 32 * 2000


def product_case(lanes: int, limit: float) -> kit.Case:
    """``int32(round(float32(a) * m))`` of vectors, clipped to a limit or of any size that int32 holds."""
    rng = np.random.default_rng(lanes)
    sums = rng.integers(-(2**31), 2**31, COUNT).astype("int32") >> rng.integers(0, 31, COUNT).astype("int32")
    scale = (np.exp(rng.uniform(-22, 3, COUNT)) * rng.choice([-1, 1], COUNT)).astype("float32")
    scale[::4] = np.exp2(np.round(np.log2(np.abs(scale[::4]))))  # ties
    scale[np.abs(sums.astype("float32") * scale) >= 2.0**31] = 0.25
    products = np.clip(sums.astype("float32") * scale, -limit, limit)

    e = Emitter()
    a, m, y = (flat_buffer(n, COUNT, t) for n, t in [("a", "int32"), ("m", "float32"), ("y", "int32")])
    with e.loop("i", 0, COUNT // lanes) as i:
        at = [tirx.Ramp(i * lanes, index(1), lanes)]
        value = tirx.BufferLoad(a, at).astype(f"float32x{lanes}") * tirx.BufferLoad(m, at)
        if limit < 2.0**31:
            bounds = [tirx.Broadcast(tirx.const(b, "float32"), lanes) for b in (limit, -limit)]
            value = tirx.Max(tirx.Min(value, bounds[0]), bounds[1])
        e.emit(tirx.BufferStore(y, tirx.round(value).astype(f"int32x{lanes}"), at))
    name = f"product_{lanes}_{int(limit)}"
    return kit.Case(
        name, tirx.PrimFunc([a, m, y], e.finish()), (sums, scale), np.rint(products).astype("int32")
    )


@pytest.mark.qemu
def test_rounded_products_are_exact(tmp_path: Path) -> None:
    target = load_target("hexagon-v67")
    kit.need_qemu(target)
    cases = [product_case(lanes, limit) for lanes in (32, 8) for limit in (255.0, 2.0**31)]
    kernels = [case.lowered(target) for case in cases]
    for kernel in kernels:
        assert "vmpyewuh" in str(kernel.func), "products are made of integers"
    code = link([compile_object(kernels, target)], target, [case.name for case in cases])
    jobs = [
        kit.Job(
            code.symbols[case.name],
            1,
            (*(x.tobytes() for x in case.inputs), bytes(case.expected.nbytes)),
            kernel.scratch_size,
        )
        for case, kernel in zip(cases, kernels, strict=True)
    ]
    runner = kit.build_runner(target, tmp_path)
    for case, arguments in zip(cases, kit.run_jobs(runner, code.code, jobs, target, tmp_path), strict=True):
        case.check(arguments[-1])
