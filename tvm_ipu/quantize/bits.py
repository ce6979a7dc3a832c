"""How many bits each tensor and weight gets, before measurements change that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tvm_ipu.base.contract import ConvConfig
from tvm_ipu.base.errors import OptionError
from tvm_ipu.base.graph import Graph, Node
from tvm_ipu.quantize.operators import PRODUCTS, is_depthwise
from tvm_ipu.quantize.places import Places


def initial_bits(graph: Graph, places: Places, products: int, others: int) -> dict[str, int]:
    """Bits by tensor and weight.

    Args:
        graph: The float network.
        places: What of it is quantised.
        products: Bits of the inputs and weights of products.
        others: Bits of tensors that no product reads.
    """
    read = product_inputs(graph, places)
    bits = {name: products if name in read else max(products, others) for name in places.tensors}
    return bits | dict.fromkeys(places.weights, products)


def product_inputs(graph: Graph, places: Places) -> set[str]:
    """Places that products read."""
    names = {name for node in graph.nodes if node.op_type in PRODUCTS for name in node.inputs[:2]}
    return {place for name in names if (place := places.place(name))}


def promoted(bits: Mapping[str, int], tensors: Iterable[str], places: Places, to: int = 16) -> dict[str, int]:
    """Bits where the products that read some places have more."""
    wanted = set(tensors)
    changed = {name: max(bits[name], to) for name in wanted}
    for weight, (place, _) in places.products.items():
        if place in wanted:
            changed[weight] = max(bits[weight], to)
    return {**bits, **changed}


def configured(bits: Mapping[str, int], graph: Graph, places: Places, config: ConvConfig) -> dict[str, int]:
    """Bits as ``[CONV_CONFIG]`` asks for them; the network's first convolution keeps its own.

    Raises:
        OptionError: A tensor is no first input of a convolution.
    """
    nodes = [node for node in graph.nodes if node.op_type in PRODUCTS and places.place(node.inputs[0])]
    first = next((node for node in nodes if node.op_type == "Conv"), None)
    found = dict(bits)
    if config.input_format == "ALL_UINT8":
        for node in nodes:
            found |= {places.place(node.inputs[0]): 8, **dict.fromkeys(_weights(node, places), 8)}
    known = {node.inputs[0]: node for node in nodes}
    for name in config.tensors:
        if name not in known:
            raise OptionError(
                f"[CONV_CONFIG] tensor_arrays: '{name}' is not the first input of a convolution",
                f"those are {', '.join(list(known)[:20])}",
            )
    for node in nodes:
        if node is not first and (node.inputs[0] in config.tensors or _asks(config, node, graph)):
            found |= {places.place(node.inputs[0]): 16, **dict.fromkeys(_weights(node, places), 16)}
    return found


def _asks(config: ConvConfig, node: Node, graph: Graph) -> bool:
    depthwise = node.op_type == "Conv" and node.inputs[1] in graph.constants and is_depthwise(node, graph)
    wanted = {"ALL_INT16": True, "CONV2D_INT16": not depthwise, "DEPTHWISE_INT16": depthwise}
    return wanted.get(config.input_format, False)


def _weights(node: Node, places: Places) -> list[str]:
    return [node.inputs[1]] if node.inputs[1] in places.weights else []
