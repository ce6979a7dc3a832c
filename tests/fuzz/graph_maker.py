"""Random ONNX graphs whose values are known: onnxruntime computes every node as it is added.

Each tensor has its values and those of a few runs whose results were disturbed a little after every node, as
rounding does. The spread of these runs is what another implementation may differ by; nodes whose results jump
(a comparison near a tie, a logarithm near zero) are not taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

Array = np.ndarray

EXTENTS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 33)
SIZE = 4096
"""Elements of a tensor, at most."""
DISTURBED = 3
JUMP = 300
"""Spread of a node's results, in disturbances of the largest one, from which on it is not taken."""
LARGEST = 1000.0
STEPPED = {"QuantizeLinear", "QLinearConv", "QLinearMatMul", "DynamicQuantizeLinear"}
"""Operators that may give a neighbouring integer: numerics of fixed point are the product's own."""
EXACT = {
    "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Expand", "Tile",
    "Pad", "DepthToSpace", "SpaceToDepth", "Gather", "GatherElements", "GatherND", "ScatterElements",
    "ScatterND", "Trilu", "ReverseSequence", "Identity", "Dropout", "MaxPool", "Relu", "Abs", "Neg", "Max",
    "Min", "Where", "If", "TopK", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Clip",
}  # fmt: skip
"""Operators that round nothing."""
SESSION = onnxruntime.SessionOptions()
SESSION.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
SESSION.intra_op_num_threads = 1
SESSION.log_severity_level = 4


class NotTaken(Exception):  # noqa: N818 - no error
    """A node that onnxruntime refuses, or whose results nothing can be compared with."""


