"""Where a fixed model loses accuracy: its tensors against the float model's, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvm_ipu.accuracy.report import Report, Scores
from tvm_ipu.base.contract import Contract
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.graph import Graph
from tvm_ipu.frontends.onnx.plain import graph_from_onnx
from tvm_ipu.image.reader import read_image
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, read_stage
from tvm_ipu.quantize.equalise import equalised
from tvm_ipu.quantize.migrate import migrated
from tvm_ipu.samples.raw import raw_feeds
from tvm_ipu.simulate.compare import Comparison
from tvm_ipu.simulate.stacking import chunks, run_stacked
from tvm_ipu.simulation import (
    Runner,
    compile_runner,
    fixed_interpreter,
    fixed_tensors,
    open_offline,
    stacked,
)

Array = NDArray[Any]
Pair = tuple[Mapping[str, Array], Mapping[str, Array]]
"""A sample's arrays for the float model, and those for the fixed one."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Models:
    """A float stage and the fixed one made of it.

    Attributes:
        floating: The float network, its outliers moved as calibration did.
        fixed: The quantised network.
        stage: The fixed stage.
        factors: By how much calibration scaled the channels of some tensors of the fixed network.
    """

    floating: Graph
    fixed: Graph
    stage: Stage
    factors: Mapping[str, Array] = field(default_factory=dict)

    @property
    def scaled(self) -> Graph:
        """The float network with the weights that calibration quantised."""
        return equalised(self.floating, self.factors)

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
    divisors, factors = (_channels(stage, fact) for fact in ("divisors", "factors"))
    return Models(migrated(graph, divisors), quantised, stage, factors)


def check_image(path: Path, models: Models) -> None:
    """Refuse an image that is fed otherwise than the fixed stage.

    Raises:
        OptionError: It is.
        ImageError: It cannot be read.
    """
    if read_image(path).contract != models.contract:
        raise OptionError(
            f"--offline: {path} is fed otherwise than the fixed stage", "compile the image from that stage"
        )


def _channels(stage: Stage, fact: str) -> dict[str, Array]:
    """A fact that has a number for each channel of some tensors."""
    found = stage.ranges.facts.get(fact, {})
    assert isinstance(found, dict)
    return {name: np.array(one, np.float32) for name, one in found.items()}


def float_runner(models: Models, batch: int = 1) -> Runner:
    """The float network, for so many samples, with every tensor that the fixed one quantises as an output."""
    network = models.floating.with_outputs(_made(models.floating, _shown(models)))
    return compile_runner(stacked(network, batch))


def _shown(models: Models) -> list[str]:
    """Activations and outputs that are compared."""
    outputs, activations, _ = _comparisons(models)
    return list(dict.fromkeys(one.name for one in (*activations, *outputs)))


def measure(
    models: Models,
    floating: Runner,
    samples: Iterable[Pair],
    names: Sequence[str],
    labels: Sequence[int] = (),
    classify: bool = False,
    image: Path | None = None,
    progress: Progress | None = None,
    target: str = "",
    batch: int = 1,
) -> Report:
    """Run the samples through both models, and compare every tensor that the fixed one quantises.

    Args:
        models: What to compare.
        floating: ``float_runner`` of them.
        samples: Each sample's arrays for both models.
        names: Of the samples.
        labels: The right class of each sample, where known.
        classify: Whether the first output holds scores of classes.
        image: An image of the fixed model that runs too.
        progress: Told how far it is.
        target: Chip whose integers are simulated; by default the stage's.
        batch: Samples that run at once, ``floating`` and the image included; the figures do not depend on it.
    """
    report = Report(*_comparisons(models), labelled=bool(labels), names=list(names))
    shown = {one.name: one for one in (*report.activations, *report.outputs)}
    results = {name: result for name, result in _results(models.fixed).items() if name in shown}
    outputs = dict.fromkeys([*results.values(), *(s.name for s in models.fixed.outputs)])
    target = target or models.stage.target
    inner = fixed_interpreter(
        stacked(models.fixed.with_outputs(outputs), batch), replace(models.contract, outputs=()), target
    )
    report.float_layers = inner.float_layers
    runs = {"float": floating, "fixed": inner.run}
    if image:
        runs["offline"] = open_offline(image, batch=batch).run
        runs["exact"] = fixed_interpreter(stacked(models.fixed, batch), models.contract, target).run
    number = 0
    for chunk in chunks(samples, batch):
        if progress:
            progress("samples", number, len(names))
        for real, found in _run_all(runs, chunk, batch):
            expected = {**real, **found["float"]}
            for name, one in shown.items():
                values = _scaled(expected[name], models.factors.get(name))
                one.add(values, found["fixed"][results.get(name, name)], number)
            if image and any(found["exact"][n].tobytes() != v.tobytes() for n, v in found["offline"].items()):
                report.differing.append(names[number])
            if classify:
                _score(report, found, models.fixed.outputs[0].name, labels[number] if labels else None)
            number += 1
    report.extremes = _extremes(models.stage)
    return report


def _scaled(values: Array, factors: Array | None) -> Array:
    """A convolution's input with scaled channels."""
    return values if factors is None else values * factors.reshape(-1, *[1] * (values.ndim - 2))


def _run_all(
    runs: Mapping[str, Runner], chunk: Sequence[Pair], batch: int
) -> Iterator[tuple[Mapping[str, Array], dict[str, dict[str, Array]]]]:
    """For each sample: what the float model is fed, and every model's outputs."""
    reals, raws = zip(*chunk, strict=True)
    every = [run_stacked(run, reals if model == "float" else raws, batch) for model, run in runs.items()]
    for real, *ran in zip(reals, *every, strict=True):
        yield real, dict(zip(runs, ran, strict=True))


def _score(report: Report, found: Mapping[str, Mapping[str, Array]], output: str, label: int | None) -> None:
    """Count whether each model's best class is the label, and the float model's."""
    reference = int(np.argmax(found["float"][output]))
    for model in ("float", "fixed", "offline"):
        if model in found:
            report.scores.setdefault(model, Scores()).add(found[model][output], label, reference)


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
    made, scaled = models.floating.producer(), models.scaled
    inputs = {spec.name for spec in models.floating.inputs}
    tensors = {one["name"]: one for one in fixed_tensors(models.fixed)}
    activations, weights = [], []
    for name, facts in tensors.items():
        bits = int(facts["qtype"].lstrip("UINT"))
        operator = made[name].op_type if name in made else "input" if name in inputs else "constant"
        one = Comparison(name, operator, bits, min(facts["min"]), max(facts["max"]))
        if operator != "constant":
            activations.append(one)
        elif name in scaled.constants:
            one.add(scaled.constants[name], _weight(models.fixed, name, facts))
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
    given: Any = stage.metadata.get("sample_names", [])
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
