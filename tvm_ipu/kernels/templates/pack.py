"""Pack right operands that are known only at run time into panels for a dot product, as weights are.

A panel is ``[steps, lanes]`` of words. A word is one element, converted, for a plain dot product, and the
elements of a group for others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx import Expr

from tvm_ipu.kernels.blocks import Blocks
from tvm_ipu.kernels.dot import Dot
from tvm_ipu.kernels.emit import Emitter, Index, index, item_bytes, lanes_of, vector_type, zero
from tvm_ipu.kernels.templates.transpose import transpose


@dataclass(frozen=True)
class Panel:
    """Where a panel's words go.

    Attributes:
        e: Where the statements go.
        buffer: The words.
        pitch: Words from one step to the next.
        start: First word.
        lanes: Words of a step.
    """

    e: Emitter
    buffer: tirx.Buffer
    pitch: int
    start: Index
    lanes: int

    def store(self, step: Index, words: Expr) -> None:
        """Write a step's vector."""
        self.e.store(self.buffer, step * self.pitch + self.start, words, self.lanes)

    def store_words(self, step: Index, words: list[Expr]) -> None:
        """Write a step's vector word by word, with zeros for those that are missing."""
        nothing = zero(str(self.buffer.ty.dtype.dtype))
        for j in range(self.lanes):
            value = words[j] if j < len(words) else nothing
            self.e.store(self.buffer, step * self.pitch + (self.start + j), value)


@dataclass(frozen=True)
class Packer:
    """Packs one operand.

    Attributes:
        e: Where the statements go.
        source: The operand as it is stored.
        dot: How it is multiplied.
    """

    e: Emitter
    source: tirx.Buffer
    dot: Dot

    @property
    def word(self) -> str:
        """Type of a word."""
        return self.dot.acc if self.dot.plain else f"uint{8 * item_bytes(self.dot.right) * self.dot.group}"

    def elements(self, words: Expr) -> Expr:
        """Packed words as the dot product takes them."""
        return words if self.dot.plain else tirx.reinterpret(self._vector(self.dot.panel), words)

    def rows(self, panel: Panel, at: Expr, used: int, depth: int, pitch: int) -> None:
        """Pack ``used`` columns of a matrix ``[depth, columns]``.

        Args:
            panel: Where they go.
            at: First element.
            used: Columns, at most as many as a panel has lanes.
            depth: Steps of the reduction.
            pitch: Elements from one row of the matrix to the next.
        """
        e, dot = self.e, self.dot

        def step(number: Index, count: int) -> None:
            first = at + number * (dot.group * pitch)
            if dot.plain and used == panel.lanes:
                panel.store(number, e.load_as(self.word, self.source, first, used))
            elif used == panel.lanes:
                rows = [self._bits(e.load(self.source, first + i * pitch, used)) for i in range(count)]
                rows += [zero(self._bits_type, used)] * (dot.group - count)
                order = [index(i * used + lane) for lane in range(used) for i in range(dot.group)]
                mixed = rows[0] if dot.group == 1 else tirx.Shuffle(rows, order)
                panel.store(number, tirx.reinterpret(vector_type(self.word, used), mixed))
            else:
                places = [[first + (i * pitch + j) for i in range(count)] for j in range(used)]
                panel.store_words(number, [self._word_of(own) for own in places])

        whole, rest = divmod(depth, dot.group)
        if whole:
            with e.loop("step", 0, whole) as number:
                step(number, dot.group)
        if rest:
            step(whole, rest)

    def transposed(self, panel: Panel, at: Expr, used: int, depth: int, pitch: int) -> None:
        """Pack ``used`` rows of a matrix ``[columns, depth]``; arguments as for ``rows``."""
        e, dot = self.e, self.dot

        def block(first: Expr, steps: int) -> None:
            if steps == panel.lanes:
                rows = [self._words(at + (first * dot.group + j * pitch), steps) for j in range(used)]
                rows += [zero(self.word, panel.lanes)] * (panel.lanes - used)
                for i, vector in enumerate(transpose(e, rows)):
                    panel.store(first + i, vector)
                return
            for i in range(steps):
                one(first + i, dot.group)

        def one(number: Index, count: int) -> None:
            starts = [at + (number * dot.group + j * pitch) for j in range(used)]
            panel.store_words(number, [self._word_of([s + i for i in range(count)]) for s in starts])

        whole, rest = divmod(depth, dot.group)
        Blocks(whole, panel.lanes, math.ceil(whole / panel.lanes)).emit(e, "step", 0, block)
        if rest:
            one(whole, rest)

    def _words(self, at: Expr, count: int) -> Expr:
        """Neighbouring words of the operand."""
        if self.dot.plain:
            return self.e.load_as(self.word, self.source, at, count)
        loaded = self.e.load(self.source, at, count * self.dot.group)
        return tirx.reinterpret(vector_type(self.word, count), loaded)

    def _word_of(self, places: list[Expr]) -> Expr:
        """The word made of the elements at ``places``, with zeros for those that are missing."""
        if self.dot.plain:
            return self.e.load_as(self.word, self.source, places[0])
        word = tirx.const(0, self.word)
        for i, at in enumerate(places):
            shift = tirx.const(8 * item_bytes(self.dot.right) * i, self.word)
            element = self._bits(self.e.load(self.source, at)).astype(self.word)
            word = tirx.bitwise_or(word, tirx.shift_left(element, shift))
        return word

    @property
    def _bits_type(self) -> str:
        return f"uint{8 * item_bytes(self.dot.right)}"

    def _bits(self, value: Expr) -> Expr:
        """Elements of the operand as integers."""
        return tirx.reinterpret(vector_type(self._bits_type, lanes_of(value)), value)

    def _vector(self, lanes: int) -> str:
        return vector_type(self.dot.right, lanes)
