"""What random graphs are checked for: images equal onnxruntime, and fixed simulators their images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz.graph_layers import FIXED, LAYERS
from tests.fuzz.graph_maker import Array, Graph, Maker, NotTaken, Tensor
from tests.fuzz.graph_moves import MOVES
from tests.fuzz.graph_operators import OPERATORS, Operator

REFUSED = "refused"
ALL_TYPES = ("float32", "float32", "float32", "float32", "float16", "int8", "uint8", "int32", "int64", "bool")
SINGLE = ("float32", "float32", "float32", "int64", "int32", "bool")
FLOAT = ("float32",)


@dataclass(frozen=True)
class Mode:
    """How graphs are compiled and compared.

    Attributes:
        name: For ``--only``.
        share: How often, beside the others.
        target: Target of the image.
        precision: Type of weights and activations inside.
        noise: What one operation may differ by, as a share of its largest result.
        bound: What an output may differ by besides, as a share of its largest element.
        types: Element types of the graph's tensors.
        levels: Levels of calibration; none where the graph is compiled as it is.
    """

    name: str
    share: float
    target: str = "host"
    precision: str = "fp32"
    noise: float = 1e-6
    bound: float = 1e-6
    types: tuple[str, ...] = ALL_TYPES
    levels: tuple[str, ...] = ()

    @property
    def operators(self) -> dict[Operator, float]:
        """What graphs are made of, and how often."""
        table = OPERATORS | MOVES | {layer: 1.5 * share for layer, share in LAYERS.items()}
        if self.target == "ipu-ref":
            return {one: share for one, share in table.items() if one.__name__ not in _WITHOUT_INTEGERS}
        return table if self.levels else table | FIXED


_WITHOUT_INTEGERS = {
    "arg", "cumulate", "top", "gather_elements", "gather_nd", "scatter", "triangle", "reverse", "recurrent",
    "einsum",
}  # fmt: skip
"""Whose operators compute in float whatever is calibrated."""
LEVELS = ("L1", "L2", "L3", "L4", "L5", "Q10", "Q11", "Q12", "Q13", "Q20", "Q21", "Q22", "Q23")
MODES = {
    mode.name: mode
    for mode in (
        Mode("host", 10),
        Mode("x86-64-v3", 2, "x86-64-v3"),
        Mode("x86-64-v2", 2, "x86-64-v2"),
        Mode("fp16", 2, precision="fp16", noise=1e-3, bound=2e-2, types=SINGLE),
        Mode("bf16", 2, precision="bf16", noise=8e-3, bound=2e-2, types=SINGLE),
        Mode("fixed", 2, levels=LEVELS, types=FLOAT),
        Mode("ipu-ref", 3, "ipu-ref", levels=LEVELS, types=FLOAT),
    )
}


@dataclass(frozen=True)
class Case:
    """A graph and how it is checked; a function of the seed and the number."""

    mode: Mode
    graph: Graph
    level: str = ""


def make(seed: str, number: int, only: str = "") -> Case:
    """Graph ``number``, in a mode of its own or in that of a name."""
    random = Random(f"{seed} {number}")
    drawn = random.choices(list(MODES.values()), [one.share for one in MODES.values()])[0]
    mode = MODES[only] if only else drawn
    level = random.choice(mode.levels) if mode.levels else ""
    maker = Maker(random, mode.noise, mode.types, fixed=mode.target == "ipu-ref")
    size = random.randint(3, 15)
    operators, shares = list(mode.operators), list(mode.operators.values())
    for _ in range(20 * size):
        if len(maker.nodes) >= size:
            break
        before = len(maker.nodes), dict(maker.tensors)
        try:
            random.choices(operators, shares)[0](maker)
        except NotTaken:
            if random.random() < 0.7:  # what was added before stays at times
                del maker.nodes[before[0] :]
                maker.tensors = before[1]
    return Case(mode, maker.finish(), level)


def check(case: Case, folder: Path) -> str:
    """What is wrong with a graph's image: ``REFUSED``, or nothing where nothing is.

    Raises:
        Exception: Other than the product's errors, which are findings too.
    """
    from tvm_ipu.base.errors import TvmIpuError

    try:
        return (check_fixed if case.level else check_image)(case, folder)
    except TvmIpuError as err:
        return f"{REFUSED}: {err}"


def check_image(case: Case, folder: Path) -> str:
    """Compare an image with onnxruntime."""
    from tvm_ipu.base.options import CompileOptions
    from tvm_ipu.driver import compile_model
    from tvm_ipu.runtime import Session

    image, feeds = folder / "graph.img", case.graph.feeds()
    options = CompileOptions(precision=case.mode.precision, jobs=1, max_error=0.0)
    compile_model(case.graph.model(), case.mode.target, image, options=options)
    with Session(image) as session:
        found = session.run(feeds)
    return compare(found, case)


def compare(found: Mapping[str, Array], case: Case) -> str:
    """How outputs differ from onnxruntime's."""
    wrong = [difference(found[n], case.graph.tensors[n], case.mode.bound) for n in case.graph.outputs]
    return "\n".join(f"{n}: {one}" for n, one in zip(case.graph.outputs, wrong, strict=True) if one)


