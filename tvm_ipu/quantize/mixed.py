"""Which weights of a mixture get fewer or more bits, for a given or a recommended size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BASE_BITS = 16
"""A rate is the size of all weights as a share of their size at so many bits."""

NOISE = 0.01
"""Noise power, 20 dB below the outputs, that a recommended mixture may have before reconstruction."""


@dataclass(frozen=True)
class Mixture:
    """The bits of every weight.

    Attributes:
        narrow: Weights with the lower of the two numbers of bits.
        rate: Their size, see ``BASE_BITS``.
        power: Noise that is expected of all weights together.
    """

    narrow: tuple[str, ...]
    rate: float
    power: float


def choose_mixture(
    sizes: Mapping[str, int],
    noise: Mapping[str, float],
    base: float,
    bits: tuple[int, int],
    rate: float | None,
) -> Mixture:
    """Weights for the lower bits: those first that save most for the noise that they add.

    Args:
        sizes: Elements of each weight.
        noise: What each weight adds to the outputs at the lower bits alone.
        base: Noise of the network with all weights at the higher bits.
        bits: The lower and the higher bits.
        rate: Size to be reached, or as near as the weights allow; None for the smallest at which the noise
            is no more than ``NOISE``, or twice ``base``.
    """
    total = sum(sizes.values())
    narrow: list[str] = []
    saved, power = 0, base
    for name in sorted(sizes, key=lambda one: (noise[one] / max(sizes[one], 1), one)):
        if rate is not None and _rate(saved, total, bits) <= rate:
            break
        if rate is None and power + noise[name] > max(NOISE, 2 * base):
            continue
        narrow.append(name)
        saved += sizes[name]
        power += noise[name]
    return Mixture(tuple(narrow), _rate(saved, total, bits), power)


def recommended(mixture: Mixture) -> float:
    """The rate of a mixture as ``mp_rate`` is written: rounded up to a hundredth."""
    return math.ceil(mixture.rate * 100 - 1e-6) / 100


def _rate(saved: int, total: int, bits: Sequence[int]) -> float:
    share = saved / max(total, 1)
    return (bits[0] * share + bits[1] * (1 - share)) / BASE_BITS
