"""Recurrent layers: one matrix product with all inputs, then one kernel that walks the time steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    HALF_TYPES,
    attr_bool,
    attr_text,
    full,
    loops,
    number,
    required,
    vector_loop,
)
from tvm_ipu.frontends.onnx.ops.rnn_cell import Cell, Function, Layer
from tvm_ipu.frontends.onnx.ops.shape import cut, permute, reshape
from tvm_ipu.frontends.onnx.ops.types import convert

R = relax.op
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
class _Side:
    """One direction of a recurrent node.

    Attributes:
        projected: Products of the inputs with the weights, with biases, [steps, batch, width].
        weight: Recurrent weights, [panels, hidden, panel].
        bias: Bias that the reset gate of a GRU multiplies, [hidden].
        peephole: Weights from the state to the gates, [3 * hidden].
        functions: Activations.
        reverse: Whether it walks from the last step to the first.
    """

    projected: relax.Expr
    weight: relax.Expr
    bias: relax.Expr | None
    peephole: relax.Expr | None
    functions: Sequence[Function]
    reverse: bool

    @property
    def optional(self) -> dict[str, relax.Expr]:
        """Those of its operands that it need not have."""
        given = {"bias": self.bias, "peephole": self.peephole}
        return {name: e for name, e in given.items() if e is not None}


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
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    layer = Layer(
        node.op_type,
        steps,
        batch,
        ctx.shape(required(node, 2, "R"))[2],
        work,
        node.attrs.get("clip"),
        attr_bool(node, "input_forget"),
        attr_bool(node, "linear_before_reset"),
        1 if node.input(4) is not None else _together(batch, len(backward)),
    )
    functions = _read_activations(node, len(backward), work)
    sides = []
    for d, reverse in enumerate(backward):
        w, r, b, p = (None if e is None else _direction(ctx, e, d) for e in (*weights, peephole))
        assert w is not None
        assert r is not None
        projected, late = _project(ctx, layer, x, w, b)
        sides.append(_Side(projected, _panels(ctx, layer, r), late, p, functions[d], reverse))
    directions = (len(sides), batch, layer.hidden)
    initial = [full(ctx, directions, 0.0, work) if e is None else e for e in states]
    results = _walk(ctx, layer, sides, initial, node.input(4))
    if batch_first:
        results = [permute(ctx, e, (2, 0, 1, 3) if i == 0 else (1, 0, 2)) for i, e in enumerate(results)]
    return [convert(ctx, e, dtype) for e in results]


def _together(batch: int, directions: int) -> int:
    """Sequences that walk in step: at most four, and not all of them, for the sake of other threads."""
    fitting = [n for n in (4, 3, 2) if batch % n == 0 and directions * batch // n > 1]
    return fitting[0] if fitting else 1


def _direction(ctx: Context, expr: relax.Expr, index: int) -> relax.Expr:
    """The part of a tensor that belongs to one direction."""
    value = ctx.value(expr)
    if value is not None:
        return ctx.const(value[index])
    return reshape(ctx, cut(ctx, expr, 0, index, index + 1), ctx.shape(expr)[1:])


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
    ctx: Context, layer: Layer, x: relax.Expr, weight: relax.Expr, bias: relax.Expr | None
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


def _panels(ctx: Context, layer: Layer, weight: relax.Expr) -> relax.Expr:
    """Recurrent weights [width, hidden] as the cell reads them."""
    shape = (layer.width // layer.panel, layer.panel, layer.hidden)
    value = ctx.value(weight)
    if value is not None:
        return ctx.const(np.ascontiguousarray(value.reshape(shape).transpose(0, 2, 1)))
    return permute(ctx, reshape(ctx, weight, shape), (0, 2, 1))


def _walk(
    ctx: Context,
    layer: Layer,
    sides: Sequence[_Side],
    initial: Sequence[relax.Expr],
    lengths: relax.Expr | None,
) -> list[relax.Expr]:
    """The kernel: hidden states [steps, directions, batch, hidden], last states [directions, batch, hidden].

    Directions and sequences are independent: the sequences that walk in step in one direction are a unit of
    work. Steps behind a sequence's length give zeros.
    """
    hidden, batch, work, together = layer.hidden, layer.batch, layer.work, layer.together
    operands = [(side.projected, side.weight, *side.optional.values()) for side in sides]
    common = [*initial, *([] if lengths is None else [lengths])]

    def body(*buffers: Any) -> None:
        outputs, *last = buffers[len(buffers) - 1 - len(initial) :]
        shared = buffers[: len(common)]
        first, length_of = shared[: len(initial)], shared[len(initial) :]

        def walk(d: int, unit: Any) -> None:
            begin = unit * together
            side, at = sides[d], len(common) + sum(map(len, operands[:d]))
            inputs, matrix, *extra = buffers[at : at + len(operands[d])]
            cell = Cell(layer, side.functions, matrix, dict(zip(side.optional, extra, strict=True)))

            def start(s: Any) -> None:
                for source, state in zip(first, (cell.h, cell.c), strict=False):
                    _copy(hidden, source, (d, begin + s), state, (s,))

            def finish(s: Any) -> None:
                for state, target in zip((cell.h, cell.c), last, strict=False):
                    _copy(hidden, state, (s,), target, (d, begin + s))

            cell.each(start)
            length = length_of[0][begin] if length_of else tirx.const(layer.steps, "int32")
            with T.serial(layer.steps) as t, T.If(t < length):
                with T.Then():
                    step = tirx.max(tirx.min(length - 1 - t, layer.steps - 1), 0) if side.reverse else t
                    cell.each(lambda s: _copy(layer.width, inputs, (step, begin + s), cell.gates, (s,)))
                    cell.step()
                    cell.each(lambda s: _copy(hidden, cell.h, (s,), outputs, (step, d, begin + s)))
                with T.Else(), T.serial(hidden) as k:  # only where sequences have lengths: one walks alone
                    outputs[t, d, begin, k] = number(0.0, work)
            cell.each(finish)

        units = batch // together
        with T.parallel(len(sides) * units) as unit:
            if len(sides) == 1:
                walk(0, unit)
            else:
                with T.If(unit < units):
                    with T.Then():
                        walk(0, unit)
                    with T.Else():
                        walk(1, unit - units)

    states = (len(sides), batch, hidden)
    return loops(
        ctx,
        layer.kind.lower(),
        [*common, *(e for side in operands for e in side)],
        [((layer.steps, *states), work), *[(states, work)] * len(initial)],
        body,
    )


def _copy(count: int, source: Any, at: tuple[Any, ...], target: Any, to: tuple[Any, ...]) -> None:
    """``count`` elements of the last dimensions of two buffers."""

    def move(k: Any) -> None:
        target[(*to, k)] = source[(*at, k)]

    vector_loop(count, move)
