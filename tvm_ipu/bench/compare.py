"""Images and other runtimes side by side: the same inputs, the same threads, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tvm_ipu.bench.data import Array
from tvm_ipu.bench.timing import Timing, measure


@dataclass(frozen=True)
class Contender:
    """Something that runs a model.

    Attributes:
        name: The image's file name, or the other runtime's name.
        version: Version of the image's format or of the runtime.
        run: Runs the model once on inputs that it already has.
        outputs: Outputs of the last run, in the model's order.
    """

    name: str
    version: str
    run: Callable[[], object]
    outputs: Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Result:
    """How a contender did.

    Attributes:
        name: The contender's.
        version: The contender's.
        timing: Its runs.
        ratio: Its median divided by the first contender's.
        difference: Largest difference of its outputs from the first contender's, in units of the largest
            value of that output there.
    """

    name: str
    version: str
    timing: Timing
    ratio: float
    difference: float


def compare(contenders: Sequence[Contender], repeat: int, warmup: int) -> list[Result]:
    """Run all contenders in turn and set them against the first.

    Args:
        contenders: What to compare, at least one.
        repeat: Timed runs of each, at least one.
        warmup: Runs of each before the timed ones.
    """
    timings = measure([contender.run for contender in contenders], repeat, warmup)
    first, first_outputs = timings[0], contenders[0].outputs()
    return [
        Result(
            name=contender.name,
            version=contender.version,
            timing=timing,
            ratio=timing.median / first.median,
            difference=difference(contender.outputs(), first_outputs),
        )
        for contender, timing in zip(contenders, timings, strict=True)
    ]


def difference(values: Sequence[Array], reference: Sequence[Array]) -> float:
    """Largest over all outputs of ``max|value - reference| / max|reference|``; infinite where shapes differ."""
    if [v.shape for v in values] != [r.shape for r in reference]:
        return float("inf")
    return max((_difference(v, r) for v, r in zip(values, reference, strict=True)), default=0.0)


def _difference(value: Array, reference: Array) -> float:
    if not value.size:
        return 0.0
    reference = reference.astype(np.float64)
    error = float(np.max(np.abs(value.astype(np.float64) - reference)))
    return error / (float(np.max(np.abs(reference))) or 1.0) if error else 0.0