def difference(found: Array, tensor: Tensor, bound: float) -> str:
    """How an output differs from the right one by more than rounding explains."""
    right = tensor.array
    if (found.dtype, found.shape) != (right.dtype, right.shape):
        return f"{found.dtype}{list(found.shape)}, expected {right.dtype}{list(right.shape)}"
    spread = tensor.spread()
    if right.dtype.kind != "f":
        apart = np.abs(found.astype(np.float64) - right.astype(np.float64))
        allowed = np.full(right.shape, spread.max(initial=0.0))
        wrong = apart > allowed
    else:
        a, b = found.astype(np.float64), right.astype(np.float64)
        finite = np.isfinite(b)
        largest = float(np.abs(b[finite]).max(initial=0.0))
        if right.dtype == np.float16:
            bound = max(bound, 1e-3)
        allowed = 2 * bound * largest + 4 * np.maximum(spread, spread.max(initial=0.0) / 2) + 1e-30
        with np.errstate(invalid="ignore"):
            wrong = np.where(finite, ~(np.abs(a - b) <= allowed), ~((a == b) | (np.isnan(a) & np.isnan(b))))
    if not wrong.any():
        return ""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{int(wrong.sum())} of {right.size} wrong, at {list(at)} {found[at]}, expected {right[at]}" + (
        f" within {np.broadcast_to(allowed, right.shape)[at]:.3g}"
    )


def check_fixed(case: Case, folder: Path) -> str:
    """Compare the fixed simulator with its image: to the byte, unless some layers compute in float."""
    from tvm_ipu.driver import compile_model
    from tvm_ipu.fixed_point import Calibration, ModelFile, calibrate_stage, make_float_stage
    from tvm_ipu.image.reader import read_image
    from tvm_ipu.simulation import open_fixed, open_offline

    floating, fixed, image = folder / "float.sim", folder / "fixed.sim", folder / "graph.img"
    target, feeds = case.mode.target, case.graph.feeds()
    (folder / "graph.onnx").write_bytes(case.graph.model().SerializeToString())
    stage = make_float_stage(ModelFile(folder / "graph.onnx", target=target), floating)
    rolled = [{name: np.roll(x, by) for name, x in feeds.items()} for by in (0, 1, 3)]
    options = Calibration(case.level, transformer=False)
    calibrate_stage(replace(stage, target=target), fixed, lambda: iter(rolled), options)
    compile_model(fixed, target, image)
    expected, found = (one.run(feeds) for one in (open_fixed(fixed), open_offline(image)))
    floats = read_image(image).metadata.get("float_layers", [])
    faults = []
    for name, right in expected.items():
        got = found[name]
        if floats and got.dtype.kind == "f" and got.shape == right.shape:
            steps = 0.1 * np.abs(right).max(initial=0.0) + 1e-30
            equal = bool((np.isclose(got, right, 0, steps, equal_nan=True)).all())
        else:
            equal = got.tobytes() == right.tobytes() and got.dtype == right.dtype and got.shape == right.shape
        if not equal:
            apart = np.abs(got.astype(np.float64) - right) if got.shape == right.shape else np.array([np.inf])
            faults.append(
                f"{name}: {int((apart > 0).sum())} of {right.size} differ, by {np.nanmax(apart):.3g}"
            )
    if target == "ipu-ref" and floats:
        faults.append(f"float layers: {floats}")
    return "\n".join(faults)
