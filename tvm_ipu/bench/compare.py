"""Images and other runtimes side by side: the same inputs, the same threads, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tvm_ipu.base.errors import OptionError
from tvm_ipu.bench.data import Array, fill
from tvm_ipu.bench.timing import Timing, measure
from tvm_ipu.runtime import Session


@dataclass(frozen=True)
class Contender:
    """Something that runs a model.

    Attributes:
        name: The image's file name, or the other runtime's name.
        detail: Target of the image, or version of the runtime.
        run: Runs the model once on inputs that it already has, and returns its outputs in the model's order.
    """

    name: str
    detail: str
    run: Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Result:
    """How a contender did.

    Attributes:
        name: The contender's.
        detail: The contender's.
        timing: Its runs.
        ratio: Its median divided by the first contender's.
        difference: Largest difference of its outputs from the first contender's, in units of the largest
            value of that output there.
    """

    name: str
    detail: str
    timing: Timing
    ratio: float
    difference: float


def open_images(
    paths: Sequence[Path], plan: int, threads: int, data: Mapping[str, Array] | None = None
) -> tuple[list[Contender], dict[str, Array]]:
    """Sessions on images that take the same inputs, and the inputs of all of them.

    Args:
        paths: Images, at least one.
        plan: Number of the plan that each runs.
        threads: Threads of each session.
        data: Inputs by name; random ones by default.

    Raises:
        OptionError: The images differ in their inputs.
        ImageError: A file is no image that runs here.
    """
    sessions = [Session(path, plan, threads) for path in paths]
    inputs = sessions[0].inputs
    for path, session in zip(paths, sessions, strict=True):
        if session.inputs != inputs:
            raise OptionError(
                f"{path} takes {', '.join(map(str, session.inputs))}, not {', '.join(map(str, inputs))}",
                "bench compares images of the same inputs",
            )
    feeds = fill(inputs, "random") if data is None else dict(data)
    return [_image(path, session, feeds) for path, session in zip(paths, sessions, strict=True)], feeds


def _image(path: Path, session: Session, inputs: Mapping[str, Array]) -> Contender:
    return Contender(path.name, session.target, lambda: list(session.run(inputs).values()))


def compare(contenders: Sequence[Contender], repeat: int, warmup: int) -> list[Result]:
    """Run all contenders in turn and set them against the first.

    Args:
        contenders: What to compare, at least one.
        repeat: Timed runs of each, at least one.
        warmup: Runs of each before the timed ones.
    """
    timings = measure([contender.run for contender in contenders], repeat, warmup)
    first, first_outputs = timings[0], contenders[0].run()
    return [
        Result(
            name=contender.name,
            detail=contender.detail,
            timing=timing,
            ratio=timing.median / first.median,
            difference=difference(contender.run(), first_outputs),
        )
        for contender, timing in zip(contenders, timings, strict=True)
    ]


def difference(values: Sequence[Array], reference: Sequence[Array]) -> float:
    """Largest of all outputs' ``max|value - reference| / max|reference|``; infinite where shapes differ."""
    if [v.shape for v in values] != [r.shape for r in reference]:
        return float("inf")
    return max((_difference(v, r) for v, r in zip(values, reference, strict=True)), default=0.0)


def _difference(value: Array, reference: Array) -> float:
    if not value.size:
        return 0.0
    reference = reference.astype(np.float64)
    error = float(np.max(np.abs(value.astype(np.float64) - reference)))
    return error / (float(np.max(np.abs(reference))) or 1.0) if error else 0.0
