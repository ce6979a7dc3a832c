"""Layers of quantised networks on every target: images equal the numpy oracle bit for bit.

x86-64 runs on this machine where it has the instructions, and under qemu as far as that has them; AMX runs
in the emulator of ``amx_kit``; all others run under qemu. Every target draws layers of its own, in both
families of numerics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

from tests.ops import integer_elementwise as elementwise, integer_products as products
from tests.ops.integer_draws import Tensor
from tests.ops.integer_kit import Graph, Layer
from tests.ops.integer_products import Convolution, Residual, Window
from tests.unit.amx_kit import AMX, counts, emulation
from tests.unit.machine_kit import X86_EMULATED, emulator, runnable
from tvm_ipu.base.target import Target, load_target, target_names
from tvm_ipu.codegen import kernel_set
from tvm_ipu.codegen.lower import LoweredKernel, compile_object

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

ROUNDS = 20
"""Images for each target, of which all but the first are left to ``-m sweep``."""
CHIPS = ("", "ipu-ref@")
"""For each family of numerics, what comes before a target's name."""
KINDS = (
    *map(products.convolutions, products.KINDS),
    products.DENSE,
    products.PRODUCTS,
    products.RESIDUALS,
    products.FUNCTIONS_OF_SUMS,
    elementwise.PAIRS,
    elementwise.CONSTANT_OPERANDS,
    elementwise.POOLS,
    elementwise.functions(),
    elementwise.EDGES,
    elementwise.MOVES,
    products.FULL,
)


def draw(name: str, kinds: Iterable[st.SearchStrategy[Layer]] = KINDS) -> tuple[Layer, ...]:
    """A layer of each kind; all depends on the name alone."""
    drawn: list[tuple[Layer, ...]] = []

    @seed(crc32(name.encode()))
    @settings(
        max_examples=2,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*kinds))
    def collect(layers: tuple[Layer, ...]) -> None:
        drawn.append(layers)

    collect()
    return drawn[-1]  # the first are always the smallest


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.sweep) for n in range(1, ROUNDS))])
@pytest.mark.parametrize("name", target_names())
@pytest.mark.parametrize("chip", CHIPS)
def test_layers(chip: str, name: str, number: int, tmp_path: Path) -> None:
    target = runnable(f"{chip}{name}")
    command = emulator(target)
    g = Graph(target.numerics)
    for layer in draw(f"{chip}{name} {number}"):
        g.add(layer)
    if command:
        results = g.run_emulated(target, command, tmp_path, threads=2)
    elif name == AMX.name:
        with emulation() as library:
            results = g.run(target, threads=2)
            assert counts(library)["multiply"] > 0
    else:
        results = g.run(target, threads=2)
    g.compare(results)


@pytest.mark.parametrize("name", X86_EMULATED)
@pytest.mark.parametrize("chip", CHIPS)
def test_many_rows(chip: str, name: str, tmp_path: Path) -> None:
    """Weights of 8 bits lie in memory in 16, where each is used often."""
    target = load_target(f"{chip}{name}")
    command = emulator(target)
    g = Graph(target.numerics)
    for layer in draw(f"{chip}{name} many rows", products.MANY_ROWS):
        g.add(layer)
    g.compare(g.run_emulated(target, command, tmp_path, threads=2) if command else g.run(target, threads=2))


@pytest.mark.parametrize("chip", CHIPS)
def test_windows_in_the_padding(chip: str, tmp_path: Path) -> None:
    """A convolution of which nothing is left but its bias."""
    target = load_target(f"{chip}aarch64-neon")
    window = Window((1, 1), (2, 2), (1, 1, 1, 1), (1, 1))
    x, y = Tensor("int8", "none", 0.01, "random"), Tensor("uint16", 0.6, 0.1, "random")
    layer = Convolution(
        seed=1,
        kind="pointwise",
        x=x,
        weight_type="int16",
        weight_fill="random",
        weight_zero=0,
        batch=1,
        depth=2,
        channels=8,
        size=(1, 1),
        window=window,
        per_channel=True,
        has_bias=True,
        has_factor=False,
        bounds=(0.0, 6.0),
        y=y,
        share=0.7,
    )
    g = Graph(target.numerics)
    g.add(layer)
    g.compare(g.run_emulated(target, emulator(target), tmp_path))


def test_residual_sums_on_hexagon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats one at a time: of vectors of them LLVM makes 190 KB of code, in up to a minute."""
    sizes = []

    def measured(kernels: Sequence[LoweredKernel], target: Target) -> bytes:
        code = compile_object(kernels, target)
        sizes.append(len(code))
        return code

    monkeypatch.setattr(kernel_set, "compile_object", measured)
    target, x = load_target("hexagon-v67"), Tensor("uint8", 0.5, 0.05, "random")
    g = Graph(target.numerics)
    g.add(Residual(3, x, x, 96, 64, (4, 4), None, x, 0.7))
    g.compare(g.run_emulated(target, emulator(target), tmp_path))
    assert max(sizes) < 40_000
