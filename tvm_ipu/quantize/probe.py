"""A float network whose rounding can be turned on and off, place by place, without another compilation.

    x  ->  x + on * (step * clip(round(x / step), low, high) - x)
    conv(x, w, b)  ->  conv(x, w, b) + on * conv(x, rounded(w) - w)

Steps, bounds and switches are inputs. So ranges and bits of every tensor are compared by the outputs of
the whole network, and the noise that each layer adds to them is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvm_ipu.base.graph import Array, Graph, Node
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.quantize.collect import Runner, Sample
from tvm_ipu.quantize.ends import measured_tensors
from tvm_ipu.quantize.grid import activation_grid, weight_grid
from tvm_ipu.quantize.insert import FLOAT_BITS
from tvm_ipu.quantize.places import Places

_FORMULA = (("Div", "step"), ("Round", ""), ("Max", "low"), ("Min", "high"), ("Mul", "step"))


@dataclass(frozen=True)
class Noise:
    """What rounding adds to the outputs.

    Attributes:
        power: Mean over samples and ``measured_tensors`` of the squared error, as a share of the signal.
        means: For each weight: the mean error of the product's result in each output channel.
    """

    power: float
    means: dict[str, Array]

    @property
    def decibels(self) -> float:
        """Signal to noise."""
        return float(-10 * np.log10(max(self.power, 1e-30)))


class Probe:
    """The network of one calibration.

    Args:
        graph: Float network.
        places: What of it is quantised.
        weights: Ranges of the weights, with the bits that are tried.
        samples: Few samples.
        run: Computes a network.
    """

    def __init__(
        self,
        graph: Graph,
        places: Places,
        weights: Mapping[str, TensorRange],
        samples: Sequence[Sample],
        run: Runner,
    ) -> None:
        self._graph = graph
        self._samples = samples
        self._places = [name for name in places.tensors if name not in graph.constants]
        self._float_nodes = places.float_nodes
        self._kept_float = places.kept_float(graph)
        self._weights = {name: weights[name] for name in places.weights if weights[name].bits < FLOAT_BITS}
        self._axes = places.weights
        self._nodes: list[Node] = []
        self._constants = dict(graph.constants)
        self._specs: dict[str, TensorSpec] = dict(graph.tensors)
        self._inputs: list[TensorSpec] = []
        self._means: dict[str, str] = {}
        self._ends = measured_tensors(graph)
        self._function = run(self._build())
        off = self._settings({}, ())
        self._expected = [self._function({**sample, **off}) for sample in samples]

    def measure(self, ranges: Mapping[str, TensorRange], weights: Iterable[str] | None = None) -> Noise:
        """Noise where some tensors are rounded.

        Args:
            ranges: Places that are rounded, and how; those of 32 bits and those left out are not.
            weights: Weights that are rounded; all by default.
        """
        settings = self._settings(ranges, self._weights if weights is None else weights)
        powers, means = [], []
        for sample, expected in zip(self._samples, self._expected, strict=True):
            found = self._function({**sample, **settings})
            powers += [_noise(expected[name], found[name]) for name in self._ends]
            means.append({weight: found[name] for weight, name in self._means.items()})
        averages = {name: np.mean([one[name] for one in means], axis=0) for name in self._means}
        return Noise(float(np.mean(powers)), averages)

    def _settings(self, ranges: Mapping[str, TensorRange], weights: Iterable[str]) -> Sample:
        chosen = set(weights)
        values = {f"{name}/on": float(name in chosen) for name in self._weights}
        for name in self._places:
            one = ranges.get(name)
            on = one is not None and one.bits < FLOAT_BITS
            grid = activation_grid(min(one.low), max(one.high), one.bits) if one and on else None
            zero = int(grid.zero) if grid else 0
            values[f"{name}/on"] = float(on)
            values[f"{name}/step"] = float(grid.scale) if grid else 1.0
            values[f"{name}/low"], values[f"{name}/high"] = (
                float(limit - zero) for limit in (grid.limits if grid else (0, 0))
            )
        return {name: np.array([value], np.float32) for name, value in values.items()}

    # -- the network -------------------------------------------------------------------------------------

    def _build(self) -> Graph:
        renamed: dict[str, str] = {}
        for spec in self._graph.inputs:
            if spec.name in self._places:
                renamed[spec.name] = f"{spec.name}/probed"
                self._round(spec, spec.name, renamed[spec.name], spec.name)
        rounded = {name: f"{name}/rounded" for name in self._places if name in self._kept_float}
        rounded |= renamed
        unrounded = {name: name if name in rounded else f"{name}/float" for name in self._places}
        for node in self._graph.nodes:
            known = renamed if node.name in self._float_nodes else rounded
            inputs = tuple(known.get(name, name) for name in node.inputs)
            outputs = tuple(unrounded.get(name, name) for name in node.outputs)
            weight = node.inputs[1] if len(node.inputs) > 1 and node.inputs[1] in self._weights else ""
            if weight:
                self._product(replace(node, inputs=inputs, outputs=outputs), weight)
            else:
                self._nodes.append(replace(node, inputs=inputs, outputs=outputs))
            for name in node.outputs:
                spec_or_none = self._graph.spec(name)
                if name in self._places and spec_or_none:
                    self._specs[unrounded[name]] = replace(spec_or_none, name=unrounded[name])
                    self._round(spec_or_none, unrounded[name], rounded.get(name, name), name)
        own = {spec.name for spec in self._graph.outputs}
        operands = [end for name in self._ends if name not in own and (end := self._graph.spec(name))]
        means = [self._specs[name] for name in self._means.values()]
        return replace(
            self._graph,
            nodes=tuple(self._nodes),
            constants=self._constants,
            inputs=(*self._graph.inputs, *self._inputs),
            outputs=(*self._graph.outputs, *operands, *means),
            tensors=self._specs,
        )

    def _round(self, spec: TensorSpec, source: str, result: str, name: str) -> None:
        """The rounding of one place."""
        current = source
        for part in ("step", "low", "high", "on"):
            self._inputs.append(TensorSpec(f"{name}/{part}", (1,), DType.FLOAT32))
        for number, (operator, part) in enumerate(_FORMULA):
            operands = (current, f"{name}/{part}") if part else (current,)
            current = self._node(operator, operands, f"{name}/probe{number}", spec.shape)
        error = self._node("Sub", (current, source), f"{name}/error", spec.shape)
        added = self._node("Mul", (error, f"{name}/on"), f"{name}/noise", spec.shape)
        self._node("Add", (source, added), result, spec.shape)

    def _product(self, node: Node, weight: str) -> None:
        """A product, and beside it what the rounding of its weights adds."""
        result, shape = node.outputs[0], self._shape(node.outputs[0])
        value, axis = self._graph.constants[weight], self._axes[weight]
        grid = weight_grid(np.squeeze(np.asarray(self._weights[weight].high)), self._weights[weight].bits)
        if f"{weight}/difference" not in self._constants:
            self._constants[f"{weight}/difference"] = grid.rounded(value, axis) - value
            self._inputs.append(TensorSpec(f"{weight}/on", (1,), DType.FLOAT32))
        exact, error = f"{result}/exact", f"{result}/weight_error"
        self._nodes.append(replace(node, outputs=(exact,)))
        pair = (node.inputs[0], f"{weight}/difference")
        self._nodes.append(replace(node, name=error, inputs=pair, outputs=(error,)))
        for name in (exact, error):
            self._specs[name] = TensorSpec(name, shape, DType.FLOAT32)
        added = self._node("Mul", (error, f"{weight}/on"), f"{result}/weight_noise", shape)
        self._node("Add", (exact, added), result, shape)
        if weight not in self._means:
            self._mean(node, error, shape, weight)

    def _mean(self, node: Node, error: str, shape: tuple[int, ...], weight: str) -> None:
        """An output with the mean error of each output channel."""
        channel = 1 if node.op_type in ("Conv", "ConvTranspose") else len(shape) - 1
        axes = [axis for axis in range(len(shape)) if axis != channel]
        name = f"{weight}/mean"
        self._constants[f"{name}/axes"] = np.array(axes, np.int64)
        self._nodes.append(Node(name, "ReduceMean", (error, f"{name}/axes"), (name,), {"keepdims": 0}))
        self._specs[name] = TensorSpec(name, (shape[channel],), DType.FLOAT32)
        self._means[weight] = name

    def _node(self, operator: str, inputs: tuple[str, ...], output: str, shape: tuple[int, ...]) -> str:
        self._nodes.append(Node(f"{output}/{operator}", operator, inputs, (output,)))
        self._specs[output] = TensorSpec(output, shape, DType.FLOAT32)
        return output

    def _shape(self, name: str) -> tuple[int, ...]:
        found = self._specs.get(name) or self._graph.spec(name.removesuffix("/float"))
        assert found is not None
        return found.shape


def _noise(expected: Array, found: Array) -> float:
    """Squared error as a share of the signal; integers have none."""
    if expected.dtype.kind != "f":
        return 0.0
    signal = float(np.square(expected, dtype=np.float64).sum())
    return float(np.square(found.astype(np.float64) - expected).sum()) / max(signal, 1e-30)
