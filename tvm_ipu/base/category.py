"""Categories of models: what their outputs mean, for printing results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.tensor import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CATEGORIES = ("Classification", "Detection", "Unknown")
OUTPUTS = {"Classification": 1, "Detection": 4}
"""How many outputs a model of the category has."""
TOP = 5
"""Scores that are printed for a classification."""


@dataclass(frozen=True)
class Box:
    """One detected object.

    Attributes:
        label: Number of its class.
        score: Of the class.
        left: Edges in pixels of the picture that was fed.
        top: Likewise.
        right: Likewise.
        bottom: Likewise.
    """

    label: int
    score: float
    left: float
    top: float
    right: float
    bottom: float


def check_category(category: str, outputs: Sequence[TensorSpec]) -> None:
    """Refuse a category that the outputs do not fit.

    Raises:
        OptionError: The category is not known, or has another number of outputs.
    """
    if category not in CATEGORIES:
        raise OptionError(f"--category: '{category}' is not known", f"allowed are {', '.join(CATEGORIES)}")
    wanted = OUTPUTS.get(category, len(outputs))
    if len(outputs) != wanted:
        raise OptionError(
            f"--category: {category} is for models with {wanted} output{'s' if wanted > 1 else ''}, found "
            f"{len(outputs)}: {', '.join(spec.name for spec in outputs)}",
            "use Unknown, or choose outputs with --outputs when the model is converted",
        )
    if category == "Detection" and (len(outputs[0].shape) != 3 or outputs[0].shape[2] != 4):
        raise OptionError(
            f"--category: Detection needs boxes of shape [N, boxes, 4] as the first output, found "
            f"{outputs[0]}",
            "use Unknown",
        )


def top_scores(scores: Array, count: int = TOP) -> list[list[tuple[int, float]]]:
    """For each element of a batch, the classes with the highest scores.

    Args:
        scores: [N, ...], one element a row.
        count: How many.

    Returns:
        (class, score), the highest first.
    """
    rows = scores.reshape(scores.shape[0] if scores.ndim > 1 else 1, -1).astype(float)
    orders = (-rows).argsort(axis=1, kind="stable")[:, :count]
    return [[(int(i), float(row[i])) for i in order] for row, order in zip(rows, orders, strict=True)]


def boxes(outputs: Mapping[str, Array], height: int, width: int) -> list[list[Box]]:
    """Objects that a detector's post-processing has found, for each element of a batch.

    Args:
        outputs: In this order: boxes [N, B, 4] as top, left, bottom, right in shares of the picture, classes
            [N, B], scores [N, B], number of boxes [N].
        height: Rows of the picture.
        width: Columns of the picture.

    Classes and counts are the nearest whole numbers: the steps of a fixed model need not divide 1.
    """
    places, classes, scores, counts = (value.astype(float) for value in outputs.values())
    classes, scores = (value.reshape(places.shape[:2]) for value in (classes, scores))
    found = []
    for n, count in enumerate(counts.reshape(-1)[: len(places)]):
        rows = zip(places[n], classes[n], scores[n], strict=True)
        every = [
            Box(round(label), float(score), left * width, top * height, right * width, bottom * height)
            for (top, left, bottom, right), label, score in rows
        ]
        found.append(every[: round(count)])
    return found