@dataclass(frozen=True)
class Tensor:
    """A tensor and its values: the right ones, then the disturbed ones."""

    name: str
    values: tuple[Array, ...]
    constant: bool = False

    @property
    def array(self) -> Array:
        return self.values[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim

    @property
    def dtype(self) -> str:
        return self.array.dtype.name

    def spread(self) -> Array:
        """How far the disturbed values lie from the right ones, float64."""
        with np.errstate(invalid="ignore"):
            apart = [
                np.abs(one.astype(np.float64) - self.array.astype(np.float64)) for one in self.values[1:]
            ]
        return np.nan_to_num(np.max(apart, axis=0), posinf=0.0) if apart else np.zeros(self.shape)


@dataclass(frozen=True)
class Graph:
    """Nodes and the tensors that they take and give."""

    nodes: tuple[NodeProto, ...]
    tensors: dict[str, Tensor]
    outputs: tuple[str, ...]
    opset: int

    @property
    def inputs(self) -> list[str]:
        """Tensors that no node gives and that are no constants."""
        return [name for name in self._taken() if not self.tensors[name].constant]

    def _taken(self) -> list[str]:
        made = {name for node in self.nodes for name in node.output}
        return [
            name for name in dict.fromkeys(n for node in self.nodes for n in uses(node)) if name not in made
        ]

    def feeds(self) -> dict[str, Array]:
        return {name: self.tensors[name].array for name in self.inputs}

    def model(self) -> ModelProto:
        constants = [
            numpy_helper.from_array(self.tensors[name].array, name)
            for name in self._taken()
            if self.tensors[name].constant
        ]
        infos = [_info(self.tensors[name]) for name in self.inputs]
        outputs = [_info(self.tensors[name]) for name in self.outputs]
        return _model(helper.make_graph(self.nodes, "fuzz", infos, outputs, constants), self.opset)

    def part(self, nodes: Iterable[NodeProto], outputs: Sequence[str] = ()) -> Graph:
        """Some of the nodes; what the others gave becomes an input, what none of them takes an output."""
        nodes = tuple(nodes)
        taken = {name for node in nodes for name in uses(node)}
        made = [name for node in nodes for name in node.output if name]
        kept = outputs or [name for name in made if name in self.outputs or name not in taken]
        return replace(self, nodes=nodes, outputs=tuple(kept))

    def text(self) -> str:
        """A line a node."""

        def show(name: str) -> str:
            one = self.tensors.get(name)
            if one is None:
                return name or "-"
            value = f"={one.array.tolist()}" if one.constant and one.array.size <= 8 else ""
            return f"{name}:{one.dtype}{list(one.shape)}{'c' if one.constant else ''}{value}"

        return "\n".join(
            f"{', '.join(map(show, node.output))} = {node.op_type}({', '.join(map(show, uses(node)))}) "
            + " ".join(
                f"{a.name}={helper.get_attribute_value(a)}" for a in node.attribute if not a.HasField("g")
            )
            for node in self.nodes
        )


def uses(node: NodeProto) -> list[str]:
    """Names that a node takes, those that its branches capture included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            made = {n for inner in attribute.g.node for n in inner.output}
            names += [n for inner in attribute.g.node for n in uses(inner) if n not in made]
    return names


def _info(tensor: Tensor) -> ValueInfoProto:
    return helper.make_tensor_value_info(
        tensor.name, helper.np_dtype_to_tensor_dtype(tensor.array.dtype), tensor.shape
    )


def _model(graph: GraphProto, opset: int) -> ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


class Maker:
    """Adds nodes to a graph.

    Args:
        random: Where all choices come from.
        noise: Disturbance of float32 results, as a share of them.
        dtypes: Element types that new tensors may have.
        fixed: Whether weights and factors are always constants.
    """

    def __init__(self, random: Random, noise: float, dtypes: Sequence[str], fixed: bool = False) -> None:
        self.random, self.noise, self.dtypes, self.fixed = random, noise, tuple(dtypes), fixed
        self.numbers = np.random.default_rng(random.getrandbits(64))
        self.opset = random.choice((18, 21))
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[NodeProto] = []

    # Choices

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def choose(self, *options: Any) -> Any:
        return self.random.choice(options)

    def between(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def shape(self, rank: int) -> tuple[int, ...]:
        shape: list[int] = []
        for _ in range(rank):
            left = SIZE // int(np.prod(shape, initial=1))
            shape.append(self.random.choice([e for e in EXTENTS if e <= max(1, left // 4)] or [1]))
        self.random.shuffle(shape)
        return tuple(shape)

    # Tensors

    def _add(self, values: Sequence[Array], constant: bool = False, name: str = "") -> Tensor:
        name = name or f"{'c' if constant else 'x'}{len(self.tensors)}"
        tensor = self.tensors[name] = Tensor(name, tuple(values), constant)
        return tensor

    def array(self, shape: Sequence[int], dtype: str, low: float = -2.0, high: float = 2.0) -> Array:
        """Random elements; integers of all of their range's sizes."""
        if dtype == "bool":
            return self.numbers.integers(0, 2, shape).astype(bool)
        if dtype.startswith("float"):
            return self.numbers.uniform(low, high, shape).astype(dtype)
        if dtype in ("int8", "uint8"):
            info = np.iinfo(dtype)
            return self.numbers.integers(info.min, info.max + 1, shape).astype(dtype)
        return self.numbers.integers(-20, 21, shape).astype(dtype)

    def input(self, array: Array) -> Tensor:
        return self._add([array] * (1 + DISTURBED))

    def constant(self, array: Any, dtype: str = "") -> Tensor:
        return self._add([np.asarray(array, dtype or None)] * (1 + DISTURBED), constant=True)

    def fresh(
        self, shape: Sequence[int], dtype: str, low: float = -2.0, high: float = 2.0, constant: float = 0.5
    ) -> Tensor:
        """A new input or constant."""
        array = self.array(shape, dtype, low, high)
        return self.constant(array) if self.fixed or self.chance(constant) else self.input(array)

    def pick(self, dtypes: Sequence[str] = (), low: int = 0, high: int = 5, size: int = SIZE) -> Tensor:
        """A tensor of one of these types, of a rank in these bounds: mostly a late one, or a new one."""
        dtypes = [one for one in dtypes or self.dtypes if one in self.dtypes]
        if not dtypes:
            raise NotTaken("no such type here")
        found = [
            one
            for one in self.tensors.values()
            if not one.constant and one.dtype in dtypes and low <= one.rank <= high and one.array.size <= size
        ]
        if found and not self.chance(0.12):
            return found[max(self.random.randrange(len(found)), self.random.randrange(len(found)))]
        ranks = [r for r in (0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5) if low <= r <= high] or [low]
        return self.input(self.array(self.shape(self.random.choice(ranks)), self.random.choice(dtypes)))

    def real(self, low: int = 0, high: int = 5, size: int = SIZE) -> Tensor:
        return self.pick(("float32", "float32", "float32", "float16"), low, high, size)

    def other(self, x: Tensor, low: float = -2.0, high: float = 2.0) -> Tensor:
        """A tensor of the same type that broadcasts with another one."""
        found = [
            one
            for one in self.tensors.values()
            if not one.constant and one.dtype == x.dtype and _broadcasts(one.shape, x.shape)
        ]
        if found and self.chance(0.6):
            return self.random.choice(found)
        shape = tuple(1 if self.chance(0.3) else extent for extent in x.shape)[self.between(0, x.rank) :]
        if self.chance(0.1) and x.rank < 4 and x.array.size < SIZE // 4:
            shape = (self.between(1, 3), *x.shape)
        return self.fresh(shape, x.dtype, low, high)

    def like(self, x: Tensor) -> Tensor:
        """A tensor of the same type and shape."""
        found = [
            t for t in self.tensors.values() if not t.constant and (t.dtype, t.shape) == (x.dtype, x.shape)
        ]
        return self.random.choice(found) if self.chance(0.7) else self.fresh(x.shape, x.dtype)

    # Nodes

    def node(self, op: str, *inputs: Tensor | None, outputs: int = 1, **attributes: Any) -> Tensor:
        """Add a node with one result."""
        return self.several(op, *inputs, outputs=outputs, **attributes)[0]

    def several(
        self,
        op: str,
        *inputs: Tensor | None,
        outputs: int = 1,
        captured: Sequence[Tensor] = (),
        **attributes: Any,
    ) -> list[Tensor]:
        """Add a node.

        Raises:
            NotTaken: Nothing was added.
        """
        number = len(self.nodes)
        names = [f"y{number}" + (f"_{i}" if i else "") for i in range(outputs)]
        node = helper.make_node(
            op, [x.name if x else "" for x in inputs], names, f"{op}_{number}", **attributes
        )
        sources = list({x.name: x for x in (*inputs, *captured) if x is not None}.values())
        runs = self._run(node, sources)
        results = [[run[i] for run in runs] for i in range(outputs)]
        for values in results:
            self._judge(op, values, sources)
        self.nodes.append(node)
        return [self._add(values, name=name) for name, values in zip(names, results, strict=True)]

    def _run(self, node: NodeProto, sources: Sequence[Tensor]) -> list[list[Array]]:
        """Results of the node for the right inputs and for the disturbed ones, disturbed."""
        graph = helper.make_graph(
            [node], "one", [_info(x) for x in sources], [ValueInfoProto(name=n) for n in node.output]
        )
        for source in sources:
            if source.constant:  # some kernels want constants
                graph.initializer.append(numpy_helper.from_array(source.array, source.name))
        try:
            session = onnxruntime.InferenceSession(
                _model(graph, self.opset).SerializeToString(), SESSION, providers=["CPUExecutionProvider"]
            )
            runs = [
                [np.asarray(y) for y in session.run(None, {x.name: x.values[i] for x in sources})]
                for i in range(1 + DISTURBED)
            ]
        except Exception as err:  # onnxruntime has many, all of them its own
            raise NotTaken(str(err)) from err
        return [runs[0], *([self._disturb(node.op_type, y) for y in run] for run in runs[1:])]

    def _disturb(self, op: str, y: Array) -> Array:
        if y.dtype.kind != "f":
            if op not in STEPPED or y.dtype.itemsize > 2:
                return y
            info = np.iinfo(y.dtype)
            step = self.numbers.integers(-1, 2, y.shape)
            return np.clip(y.astype(np.int64) + step, info.min, info.max).astype(y.dtype)
        if op in EXACT:
            return y
        with np.errstate(all="ignore"):
            size = np.abs(y.astype(np.float64)) + 0.5 * _largest(y)
            error = self.numbers.uniform(-1, 1, y.shape) * self._epsilon(y.dtype) * size
            return np.where(y == 0, y, y + np.nan_to_num(error, posinf=0, neginf=0)).astype(y.dtype)

    def _epsilon(self, dtype: Any) -> float:
        return max(self.noise, {"float16": 1e-3, "float64": 1e-12}.get(np.dtype(dtype).name, 0.0))

    def _judge(self, op: str, values: Sequence[Array], sources: Sequence[Tensor]) -> None:
        """Refuse results that are too large, too many, or that jump."""
        first = values[0]
        if first.size > SIZE or first.size == 0 or first.ndim > 6:
            raise NotTaken("size")
        if any(one.shape != first.shape or one.dtype != first.dtype for one in values):
            raise NotTaken("shape that depends on values")
        tensor = Tensor("", tuple(values))
        if first.dtype.kind != "f":
            stepped = op in STEPPED or (op in EXACT and any(x.spread().any() for x in sources))
            if tensor.spread().max(initial=0) > (8 if stepped else 0):
                raise NotTaken("jumps")
            return
        largest = _largest(first)
        if not all(np.array_equal(np.isfinite(one), np.isfinite(first)) for one in values):
            raise NotTaken("jumps")
        if largest > LARGEST or (not np.isfinite(first).all() and self.chance(0.8)):
            raise NotTaken("large")
        stepped = max((_relative(x) for x in sources), default=0.0)
        limit = max(JUMP * self._epsilon(first.dtype), 4 * stepped)
        if tensor.spread().max(initial=0) > min(limit, 0.2) * largest:
            raise NotTaken("jumps")

    def finish(self) -> Graph:
        """The graph; its outputs are all that is not used, and some of the rest."""
        taken = {name for node in self.nodes for name in uses(node)}
        made = [name for node in self.nodes for name in node.output]
        outputs = tuple(name for name in made if name not in taken or self.chance(0.15))
        return Graph(tuple(self.nodes), self.tensors, outputs, self.opset)


def _relative(x: Tensor) -> float:
    largest = _largest(x.array)
    return float(x.spread().max(initial=0)) / largest if largest else 0.0


def _largest(y: Array) -> float:
    with np.errstate(invalid="ignore"):
        finite = np.abs(y[np.isfinite(y)].astype(np.float64))
    return float(finite.max()) if finite.size else 0.0


def _broadcasts(a: Sequence[int], b: Sequence[int]) -> bool:
    try:
        return int(np.prod(np.broadcast_shapes(tuple(a), tuple(b)))) <= SIZE
    except ValueError:
        return False
