"""A float network and its ranges as a network with QuantizeLinear and DequantizeLinear.

    y = Relu(Conv(x, w, b))   ->   y = DequantizeLinear(QuantizeLinear(Relu(Conv(x', w', b))))

Tensors keep their names: the dequantised tensor is called what the float one was. Where float operators or
outputs that stay float read a tensor too, the float one keeps its name, and the dequantised is ``y/rounded``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tvm_ipu.base.graph import Array, Graph, Node
from tvm_ipu.base.ranges import TensorRange
from tvm_ipu.base.tensor import DType, TensorSpec
from tvm_ipu.quantize.grid import Grid, activation_grid, weight_grid
from tvm_ipu.quantize.places import Places

FLOAT_BITS = 32


def insert_quantizers(graph: Graph, places: Places, ranges: Mapping[str, TensorRange]) -> Graph:
    """Quantise every place and weight that has a range of fewer than 32 bits.

    Args:
        graph: Float network. Constants with ``data`` in their range are replaced by that first.
        places: What of it is quantised.
        ranges: By name; a weight's are symmetric.
    """
    return _Insertion(graph, places, ranges).run()


class _Insertion:
    def __init__(self, graph: Graph, places: Places, ranges: Mapping[str, TensorRange]) -> None:
        changed = {n: np.asarray(r.data, np.float32) for n, r in ranges.items() if r.data is not None}
        self._graph = replace(graph, constants={**graph.constants, **changed})
        self._places = places
        self._ranges = ranges
        self._constants: dict[str, Array] = {}
        self._nodes: list[Node] = []
        self._specs: dict[str, TensorSpec] = {}
        self._renamed: dict[str, str] = {}
        self._rounded: dict[str, str] = {}

    def run(self) -> Graph:
        graph, made = self._graph, {name for node in self._graph.nodes for name in node.outputs}
        ends, kept_float = self._ends(), self._places.kept_float(graph)
        for spec in graph.inputs:
            grid = self._grid(spec.name)
            if grid:
                self._renamed[spec.name] = self._pair(spec.name, f"{spec.name}/rounded", spec, grid)
        for name in dict.fromkeys([*self._places.weights, *self._places.tensors]):
            if name in graph.constants and (grid := self._grid(name)):
                self._constant(name, grid)
        for node in graph.nodes:
            grids = {name: ends.get(name) or self._grid(name) for name in node.outputs if name in made}
            renamed = {n: n if n in kept_float else f"{n}/float" for n, grid in grids.items() if grid}
            known = self._renamed if node.name in self._places.float_nodes else self._renamed | self._rounded
            inputs = tuple(known.get(name, name) for name in node.inputs)
            outputs = tuple(renamed.get(name, name) for name in node.outputs)
            self._nodes.append(replace(node, inputs=inputs, outputs=outputs))
            for name, grid in grids.items():
                found = graph.spec(name)
                if grid and found and name in kept_float:
                    self._rounded[name] = self._pair(name, f"{name}/rounded", found, grid)
                elif grid and found:
                    self._specs[renamed[name]] = replace(found, name=renamed[name])
                    self._pair(renamed[name], name, found, grid)
        used = {name for node in self._nodes for name in node.inputs} | {s.name for s in graph.outputs}
        kept = {name: value for name, value in graph.constants.items() if name in used}
        return replace(
            graph,
            nodes=tuple(self._nodes),
            constants={**kept, **self._constants},
            tensors={**graph.tensors, **self._specs},
        )

    def _grid(self, name: str) -> Grid | None:
        """The grid of a place or weight; None where it stays float."""
        found = self._ranges.get(name)
        if found is None or found.bits >= FLOAT_BITS:
            return None
        if name in self._places.weights:
            return weight_grid(np.squeeze(np.maximum(np.abs(found.low), np.abs(found.high))), found.bits)
        if name in self._places.tensors:
            return activation_grid(min(found.low), max(found.high), found.bits)
        return None

    def _ends(self) -> dict[str, Grid]:
        """Grids of outputs that operators moved: they are rounded once more, to the same numbers."""
        follows = self._places.follows
        outputs = (spec.name for spec in self._graph.outputs if spec.name in follows)
        grids = {name: self._grid(follows[name]) for name in outputs}
        return {name: grid for name, grid in grids.items() if grid}

    def _pair(self, source: str, result: str, spec: TensorSpec, grid: Grid) -> str:
        """``QuantizeLinear`` and ``DequantizeLinear`` from a tensor to another one."""
        stem = source.removesuffix("/float")
        parameters = self._parameters(stem, grid)
        between = f"{stem}/integers"
        self._nodes += [
            Node(f"{stem}/quantize", "QuantizeLinear", (source, *parameters), (between,)),
            Node(f"{stem}/dequantize", "DequantizeLinear", (between, *parameters), (result,)),
        ]
        self._specs[between] = TensorSpec(between, spec.shape, DType.parse(grid.dtype.name))
        self._specs[result] = replace(spec, name=result)
        return result

    def _constant(self, name: str, grid: Grid) -> None:
        """Integers and ``DequantizeLinear`` in place of a constant."""
        axis = self._places.weights.get(name)
        value = self._graph.constants[name]
        parameters = self._parameters(name, grid)
        integers = f"{name}/integers"
        self._constants[integers] = grid.integers(value, axis)
        attributes = {"axis": axis} if np.ndim(grid.scale) and axis is not None else {}
        result = f"{name}/rounded"
        self._nodes.append(
            Node(f"{name}/dequantize", "DequantizeLinear", (integers, *parameters), (result,), attributes)
        )
        self._specs[result] = TensorSpec(result, value.shape, DType.FLOAT32)
        self._renamed[name] = result

    def _parameters(self, stem: str, grid: Grid) -> tuple[str, str]:
        names = (f"{stem}/scale", f"{stem}/zero")
        self._constants |= {names[0]: np.asarray(grid.scale), names[1]: np.asarray(grid.zero)}
        return names
