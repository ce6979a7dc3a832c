"""What the comparison of a fixed model with its float model found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.simulate.compare import Comparison

Array = NDArray[Any]

TOPS = (1, 5)


@dataclass
class Scores:
    """Classifications of one simulator: samples in all, and how often the label was among the best."""

    samples: int = 0
    right: dict[int, int] = field(default_factory=lambda: dict.fromkeys(TOPS, 0))
    agreed: int = 0

    def add(self, scores: Array, label: int | None, reference: int) -> None:
        """Count one sample; ``reference`` is what the float model finds."""
        order = np.argsort(-np.asarray(scores, np.float64).ravel(), kind="stable")
        self.samples += 1
        self.agreed += int(order[0] == reference)
        for top in TOPS:
            self.right[top] += int(label is not None and label in order[:top])

    def share(self, top: int) -> float:
        """Share of the samples whose label is among the ``top`` best."""
        return self.right[top] / max(self.samples, 1)


@dataclass
class Report:
    """What a run over the samples found.

    Attributes:
        outputs: Of the model.
        activations: Tensors inside, in order of execution.
        weights: Constants.
        scores: By simulator: ``float``, ``fixed`` and ``offline``; empty where the model does not classify.
        labelled: Whether there were labels.
        names: Of the samples.
        extremes: For each tensor the samples that its range comes from, where calibration knows them.
        float_layers: Layers of the fixed model that compute in float.
        differing: Samples for which the image's bytes were not the fixed simulator's.
        promoted: Layers that were given 16 bits, in order.
        cost: Size and time before and after that.
    """

    outputs: list[Comparison]
    activations: list[Comparison]
    weights: list[Comparison]
    scores: dict[str, Scores] = field(default_factory=dict)
    labelled: bool = False
    names: list[str] = field(default_factory=list)
    extremes: dict[str, list[str]] = field(default_factory=dict)
    float_layers: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def sqnr(self) -> float:
        """The lowest of the outputs, decibels."""
        return min((one.sqnr for one in self.outputs), default=math.inf)

    @property
    def drop(self) -> float:
        """Points of top-1 accuracy that the fixed model loses; without labels, how often it disagrees."""
        if "fixed" not in self.scores:
            return 0.0
        fixed = self.scores["fixed"]
        if not self.labelled:
            return 100 * (1 - fixed.agreed / max(fixed.samples, 1))
        return 100 * (self.scores["float"].share(1) - fixed.share(1))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "samples": len(self.names),
            "outputs": [one.to_json() for one in self.outputs],
            "activations": [
                {**one.to_json(), "range_from": self.extremes.get(one.name)} for one in self.activations
            ],
            "weights": [one.to_json() for one in self.weights],
            "scores": {
                name: {
                    "samples": one.samples,
                    "agrees_with_float": one.agreed / max(one.samples, 1),
                    **({f"top{top}": one.share(top) for top in TOPS} if self.labelled else {}),
                }
                for name, one in self.scores.items()
            },
            "worth_promoting": [name for name, _ in self.ranking()[:10]],
            "float_layers": self.float_layers,
            "image_differs": self.differing,
            "promoted": self.promoted,
            "cost": self.cost,
        }

    def ranking(self) -> list[tuple[str, float]]:
        """Tensors of 8 bits and the noise that each adds to the signal, as a share, the most first.

        What a layer adds is what its result has more than the tensor before it.
        """
        found, before = [], 0.0
        for one in self.activations:
            noise = 10 ** (-one.sqnr / 10) if one.sqnr > -300 else 1.0
            if one.bits <= 8:
                found.append((one.name, max(noise - before, noise / 100)))
            before = noise
        return sorted(found, key=lambda pair: -pair[1])
