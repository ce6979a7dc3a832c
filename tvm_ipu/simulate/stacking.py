"""Several samples in one run, stacked in the first dimension."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.errors import RunError

Array = NDArray[Any]
Item = TypeVar("Item")


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items, ``size`` at a time; the last ones may be fewer."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def run_stacked(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    samples: Sequence[Mapping[str, Array]],
    size: int,
) -> list[dict[str, Array]]:
    """The results of each sample, of one run that takes ``size`` of them.

    Args:
        run: Computes arrays by name from arrays by name.
        samples: At most ``size``; the last one stands in for those that are missing.
        size: How many samples the run takes.

    Raises:
        RunError: A result has no part for each sample.
    """
    if size == 1:
        return [dict(run(samples[0]))]
    filled = [*samples, *[samples[-1]] * (size - len(samples))]
    results = run({name: np.concatenate([one[name] for one in filled]) for name in samples[0]})
    for name, value in results.items():
        if not value.ndim or value.shape[0] % size:
            raise RunError(
                f"--batch: '{name}' of shape {list(value.shape)} has no part for each of {size} samples",
                "leave --batch out",
            )
    parts = {name: np.split(value, size) for name, value in results.items()}
    return [{name: part[at] for name, part in parts.items()} for at in range(len(samples))]
