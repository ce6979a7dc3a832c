"""Levels and modes of calibration by name: what each of them does (docs/calibration.md)."""

from __future__ import annotations

from dataclasses import dataclass

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
