"""The cell of a recurrent layer: the loops of one time step of one sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.ops.common import LANES, local, number, vector_loop

Function = Callable[[Any], Any]

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

_COLUMNS = 4
"""Vectors of sums that the product with the recurrent weights keeps in registers."""


@dataclass(frozen=True)
class Layer:
    """What is common to all directions of a recurrent node.

    Attributes:
        kind: ``RNN``, ``GRU`` or ``LSTM``.
        steps: Time steps.
        batch: Sequences.
        hidden: Neurons.
        work: Type that it is computed in.
        clip: Bound of what enters the activations; None for none.
        coupled: The forget gate is one minus the input gate.
        linear_first: The reset gate of a GRU multiplies after the product with the recurrent weights.
    """

    kind: str
    steps: int
    batch: int
    hidden: int
    work: str
    clip: float | None
    coupled: bool
    linear_first: bool

    @property
    def panel(self) -> int:
        """Columns of a panel of the recurrent weights: a vector's, or all where one would cross gates."""
        return LANES if self.hidden % LANES == 0 else self.width

    @property
    def width(self) -> int:
        """Values before the activations, of all gates."""
        return GATES[self.kind] * self.hidden

    def clipped(self, value: Any) -> Any:
        """A value as it enters an activation."""
        if self.clip is None:
            return value
        return tirx.max(tirx.min(value, number(self.clip, self.work)), number(-self.clip, self.work))


class Cell:
    """One sequence's state, and the loops of one step.

    The recurrent weights ``[panels, hidden, panel]`` are read in their order:
    they may be larger than a cache.
    """

    def __init__(
        self, layer: Layer, functions: Sequence[Function], matrix: Any, extra: dict[str, Any]
    ) -> None:
        self.layer, self.functions, self.matrix, self.extra = layer, functions, matrix, extra
        self.h = local(layer.work, layer.hidden)
        self.c = local(layer.work, layer.hidden)
        self.gates = local(layer.work, layer.width)

    def step(self) -> None:
        """Advance by one step; ``gates`` holds the products with the input."""
        getattr(self, f"_step_{self.layer.kind.lower()}")()

    def _multiply(self, begin: int, count: int, state: Any, target: Any) -> None:
        """Add to ``target`` the products of ``state`` with ``count`` columns of the recurrent weights."""
        at = 0
        for block in (_COLUMNS * LANES, LANES, 1):
            number_of = (count - at) // block
            if number_of:
                with T.serial(number_of) as i:
                    self._multiply_block(begin, at + i * block, block, state, target)
            at += number_of * block

    def _multiply_block(self, begin: int, at: Any, block: int, state: Any, target: Any) -> None:
        """The same for ``block`` columns, whose sums stay in registers."""
        sums = local(self.layer.work, block)
        lanes = min(block, LANES)
        parts = range(0, block, lanes)
        for part in parts:
            with T.vectorized(lanes) as i:
                sums[part + i] = target[at + part + i]
        with T.serial(self.layer.hidden) as k:
            for part in parts:
                with T.vectorized(lanes) as i:
                    weight = self._weight(k, begin + part, at, i)
                    sums[part + i] = sums[part + i] + state[k] * weight
        for part in parts:
            with T.vectorized(lanes) as i:
                target[at + part + i] = sums[part + i]

    def _weight(self, k: Any, first: int, at: Any, lane: Any) -> Any:
        """The weight of neuron ``k`` for column ``first + at + lane``; ``at`` is at a panel's start."""
        panel = self.layer.panel
        if panel == self.layer.width:
            return self.matrix[0, k, first + at + lane]
        return self.matrix[first // panel + at // panel, k, lane]

    def _step_rnn(self) -> None:
        (f,) = self.functions
        self._multiply(0, self.layer.hidden, self.h, self.gates)

        def advance(k: Any) -> None:
            self.h[k] = f(self.layer.clipped(self.gates[k]))

        vector_loop(self.layer.hidden, advance)

    def _step_gru(self) -> None:
        layer, n, (f, g) = self.layer, self.layer.hidden, self.functions
        one = number(1.0, layer.work)
        self._multiply(0, 2 * n, self.h, self.gates)
        mixed, product = local(layer.work, n), local(layer.work, n)

        def reset(k: Any) -> None:
            self.gates[k] = f(layer.clipped(self.gates[k]))
            self.gates[n + k] = f(layer.clipped(self.gates[n + k]))
            mixed[k] = self.h[k] if layer.linear_first else self.gates[n + k] * self.h[k]
            product[k] = self.extra["bias"][k] if "bias" in self.extra else number(0.0, layer.work)

        def advance(k: Any) -> None:
            inner = self.gates[n + k] * product[k] if layer.linear_first else product[k]
            update = self.gates[k]
            self.h[k] = (one - update) * g(layer.clipped(self.gates[2 * n + k] + inner)) + update * self.h[k]

        vector_loop(n, reset)
        self._multiply(2 * n, n, mixed, product)
        vector_loop(n, advance)

    def _step_lstm(self) -> None:
        layer, n, (f, g, h) = self.layer, self.layer.hidden, self.functions
        one = number(1.0, layer.work)
        self._multiply(0, 4 * n, self.h, self.gates)
        peephole = self.extra.get("peephole")

        def gate(index: int, k: Any, peep: int) -> Any:
            value = self.gates[index * n + k]
            if peephole is not None:
                value = value + peephole[peep * n + k] * self.c[k]
            return f(layer.clipped(value))

        def advance(k: Any) -> None:
            self.gates[k] = gate(0, k, 0)
            forget = one - self.gates[k] if layer.coupled else gate(2, k, 2)
            fresh = g(layer.clipped(self.gates[3 * n + k]))
            self.c[k] = forget * self.c[k] + self.gates[k] * fresh
            self.h[k] = gate(1, k, 1) * h(layer.clipped(self.c[k]))

        vector_loop(n, advance)
