"""Channels between two convolutions scaled to use one range well (cross-layer equalisation).

    conv(relu(conv(x, w, b)), v)  =  conv(relu(conv(x, s * w, s * b)), v / s)        for s > 0

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721,
section 4.1. There weights have one scale for all channels; here each output channel has its own, so ``s *
w`` is expressed as well as ``w`` is. What gains is the tensor between, which has one grid. Where the second
convolution is depthwise, ``v / s`` costs nothing, and each channel gets the range of the largest; elsewhere
both share the gain, by the square root. No channel becomes larger than the largest one was, so a ``Clip``
keeps its bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tvm_ipu.base.graph import Array, Graph, Node
from tvm_ipu.quantize.operators import CLIPS, bias_of, is_depthwise, weight_of

HEADROOM = 1.25
"""How much larger than in the samples a channel may become before a ``Clip`` cuts it off."""

LARGEST = 64.0
"""Most that a channel is scaled by."""

_LEAST = 1e-30


@dataclass(frozen=True)
class Pair:
    """Two convolutions with nothing but clips between them.

    Attributes:
        first: Its output channels are scaled.
        second: Reads them.
        between: The tensor that the second one reads.
    """

    first: Node
    second: Node
    between: str


def find_pairs(graph: Graph) -> list[Pair]:
    """Convolutions whose weights and results nothing else reads."""
    made, readers = graph.producer(), graph.readers()
    outputs = {spec.name for spec in graph.outputs}

    def is_alone(name: str) -> bool:
        return len(readers.get(name, [])) == 1 and name not in outputs

    found = []
    for second in graph.nodes:
        if not _is_convolution(second, graph, is_alone) or not _reads_channels(second, graph):
            continue
        between = name = second.inputs[0]
        while name in made and is_alone(name) and _keeps_scale(made[name], graph):
            name = made[name].inputs[0]
        if name in made and is_alone(name) and _is_convolution(made[name], graph, is_alone):
            found.append(Pair(made[name], second, between))
    return found


def find_factors(graph: Graph, peaks: Mapping[str, Array], kept: Collection[str] = ()) -> dict[str, Array]:
    """By how much each channel between two convolutions is scaled, float32 [channels] by the tensor's name.

    Args:
        graph: Float network.
        peaks: For tensors between convolutions, the largest number in each channel.
        kept: Weights that stay as they are.
    """
    return {
        pair.between: _factors(pair, peaks[pair.between], graph)
        for pair in find_pairs(graph)
        if pair.between in peaks and not {pair.first.inputs[1], pair.second.inputs[1]} & {*kept}
    }


def equalised(graph: Graph, factors: Mapping[str, Array]) -> Graph:
    """The network with scaled channels; its results differ only where a ``Clip`` cuts those off.

    Args:
        graph: Float network.
        factors: As ``find_factors`` gives them.
    """
    constants = dict(graph.constants)
    for pair in find_pairs(graph):
        if pair.between not in factors:
            continue
        scale = factors[pair.between]
        for name in (pair.first.inputs[1], bias_of(pair.first, graph)):
            if name:
                constants[name] = _along(constants[name], scale, 0)
        weight = pair.second.inputs[1]
        depthwise = is_depthwise(pair.second, graph)
        repeats = constants[weight].shape[0] // scale.size if depthwise else 1
        constants[weight] = _along(constants[weight], 1 / np.repeat(scale, repeats), 0 if depthwise else 1)
    return replace(graph, constants=constants)


def scaled_weights(graph: Graph, factors: Mapping[str, Array]) -> list[str]:
    """Weights that ``equalised`` changes."""
    pairs = [pair for pair in find_pairs(graph) if pair.between in factors]
    return sorted({node.inputs[1] for pair in pairs for node in (pair.first, pair.second)})


def _factors(pair: Pair, peak: Array, graph: Graph) -> Array:
    room = np.clip(peak.max() / np.maximum(peak * np.float32(HEADROOM), _LEAST), 1.0, LARGEST)
    if is_depthwise(pair.second, graph):
        return np.asarray(room, np.float32)
    weights = np.abs(graph.constants[pair.second.inputs[1]])
    columns = weights.max(axis=(0, *range(2, weights.ndim)))
    wanted = np.sqrt(columns / max(columns.max(), _LEAST) * room)
    return np.asarray(np.clip(wanted, 1.0, room), np.float32)


def _along(value: Array, factors: Array, axis: int) -> Array:
    shape = [1] * value.ndim
    shape[axis] = -1
    return np.asarray(value * factors.reshape(shape), np.float32)


def _is_convolution(node: Node, graph: Graph, is_alone: Callable[[str], bool]) -> bool:
    weight, bias = weight_of(node, graph), bias_of(node, graph)
    return node.op_type == "Conv" and bool(weight) and is_alone(weight) and (not bias or is_alone(bias))


def _reads_channels(node: Node, graph: Graph) -> bool:
    """Whether each input channel of a convolution has weights of its own along one axis."""
    return int(node.attributes.get("group", 1)) == 1 or is_depthwise(node, graph)


def _keeps_scale(node: Node, graph: Graph) -> bool:
    """Whether ``f(s * x)`` is ``s * f(x)`` as long as that is within the bounds."""
    if node.op_type not in CLIPS:
        return False
    low = graph.constants.get(node.inputs[1]) if node.op_type == "Clip" and len(node.inputs) > 1 else None
    return node.op_type == "Relu" or (low is not None and float(low) == 0.0)
