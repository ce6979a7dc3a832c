"""Levels and modes of calibration by name: what each of them does (docs/calibration.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tvm_ipu.base.chip import Chip
from tvm_ipu.base.errors import OptionError


@dataclass(frozen=True)
class Level:
    """What a level or mode does.

    Attributes:
        name: As the command line gives it.
        activations: Methods of ``fit.METHODS`` for the ranges of activations; of several, the one whose
            model is nearest to the float one is taken.
        clip_weights: Whether the ranges of weights are those of least error, and not the largest weights.
        bits: Of products.
        promote: Whether sensitive products get 16 bits.
        mixed: Bits of a mixture whose share is ``mp_rate``; None for none.
        correct_bias: Whether biases make up for the mean error of rounded weights.
        reconstruct: Whether weights are rounded to reproduce each layer's outputs.
        equalise: Whether channels between convolutions are scaled to use one range well.
    """

    name: str
    activations: tuple[str, ...]
    clip_weights: bool = True
    bits: int = 8
    promote: bool = False
    mixed: tuple[int, int] | None = None
    correct_bias: bool = False
    reconstruct: bool = False
    equalise: bool = False

    @property
    def needs_histograms(self) -> bool:
        """Whether statistics must have histograms."""
        return bool({"mse", "percentile", "entropy"} & set(self.activations))

    @property
    def is_measured(self) -> bool:
        """Whether the whole network is measured to choose among ranges and bits."""
        return (
            len(self.activations) > 1
            or self.promote
            or self.correct_bias
            or self.reconstruct
            or self.mixed is not None
        )


_SEARCHED = ("mse", "min_max", "entropy", "percentile")

LEVELS = {
    level.name: level
    for level in (
        Level("L1", ("min_max",), clip_weights=False),
        Level("L2", ("min_max",), equalise=True),
        Level("L3", ("mse",)),
        Level("L4", ("mse",), promote=True),
        Level("L5", _SEARCHED, promote=True, correct_bias=True),
        Level("Q10", ("min_max",), bits=16),
        Level("Q11", ("min_max",), equalise=True),
        Level("Q12", _SEARCHED, promote=True, correct_bias=True),
        Level("Q13", ("mse",), mixed=(4, 8), correct_bias=True),
        Level("Q20", ("min_max",), bits=16, reconstruct=True),
        Level("Q21", _SEARCHED, correct_bias=True, reconstruct=True),
        Level("Q22", _SEARCHED, promote=True, correct_bias=True, reconstruct=True),
        Level("Q23", ("mse",), mixed=(8, 16), correct_bias=True, reconstruct=True),
    )
}
"""By name."""

ALIASES = {"Q1": "Q11", "Q2": "Q22"}

DEFAULT = "L5"


def find_level(name: str) -> Level:
    """The level or mode called ``name``.

    Raises:
        OptionError: There is none.
    """
    found = LEVELS.get(ALIASES.get(name.upper(), name.upper()))
    if found is None:
        raise OptionError(
            f"--quant_level, -q: '{name}' is not allowed", f"allowed are {', '.join([*LEVELS, *ALIASES])}"
        )
    return found


def level_for(chip: Chip | None, level: Level, mixture: tuple[int, int] | None = None) -> Level:
    """A level as a chip allows it: without promotion where the chip has no products of 16 bits.

    Args:
        chip: The chip; None for one that takes all bits.
        level: The level or mode.
        mixture: Of ``quant_config.yaml``, instead of the level's own.

    Raises:
        OptionError: The level gives products or weights bits that the chip does not take.
    """
    if chip is None:
        return level
    if not _fits(chip, level, mixture):
        weights, inputs = _asked(level, mixture)
        fitting = [name for name, one in LEVELS.items() if _fits(chip, one)]
        raise OptionError(
            f"--quant_level, -q: '{level.name}' gives products inputs of {_words(inputs)} and weights of "
            f"{_words(weights)} bits; target '{chip.name}' takes inputs of {_words(chip.convolution_bits)} "
            f"and weights of {_words(chip.weight_bits)}",
            f"levels and modes for it are {', '.join(fitting) or 'none'}",
        )
    return replace(level, promote=level.promote and 16 in chip.weight_bits and 16 in chip.convolution_bits)


def _fits(chip: Chip, level: Level, mixture: tuple[int, int] | None = None) -> bool:
    weights, inputs = _asked(level, mixture)
    return weights <= set(chip.weight_bits) and inputs <= set(chip.convolution_bits)


def _asked(level: Level, mixture: tuple[int, int] | None) -> tuple[set[int], set[int]]:
    """Bits of weights, and of what they are multiplied with, that a level cannot do without."""
    mixed = (mixture or level.mixed) if level.mixed else None
    weights = {level.bits, *(mixed or ())}
    return weights, weights - {4}


def _words(bits: Iterable[int]) -> str:
    return " or ".join(map(str, sorted(bits)))
