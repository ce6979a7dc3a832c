"""Recurrent layers: one matrix product with all inputs, then one kernel that walks the time steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.cast import convert
from tvm_ipu.frontends.onnx.ops.common import (
    HALF_TYPES,
    LANES,
    attr_bool,
    attr_text,
    full,
    local,
    loops,
    number,
    required,
    vector_loop,
)
from tvm_ipu.frontends.onnx.ops.shape import cut, permute, reshape

R = relax.op
Function = Callable[[Any], Any]

_COLUMNS = 4
"""Vectors of sums that the product with the recurrent weights keeps in registers."""

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_ALPHA = {
    "affine": 1.0,
    "leakyrelu": 0.01,
    "thresholdedrelu": 1.0,
    "scaledtanh": 1.0,
    "hardsigmoid": 0.2,
    "elu": 1.0,
}
_BETA = {"scaledtanh": 1.0, "hardsigmoid": 0.5}


def _activation(name: str, alpha: float | None, beta: float | None, dtype: str) -> Function:
    """An activation function of the recurrent operators, on scalars of ``dtype``.

    Raises:
        UnsupportedNode: There is none of that name.
    """
    low = name.lower()
    a = number(_ALPHA.get(low, 0.0) if alpha is None else alpha, dtype)
    b = number(_BETA.get(low, 0.0) if beta is None else beta, dtype)
    zero, one = number(0.0, dtype), number(1.0, dtype)
    functions: dict[str, Function] = {
        "relu": lambda x: tirx.max(x, zero),
        "tanh": tirx.tanh,
        "sigmoid": tirx.sigmoid,
        "affine": lambda x: a * x + b,
        "leakyrelu": lambda x: tirx.Select(x >= zero, x, a * x),
        "thresholdedrelu": lambda x: tirx.Select(x >= a, x, zero),
        "scaledtanh": lambda x: a * tirx.tanh(b * x),
        "hardsigmoid": lambda x: tirx.max(tirx.min(a * x + b, one), zero),
        "elu": lambda x: tirx.Select(x >= zero, x, a * (tirx.exp(tirx.min(x, zero)) - one)),
        "softsign": lambda x: x / (one + tirx.abs(x)),
        "softplus": lambda x: tirx.max(x, zero) + tirx.log(one + tirx.exp(zero - tirx.abs(x))),
    }
    if low not in functions:
        raise UnsupportedNode(f"activation '{name}' is not known; allowed are {', '.join(functions)}")
    return functions[low]


@dataclass(frozen=True)
class _Layer:
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
    def width(self) -> int:
        """Values before the activations, of all gates."""
        return _GATES[self.kind] * self.hidden

    def clipped(self, value: Any) -> Any:
        """A value as it enters an activation."""
        if self.clip is None:
            return value
        return tirx.max(tirx.min(value, number(self.clip, self.work)), number(-self.clip, self.work))


@converter("LSTM", "GRU", "RNN")
def recurrent(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types; all directions, activations, layouts and optional inputs."""
    x = required(node, 0, "X")
    dtype = ctx.dtype(x)
    batch_first = attr_bool(node, "layout")
    work = "float32" if dtype in HALF_TYPES else dtype
    x = convert(ctx, permute(ctx, x, (1, 0, 2)) if batch_first else x, work)
    steps, batch, _ = ctx.shape(x)
    weights = [None if (e := node.input(i)) is None else convert(ctx, e, work) for i in (1, 2, 3)]
    state_inputs = [node.input(i) for i in (5, 6)][: 2 if node.op_type == "LSTM" else 1]
    states = [
        None if e is None else convert(ctx, permute(ctx, e, (1, 0, 2)) if batch_first else e, work)
        for e in state_inputs
    ]
    peephole = None if (p := node.input(7)) is None else convert(ctx, p, work)
    direction = attr_text(node, "direction", "forward", ("forward", "reverse", "bidirectional"))
    layer = _Layer(
        node.op_type,
        steps,
        batch,
        ctx.shape(required(node, 2, "R"))[2],
        work,
        node.attrs.get("clip"),
        attr_bool(node, "input_forget"),
        attr_bool(node, "linear_before_reset"),
    )
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    functions = _read_activations(node, len(backward), work)
    sides = []
    for d, reverse in enumerate(backward):
        w, r, b = (None if e is None else _direction(ctx, e, d) for e in weights)
        initial = [
            full(ctx, (batch, layer.hidden), 0.0, work) if e is None else _direction(ctx, e, d)
            for e in states
        ]
        p = None if peephole is None else _direction(ctx, peephole, d)
        assert w is not None
        assert r is not None
        projected, recurrent_bias = _project(ctx, layer, x, w, b)
        sides.append(
            _walk(ctx, layer, projected, r, recurrent_bias, initial, p, node.input(4), functions[d], reverse)
        )
    results = [_stack(ctx, [side[i] for side in sides], 1 if i == 0 else 0) for i in range(len(sides[0]))]
    if batch_first:
        results = [permute(ctx, e, (2, 0, 1, 3) if i == 0 else (1, 0, 2)) for i, e in enumerate(results)]
    return [convert(ctx, e, dtype) for e in results]


def _direction(ctx: Context, expr: relax.Expr, index: int) -> relax.Expr:
    """The part of a tensor that belongs to one direction."""
    value = ctx.value(expr)
    if value is not None:
        return ctx.const(value[index])
    return reshape(ctx, cut(ctx, expr, 0, index, index + 1), ctx.shape(expr)[1:])


def _stack(ctx: Context, parts: Sequence[relax.Expr], axis: int) -> relax.Expr:
    shape = list(ctx.shape(parts[0]))
    shape.insert(axis, 1)
    wide = [reshape(ctx, e, shape) for e in parts]
    return wide[0] if len(wide) == 1 else ctx.emit(R.concat(wide, axis))


