"""Steps of optimisers."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, converter
from tvm_ipu.frontends.onnx.ops.common import attr_text, elementwise, kind, number, required

_DOMAIN = "ai.onnx.preview.training"


def _groups(node: Node, states: int) -> list[list[relax.Expr]]:
    """Parameter, gradient and states of every parameter; the inputs list all parameters first, and so on."""
    tensors = [required(node, i, "X") for i in range(2, len(node.inputs))]
    count = len(tensors) // (2 + states)
    return [tensors[i::count] for i in range(count)]


def _ordered(results: list[list[relax.Expr]]) -> list[relax.Expr]:
    return [expr for column in zip(*results, strict=True) for expr in column]


@converter("Adagrad", domain=_DOMAIN)
def adagrad(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types."""
    rate, step = required(node, 0, "R"), required(node, 1, "T")
    decay, norm = (float(node.attrs.get(n, 0.0)) for n in ("decay_factor", "norm_coefficient"))
    epsilon = float(node.attrs.get("epsilon", 0.0))

    def gradient(x: Any, g: Any) -> Any:
        return number(norm, kind(x)) * x + g

    def squares(x: Any, g: Any, h: Any) -> Any:
        return h + gradient(x, g) * gradient(x, g)

    def update(x: Any, g: Any, h: Any, r: Any, t: Any) -> Any:
        now = r.astype(kind(x)) / (number(1.0, kind(x)) + t.astype(kind(x)) * number(decay, kind(x)))
        return x - now * gradient(x, g) / (tirx.sqrt(h) + number(epsilon, kind(x)))

    results = []
    for x, g, h in _groups(node, 1):
        total = elementwise(ctx, "adagrad_state", squares, x, g, h)
        results.append([elementwise(ctx, "adagrad", update, x, g, total, rate, step), total])
    return _ordered(results)


@converter("Adam", domain=_DOMAIN)
def adam(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types."""
    rate, step = required(node, 0, "R"), required(node, 1, "T")
    alpha, beta = float(node.attrs.get("alpha", 0.9)), float(node.attrs.get("beta", 0.999))
    norm, after = (float(node.attrs.get(f"norm_coefficient{n}", 0.0)) for n in ("", "_post"))
    epsilon = float(node.attrs.get("epsilon", 0.0))

    def gradient(x: Any, g: Any) -> Any:
        return number(norm, kind(x)) * x + g

    def mean(x: Any, g: Any, v: Any) -> Any:
        return number(alpha, kind(x)) * v + number(1 - alpha, kind(x)) * gradient(x, g)

    def squares(x: Any, g: Any, h: Any) -> Any:
        return number(beta, kind(x)) * h + number(1 - beta, kind(x)) * gradient(x, g) * gradient(x, g)

    def update(x: Any, v: Any, h: Any, r: Any, t: Any) -> Any:
        one, count = number(1.0, kind(x)), t.astype(kind(x))
        part = tirx.sqrt(one - tirx.power(number(beta, kind(x)), count))
        part = part / (one - tirx.power(number(alpha, kind(x)), count))
        now = r.astype(kind(x)) * tirx.Select(t > number(0, kind(t)), part, one)
        moved = x - now * v / (tirx.sqrt(h) + number(epsilon, kind(x)))
        return number(1 - after, kind(x)) * moved

    results = []
    for x, g, v, h in _groups(node, 2):
        first = elementwise(ctx, "adam_mean", mean, x, g, v)
        second = elementwise(ctx, "adam_squares", squares, x, g, h)
        results.append([elementwise(ctx, "adam", update, x, first, second, rate, step), first, second])
    return _ordered(results)


@converter("Momentum", domain=_DOMAIN)
def momentum(ctx: Context, node: Node) -> list[relax.Expr]:
    """Floating-point types, modes standard and nesterov."""
    rate, step = required(node, 0, "R"), required(node, 1, "T")
    alpha, beta = float(node.attrs.get("alpha", 0.0)), float(node.attrs.get("beta", 0.0))
    norm = float(node.attrs.get("norm_coefficient", 0.0))
    nesterov = attr_text(node, "mode", "standard", ("standard", "nesterov")) == "nesterov"

    def gradient(x: Any, g: Any) -> Any:
        return number(norm, kind(x)) * x + g

    def velocity(x: Any, g: Any, v: Any, t: Any) -> Any:
        weight = tirx.Select(t > number(0, kind(t)), number(beta, kind(x)), number(1.0, kind(x)))
        return number(alpha, kind(x)) * v + weight * gradient(x, g)

    def update(x: Any, g: Any, v: Any, r: Any) -> Any:
        change = gradient(x, g) + number(alpha, kind(x)) * v if nesterov else v
        return x - r.astype(kind(x)) * change

    results = []
    for x, g, v in _groups(node, 1):
        speed = elementwise(ctx, "momentum_state", velocity, x, g, v, step)
        results.append([elementwise(ctx, "momentum", update, x, g, speed, rate), speed])
    return _ordered(results)
