"""Outliers of activations, moved into weights (SmoothQuant).

    normal = LayerNormalization(x, gamma, beta)         smooth = LayerNormalization(x, gamma / s, beta / s)
    y = MatMul(normal, w)                         ->    y = MatMul(smooth, s * w)
    z = Add(normal, residual)                           z = Add(Mul(smooth, s), residual)

The divisor of channel j is ``max|x_j|^alpha / max|w_j|^(1 - alpha)``: Xiao et al., SmoothQuant,
arXiv:2211.10438, equation 4. The network computes what it did, but one grid suits all channels of ``smooth``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tvm_ipu.base.graph import Array, Graph, Node
from tvm_ipu.quantize.collect import CollectOptions, Runner, Samples, observe
from tvm_ipu.quantize.operators import weight_axis, weight_of

ALPHA = 0.8
"""How much of the outliers weights take over, from 0 to 1; 0.5 and 0.95 are 0.4 dB worse on MiniLM."""

NORMS = ("LayerNormalization", "RMSNormalization")
LEAST = 1e-5


@dataclass
class Peaks:
    """Largest absolute value of each channel, the last axis."""

    largest: Array = field(default_factory=lambda: np.zeros(1, np.float32))

    def observe(self, values: Array, sample: int) -> bool:
        """Add a sample; False where a number is not finite."""
        if not np.isfinite(values).all():
            return False
        self.largest = np.maximum(self.largest, np.abs(values).reshape(-1, values.shape[-1]).max(0))
        return True


def find_divisors(
    graph: Graph, samples: Samples, run: Runner, options: CollectOptions, alpha: float = ALPHA
) -> dict[str, Array]:
    """The divisors of each normalisation's channels, by the name of its result.

    Raises:
        CalibrationError: A sample does not fit, or a number is not finite.
    """
    groups = dict(_groups(graph))
    peaks = {name: Peaks() for name in groups}
    if groups:
        observe(graph, {name: [one] for name, one in peaks.items()}, samples, run, options)
    found = {}
    for name, products in groups.items():
        weights = np.max([_input_peaks(node, graph) for node in products], 0)
        activations = np.maximum(peaks[name].largest, LEAST)
        found[name] = (activations**alpha / np.maximum(weights, LEAST) ** (1 - alpha)).astype(np.float32)
    return found


def migrated(graph: Graph, divisors: Mapping[str, Array]) -> Graph:
    """The same network with smoother inputs of the products behind some normalisations.

    Args:
        graph: Float network.
        divisors: By the name of a normalisation's result, as ``find_divisors`` gives them.
    """
    groups = {name: nodes for name, nodes in _groups(graph) if name in divisors}
    products = {node.name: name for name, nodes in groups.items() for node in nodes}
    constants, tensors, nodes = dict(graph.constants), dict(graph.tensors), []
    for node in graph.nodes:
        source = products.get(node.name)
        result = node.outputs[0]
        if source:
            nodes.append(replace(node, inputs=(f"{source}/smooth", *node.inputs[1:])))
            weight = node.inputs[1]
            factor = divisors[source].reshape(_along_inputs(node, graph))
            constants[weight] = graph.constants[weight] * factor
        elif result in groups:
            names = tuple(f"{result}/divided{at}" for at in range(1, len(node.inputs)))
            old = [graph.constants[name] for name in node.inputs[1:]]
            constants |= {name: one / divisors[result] for name, one in zip(names, old, strict=True)}
            constants[f"{result}/divisors"] = divisors[result]
            tensors[f"{result}/smooth"] = replace(tensors[result], name=f"{result}/smooth")
            pair = (f"{result}/smooth", f"{result}/divisors")
            nodes.append(replace(node, inputs=(node.inputs[0], *names), outputs=pair[:1]))
            nodes.append(Node(f"{result}/restore", "Mul", pair, (result,)))
        else:
            nodes.append(node)
    changed = replace(graph, nodes=tuple(nodes), constants=constants, tensors=tensors)
    return changed.with_outputs(spec.name for spec in graph.outputs)


def _groups(graph: Graph) -> Iterator[tuple[str, list[Node]]]:
    """Results of normalisations with weights of their own, and the products that read them."""
    readers = graph.readers()
    for node in graph.nodes:
        name, spec = node.outputs[0], graph.spec(node.outputs[0])
        shapes = [graph.constants[one].shape for one in node.inputs[1:] if one in graph.constants]
        if node.op_type not in NORMS or len(node.outputs) > 1 or spec is None:
            continue
        if not shapes or shapes != [spec.shape[-1:]] * (len(node.inputs) - 1):
            continue
        products = [one for one in readers.get(name, []) if _multiplies(one, name, graph)]
        names = {one.name for one in products}
        if products and all(one.name in names for node in products for one in readers[node.inputs[1]]):
            yield name, products


def _multiplies(node: Node, name: str, graph: Graph) -> bool:
    """Whether a node is a product of the channels of a tensor with a matrix of constants."""
    weight = weight_of(node, graph)
    plain = node.op_type in ("Gemm", "MatMul") and not node.attributes.get("transA", 0)
    return bool(weight) and plain and node.inputs[0] == name and graph.constants[weight].ndim == 2


def _along_inputs(node: Node, graph: Graph) -> tuple[int, int]:
    """The shape of one number for each input channel beside a product's weights."""
    return (1, -1) if weight_axis(node, graph) == 0 else (-1, 1)


def _input_peaks(node: Node, graph: Graph) -> Array:
    """Largest absolute weight of each input channel."""
    value = np.abs(graph.constants[node.inputs[1]])
    return np.asarray(value.max(0 if weight_axis(node, graph) == 0 else 1))