def _read_activations(node: Node, directions: int, work: str) -> list[list[Function]]:
    """Functions of each direction, in the order of the specification."""
    names = [str(n) for n in node.attrs.get("activations", _DEFAULTS[node.op_type] * directions)]
    count = len(_DEFAULTS[node.op_type])
    if node.op_type == "RNN" and "activations" not in node.attrs:
        names = ["Tanh"] * directions
    if len(names) < count * directions:
        raise UnsupportedNode(f"{len(names)} activations are given; {count * directions} are needed")
    alphas, betas = (list(node.attrs.get(f"activation_{k}", ())) for k in ("alpha", "beta"))
    functions = []
    for name in names:  # only functions that have a parameter take one from the lists
        low = name.lower()
        alpha = alphas.pop(0) if low in _ALPHA and alphas else None
        beta = betas.pop(0) if (low in _BETA or low == "affine") and betas else None
        functions.append(_activation(name, alpha, beta, work))
    return [functions[d * count : (d + 1) * count] for d in range(directions)]


def _project(
    ctx: Context, layer: _Layer, x: relax.Expr, weight: relax.Expr, bias: relax.Expr | None
) -> tuple[relax.Expr, relax.Expr | None]:
    """Products of all inputs with the weights [steps, batch, width], with the biases that can be added now.

    The recurrent bias of a GRU's hidden gate cannot where the reset gate multiplies it: the other result.
    """
    value = ctx.value(weight)
    turned = ctx.const(value.T) if value is not None else permute(ctx, weight, (1, 0))
    flat = reshape(ctx, x, (layer.steps * layer.batch, ctx.shape(x)[2]))
    y = ctx.emit(R.matmul(flat, turned))
    late = None
    if bias is not None:
        own, other = (cut_vector(ctx, bias, i * layer.width, layer.width) for i in range(2))
        if layer.kind == "GRU" and layer.linear_first:
            gates = 2 * layer.hidden
            late = cut_vector(ctx, other, gates, layer.hidden)
            parts = [cut_vector(ctx, other, 0, gates), full(ctx, (layer.hidden,), 0.0, layer.work)]
            other = ctx.emit(R.concat(parts, 0))
        y = ctx.emit(R.add(ctx.emit(R.add(y, own)), other))
    return reshape(ctx, y, (layer.steps, layer.batch, layer.width)), late


def cut_vector(ctx: Context, vector: relax.Expr, begin: int, count: int) -> relax.Expr:
    """``count`` elements of a vector; of a constant, a constant."""
    value = ctx.value(vector)
    if value is not None:
        return ctx.const(value[begin : begin + count])
    return cut(ctx, vector, 0, begin, begin + count)


def _walk(
    ctx: Context,
    layer: _Layer,
    projected: relax.Expr,
    weight: relax.Expr,
    late_bias: relax.Expr | None,
    initial: Sequence[relax.Expr],
    peephole: relax.Expr | None,
    lengths: relax.Expr | None,
    functions: Sequence[Function],
    reverse: bool,
) -> list[relax.Expr]:
    """The kernel: hidden states of all steps [steps, batch, hidden], then the last states [batch, hidden].

    Sequences are independent: each is one unit of work. Steps behind a sequence's length give zeros.
    """
    value = ctx.value(weight)
    turned = ctx.const(value.T) if value is not None else permute(ctx, weight, (1, 0))
    optional = {"bias": late_bias, "peephole": peephole, "lengths": lengths}
    given = {name: e for name, e in optional.items() if e is not None}
    hidden, work = layer.hidden, layer.work
    states = [((layer.batch, hidden), work)] * len(initial)

    def copy(count: int, source: Any, at: tuple[Any, ...], target: Any, to: tuple[Any, ...]) -> None:
        def move(k: Any) -> None:
            target[(*to, k)] = source[(*at, k)]

        vector_loop(count, move)

    def body(*buffers: Any) -> None:
        inputs, matrix = buffers[:2]
        first = buffers[2 : 2 + len(initial)]
        extra = dict(zip(given, buffers[2 + len(initial) :], strict=False))
        outputs, *last = buffers[len(buffers) - 1 - len(initial) :]
        with T.parallel(layer.batch) as b:
            cell = _Cell(layer, functions, matrix, extra)
            for source, state in zip(first, (cell.h, cell.c), strict=False):
                copy(hidden, source, (b,), state, ())
            length = extra["lengths"][b] if "lengths" in extra else tirx.const(layer.steps, "int32")
            with T.serial(layer.steps) as t, T.If(t < length):
                with T.Then():
                    at = tirx.max(tirx.min(length - 1 - t, layer.steps - 1), 0) if reverse else t
                    copy(layer.width, inputs, (at, b), cell.gates, ())
                    cell.step()
                    copy(hidden, cell.h, (), outputs, (at, b))
                with T.Else(), T.serial(hidden) as k:
                    outputs[t, b, k] = number(0.0, work)
            for state, target in zip((cell.h, cell.c), last, strict=False):
                copy(hidden, state, (), target, (b,))

    return loops(
        ctx,
        layer.kind.lower(),
        [projected, turned, *initial, *given.values()],
        [((layer.steps, layer.batch, hidden), work), *states],
        body,
    )


class _Cell:
    """One sequence's state, and the loops of one step."""

    def __init__(
        self, layer: _Layer, functions: Sequence[Function], matrix: Any, extra: dict[str, Any]
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
                    sums[part + i] = sums[part + i] + state[k] * self.matrix[k, begin + at + part + i]
        for part in parts:
            with T.vectorized(lanes) as i:
                target[at + part + i] = sums[part + i]

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
