"""Where a fixed model loses accuracy: its tensors against the float model's, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.graph import Graph
from tvm_ipu.frontends.onnx.plain import graph_from_onnx
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, read_stage
from tvm_ipu.samples.raw import raw_feeds
from tvm_ipu.simulate.compare import Comparison
from tvm_ipu.simulation import compile_runner, fixed_interpreter, fixed_tensors, open_offline

Array = NDArray[Any]
Pair = tuple[Mapping[str, Array], Mapping[str, Array]]
"""A sample's arrays for the float model, and those for the fixed one."""
Progress = Callable[[str, int, int], None]

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


@dataclass(frozen=True)
class Models:
    """A float stage and the fixed one made of it.

    Attributes:
        floating: The float network.
        fixed: The quantised network.
        stage: The fixed stage.
    """

    floating: Graph
    fixed: Graph
    stage: Stage

    @property
    def contract(self) -> Contract:
        """What the fixed model is fed."""
        return self.stage.contract


def read_models(floating: Path, fixed: Path) -> Models:
    """Both stages.

    Raises:
        ImageError: A file is not the stage that it should be.
        OptionError: The stages are not of one network.
    """
    graph, stage = graph_from_onnx(read_stage(floating, FLOAT).model), read_stage(fixed, FIXED)
    quantised = graph_from_onnx(stage.model)
    inputs = [[(spec.name, spec.shape) for spec in one.inputs] for one in (graph, quantised)]
    if inputs[0] != inputs[1]:
        raise OptionError(
            f"{fixed} was not made of {floating}: their inputs differ ({inputs[1]} and {inputs[0]})"
        )
    return Models(graph, quantised, stage)


def measure(
    models: Models,
    samples: Iterable[Pair],
    names: Sequence[str],
    labels: Sequence[int] = (),
    classify: bool = False,
    image: Path | None = None,
    progress: Progress | None = None,
    target: str = "",
) -> Report:
    """Run the samples through both models, and compare every tensor that the fixed one quantises.

    Args:
        models: What to compare.
        samples: Each sample's arrays for both models.
        names: Of the samples.
        labels: The right class of each sample, where known.
        classify: Whether the first output holds scores of classes.
        image: An image of the fixed model that runs too.
        progress: Told how far it is.
        target: Chip whose integers are simulated; by default the stage's.
    """
    report = Report(*_comparisons(models), labelled=bool(labels), names=list(names))
    shown = {one.name: one for one in (*report.activations, *report.outputs)}
    results = {name: result for name, result in _results(models.fixed).items() if name in shown}
    floating = compile_runner(models.floating.with_outputs(_made(models.floating, shown)))
    inner = fixed_interpreter(
        models.fixed.with_outputs(
            dict.fromkeys([*results.values(), *(s.name for s in models.fixed.outputs)])
        ),
        replace(models.contract, outputs=()),
        target or models.stage.target,
    )
    report.float_layers = inner.float_layers
    offline = open_offline(image) if image else None
    exact = fixed_interpreter(models.fixed, models.contract, target or models.stage.target) if image else None
    classes = models.fixed.outputs[0].name
    for number, (real, raw) in enumerate(samples):
        if progress:
            progress("samples", number, len(names))
        expected, found = {**real, **floating(real)}, inner.run(raw)
        for name, one in shown.items():
            one.add(expected[name], found[results.get(name, name)], number)
        if classify:
            label = labels[number] if labels else None
            reference = int(np.argmax(expected[classes]))
            _score(report, "float", expected[classes], label, reference)
            _score(report, "fixed", found[classes], label, reference)
        if offline and exact:
            simulated, outputs = exact.run(raw), offline.run(raw)
            if any(simulated[name].tobytes() != value.tobytes() for name, value in outputs.items()):
                report.differing.append(names[number])
            if classify:
                _score(report, "offline", outputs[classes], label, reference)
    report.extremes = _extremes(models.stage)
    return report


def _score(report: Report, name: str, scores: Array, label: int | None, reference: int) -> None:
    report.scores.setdefault(name, Scores()).add(scores, label, reference)


def _results(fixed: Graph) -> dict[str, str]:
    """For each quantised tensor of the float network, the one that holds its numbers in the fixed one."""
    results = {}
    for node in fixed.nodes:
        if node.op_type == "DequantizeLinear" and node.inputs[0] not in fixed.constants:
            results[node.outputs[0].removesuffix("/rounded")] = node.outputs[0]
    return results


def _made(graph: Graph, names: Iterable[str]) -> list[str]:
    """Those of the tensors that nodes make."""
    made = graph.producer()
    return [name for name in names if name in made]


def _comparisons(models: Models) -> tuple[list[Comparison], list[Comparison], list[Comparison]]:
    """Of outputs, activations and weights; the weights' are done."""
    made = models.floating.producer()
    inputs = {spec.name for spec in models.floating.inputs}
    tensors = {one["name"]: one for one in fixed_tensors(models.fixed)}
    activations, weights = [], []
    for name, facts in tensors.items():
        bits = int(facts["qtype"].lstrip("UINT"))
        operator = made[name].op_type if name in made else "input" if name in inputs else "constant"
        one = Comparison(name, operator, bits, min(facts["min"]), max(facts["max"]))
        if operator != "constant":
            activations.append(one)
        elif name in models.floating.constants:
            one.add(models.floating.constants[name], _weight(models.fixed, name, facts))
            weights.append(one)
    outputs = []
    for spec in models.floating.outputs:
        known = next((one for one in activations if one.name == spec.name), None)
        if known is None:
            known = Comparison(spec.name, made[spec.name].op_type, 32, -math.inf, math.inf)
        outputs.append(known)
    order = {name: at for at, name in enumerate([*inputs, *made])}
    return outputs, sorted(activations, key=lambda one: order.get(one.name, 0)), weights


def _weight(fixed: Graph, name: str, facts: Mapping[str, Any]) -> Array:
    """A quantised constant's numbers."""
    integers = fixed.constants[f"{name}/integers"].astype(np.float64)
    node = next(
        n for n in fixed.nodes if n.op_type == "DequantizeLinear" and n.inputs[0] == f"{name}/integers"
    )
    scale, zero = (np.array(part, np.float64) for part in zip(*facts["quantization"], strict=True))
    shape = [1] * integers.ndim
    if scale.size > 1:
        shape[int(node.attributes.get("axis", 1))] = scale.size
    return np.asarray((integers - zero.reshape(shape)) * scale.reshape(shape))


def _extremes(stage: Stage) -> dict[str, list[str]]:
    """Names of the samples that hold each tensor's least and largest number."""
    facts: Any = stage.ranges.facts.get("extremes", {})
    given: Any = stage.metadata.get("samples", [])
    names = given if isinstance(given, list) else []
    return {
        tensor: [str(names[at]) if 0 <= at < len(names) else f"sample {at}" for at in pair]
        for tensor, pair in facts.items()
    }


def paired(
    floating: Iterable[Mapping[str, Array]], raw: Iterable[Mapping[str, Array]], contract: Contract
) -> Iterable[Pair]:
    """Samples for both models, the fixed one's as the board feeds them."""
    for real, data in zip(floating, raw, strict=True):
        yield real, raw_feeds(data, contract)
