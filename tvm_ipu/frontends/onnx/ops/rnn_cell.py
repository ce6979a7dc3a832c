"""The cell of a recurrent layer: the loops of one time step of some sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.ops.common import LANES, local, number, vector_loop
from tvm_ipu.kernels.chip_questions import registers_hold

Function = Callable[[Any], Any]

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

_SUMS = 4
"""Vectors of sums that the recurrent product keeps in registers; twice as many where they fit."""


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
        together: Sequences that walk in step: the recurrent weights are read once for all of them.
    """

    kind: str
    steps: int
    batch: int
    hidden: int
    work: str
    clip: float | None
    coupled: bool
    linear_first: bool
    together: int = 1

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
    """The state of ``together`` sequences, and the loops of one step.

    The recurrent weights ``[panels, hidden, panel]`` are read in their order:
    they may be larger than a cache.
    """

    def __init__(
        self, layer: Layer, functions: Sequence[Function], matrix: Any, extra: dict[str, Any]
    ) -> None:
        self.layer, self.functions, self.matrix, self.extra = layer, functions, matrix, extra
        self.h = local(layer.work, layer.together, layer.hidden)
        self.c = local(layer.work, layer.together, layer.hidden)
        self.gates = local(layer.work, layer.together, layer.width)

    def each(self, body: Callable[[Any], None]) -> None:
        """A loop over the sequences."""
        if self.layer.together == 1:
            body(0)
        else:
            with T.serial(self.layer.together) as sequence:
                body(sequence)

    def step(self) -> None:
        """Advance by one step; ``gates`` holds the products with the input."""
        getattr(self, f"_step_{self.layer.kind.lower()}")()

    def _multiply(self, begin: int, count: int, state: Any, target: Any) -> None:
        """Add to ``target`` the products of ``state`` with ``count`` columns of the recurrent weights."""
        if self.layer.together == 1:  # the weights are waited for, not the sums
            self._multiply_by(_SUMS, begin, count, state, target)
            return
        with T.If(registers_hold(2 * _SUMS * LANES * 32)):
            with T.Then():
                self._multiply_by(2 * _SUMS // self.layer.together, begin, count, state, target)
            with T.Else():
                self._multiply_by(_SUMS // self.layer.together, begin, count, state, target)

    def _multiply_by(self, columns: int, begin: int, count: int, state: Any, target: Any) -> None:
        """The same, for so many vectors of columns at once."""
        at = 0
        for block in dict.fromkeys((columns * LANES, LANES, 1)):
            number_of = (count - at) // block
            if number_of:
                with T.serial(number_of) as i:
                    self._multiply_block(begin, at + i * block, block, state, target)
            at += number_of * block

    def _multiply_block(self, begin: int, at: Any, block: int, state: Any, target: Any) -> None:
        """The same for ``block`` columns, whose sums stay in registers."""
        sums = local(self.layer.work, self.layer.together, block)
        lanes = min(block, LANES)
        parts = range(0, block, lanes)
        places = [(s, part) for part in parts for s in range(self.layer.together)]
        for s, part in places:
            with T.vectorized(lanes) as i:
                sums[s, part + i] = target[s, at + part + i]
        with T.serial(self.layer.hidden) as k:
            for s, part in places:
                with T.vectorized(lanes) as i:
                    weight = self._weight(k, begin + part, at, i)
                    sums[s, part + i] = sums[s, part + i] + state[s, k] * weight
        for s, part in places:
            with T.vectorized(lanes) as i:
                target[s, at + part + i] = sums[s, part + i]

    def _weight(self, k: Any, first: int, at: Any, lane: Any) -> Any:
        """The weight of neuron ``k`` for column ``first + at + lane``; ``at`` is at a panel's start."""
        panel = self.layer.panel
        if panel == self.layer.width:
            return self.matrix[0, k, first + at + lane]
        return self.matrix[first // panel + at // panel, k, lane]

    def _advance(self, body: Callable[[Any, Any], None]) -> None:
        """A loop over the neurons of all sequences; ``body`` gets both."""
        self.each(lambda s: vector_loop(self.layer.hidden, lambda k: body(s, k)))

    def _step_rnn(self) -> None:
        (f,) = self.functions
        self._multiply(0, self.layer.hidden, self.h, self.gates)

        def advance(s: Any, k: Any) -> None:
            self.h[s, k] = f(self.layer.clipped(self.gates[s, k]))

        self._advance(advance)

    def _step_gru(self) -> None:
        layer, n, (f, g) = self.layer, self.layer.hidden, self.functions
        one = number(1.0, layer.work)
        self._multiply(0, 2 * n, self.h, self.gates)
        mixed, product = (local(layer.work, layer.together, n) for _ in range(2))

        def reset(s: Any, k: Any) -> None:
            self.gates[s, k] = f(layer.clipped(self.gates[s, k]))
            self.gates[s, n + k] = f(layer.clipped(self.gates[s, n + k]))
            mixed[s, k] = self.h[s, k] if layer.linear_first else self.gates[s, n + k] * self.h[s, k]
            product[s, k] = self.extra["bias"][k] if "bias" in self.extra else number(0.0, layer.work)

        def advance(s: Any, k: Any) -> None:
            inner = self.gates[s, n + k] * product[s, k] if layer.linear_first else product[s, k]
            update = self.gates[s, k]
            fresh = g(layer.clipped(self.gates[s, 2 * n + k] + inner))
            self.h[s, k] = (one - update) * fresh + update * self.h[s, k]

        self._advance(reset)
        self._multiply(2 * n, n, mixed, product)
        self._advance(advance)

    def _step_lstm(self) -> None:
        layer, n, (f, g, h) = self.layer, self.layer.hidden, self.functions
        one = number(1.0, layer.work)
        self._multiply(0, 4 * n, self.h, self.gates)
        peephole = self.extra.get("peephole")

        def gate(index: int, s: Any, k: Any, peep: int) -> Any:
            value = self.gates[s, index * n + k]
            if peephole is not None:
                value = value + peephole[peep * n + k] * self.c[s, k]
            return f(layer.clipped(value))

        def advance(s: Any, k: Any) -> None:
            self.gates[s, k] = gate(0, s, k, 0)
            forget = one - self.gates[s, k] if layer.coupled else gate(2, s, k, 2)
            fresh = g(layer.clipped(self.gates[s, 3 * n + k]))
            self.c[s, k] = forget * self.c[s, k] + self.gates[s, k] * fresh
            self.h[s, k] = gate(1, s, k, 1) * h(layer.clipped(self.c[s, k]))

        self._advance(advance)
