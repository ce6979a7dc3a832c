"""Giving tensors of a fixed model 16 bits until a bound on its accuracy holds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tvm_ipu.accuracy.measure import Models
from tvm_ipu.accuracy.report import Report
from tvm_ipu.base.errors import ImageError, OptionError
from tvm_ipu.base.graph import Graph
from tvm_ipu.base.ranges import RangeTable, TensorRange
from tvm_ipu.driver import compile_model
from tvm_ipu.frontends.onnx.plain import graph_to_onnx
from tvm_ipu.image.stage import write_stage
from tvm_ipu.quantize.bias import with_biases
from tvm_ipu.quantize.insert import insert_quantizers
from tvm_ipu.quantize.places import TRANSFORMER_FLOAT, Places, find_places
from tvm_ipu.quantize.weights import largest
from tvm_ipu.runtime import Session

WIDE = 16
RUNS = 10
"""Timed runs, of which the shortest counts."""


@dataclass(frozen=True)
class Bound:
    """What accuracy must be.

    Attributes:
        drop: Points of top-1 accuracy that the fixed model may lose; None for no such bound.
        sqnr: Decibels that every output must have; None for no such bound.
    """

    drop: float | None = None
    sqnr: float | None = None

    def holds(self, report: Report) -> bool:
        """Whether a report keeps to it."""
        drop = self.drop is None or report.drop <= self.drop
        return drop and (self.sqnr is None or report.sqnr >= self.sqnr)


def mend(
    models: Models, report: Report, bound: Bound, measure: Callable[[Models], Report]
) -> tuple[Models, Report]:
    """Give more and more tensors 16 bits, those first that add most noise, until the bound holds.

    One tensor is promoted, then two more, then four: the number of measurements grows with the logarithm of
    that of the tensors.

    Args:
        models: The fixed model to mend.
        report: What ``measure`` says of it.
        bound: What must hold.
        measure: Runs the samples.

    Raises:
        OptionError: It does not hold when all tensors have 16 bits.
    """
    order = [name for name, _ in report.ranking()]
    promoted: list[str] = []
    while not bound.holds(report):
        chosen = order[len(promoted) : 2 * len(promoted) + 1]
        if not chosen:
            raise OptionError(
                f"--fix: with 16 bits everywhere, accuracy drops by {report.drop:.2f} points and the outputs "
                f"have {report.sqnr:.1f} dB",
                "allow more with --max-drop or --min-sqnr, or calibrate with other samples or another level",
            )
        promoted += chosen
        models = promote(models, chosen)
        report = measure(models)
    report.promoted = promoted
    return models, report


def promote(models: Models, tensors: Iterable[str]) -> Models:
    """The models with 16 bits for some tensors, and for the weights of the products that read them."""
    ranges, graph = dict(models.stage.ranges.ranges), _calibrated(models)
    places = _places(graph, ranges)
    for name in tensors:
        if name in ranges:
            ranges[name] = replace(ranges[name], bits=WIDE)
        for weight, (first, _) in places.products.items():
            if first == name and weight in ranges:
                ranges[weight] = _wide(ranges[weight], graph, places.weights[weight])
    quantised = insert_quantizers(graph, places, ranges)
    facts = {**models.stage.ranges.facts, "promoted": [n for n, r in ranges.items() if r.bits == WIDE]}
    stage = replace(models.stage, model=graph_to_onnx(quantised), ranges=RangeTable(ranges, facts))
    return replace(models, fixed=quantised, stage=stage)


def _calibrated(models: Models) -> Graph:
    """The float network as calibration left it: channels scaled, biases corrected."""
    graph, fixed = models.scaled, models.fixed.constants
    whole = with_biases(graph)
    if {*whole.constants} - {*graph.constants} <= {*fixed}:
        graph = whole
    return replace(graph, constants={name: fixed.get(name, one) for name, one in graph.constants.items()})


def _places(graph: Graph, ranges: Mapping[str, TensorRange]) -> Places:
    """The places that calibration chose: those that have ranges."""
    every = find_places(graph)
    return (
        every if set(every.tensors) <= set(ranges) else find_places(graph, TRANSFORMER_FLOAT, outputs=False)
    )


def _wide(weight: TensorRange, graph: Graph, axis: int | None) -> TensorRange:
    """A weight's range without the clipping that pays at 8 bits."""
    values = graph.constants[weight.name] if weight.data is None else weight.data
    high = tuple(float(reach) for reach in largest(values, axis))
    return replace(weight, low=tuple(-reach for reach in high), high=high, bits=WIDE)


def cost(models: Models, threads: int = 1) -> tuple[int, float]:
    """Bytes of the fixed model's image and milliseconds of a run on this machine.

    The image is the target's where this machine runs it, else this machine's.
    """
    with tempfile.TemporaryDirectory(prefix="tvm_ipu-") as folder:
        stage, image = Path(folder) / "fixed.sim", Path(folder) / "fixed.img"
        write_stage(models.stage, stage)
        compile_model(stage, models.stage.target or "host", image)
        size = image.stat().st_size
        try:
            session = Session(image, threads=threads)
        except ImageError:
            compile_model(stage, "host", image)
            session = Session(image, threads=threads)
        with session:
            session.time_runs(2)
            return size, min(session.time_runs(RUNS)) / 1e6
