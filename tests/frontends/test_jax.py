"""JAX functions through the image equal to JAX: perceptron, convolutions, attention, and primitives."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.frontends.run_kit import TOLERANCE, relative_error, run_image
from tvm_ipu.base.errors import ModelError, OptionError, UnsupportedOperatorError
from tvm_ipu.frontends.jax.convert import to_onnx
from tvm_ipu.frontends.loaders import LoadOptions, load_model

RNG = np.random.default_rng(2)
LAYOUT = ("NHWC", "HWIO", "NHWC")


def draw(*shape: int) -> np.ndarray:
    return (RNG.normal(0, 1, shape) / max(shape[-1], 1) ** 0.5).astype(np.float32)


def mlp(params: list[tuple[Any, Any]], x: Any) -> Any:
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = params[-1]
    return jax.nn.log_softmax(x @ weight + bias)


MLP = [(draw(12, 32), draw(32)), (draw(32, 32), draw(32)), (draw(32, 5), draw(5))]


def cnn(params: dict[str, Any], x: Any) -> dict[str, Any]:
    """Strided, depthwise, dilated and transposed convolutions, both poolings, normalisation."""
    y = jax.lax.conv_general_dilated(x, params["stem"], (2, 2), "SAME", dimension_numbers=LAYOUT)
    y = (y - jnp.mean(y, (1, 2), keepdims=True)) * jax.lax.rsqrt(jnp.var(y, (1, 2), keepdims=True) + 1e-5)
    y = jax.nn.silu(y * params["scale"] + params["bias"])
    depthwise = partial(jax.lax.conv_general_dilated, feature_group_count=8, dimension_numbers=LAYOUT)
    y = y + depthwise(y, params["depthwise"], (1, 1), [(2, 2), (2, 2)], rhs_dilation=(2, 2))
    top = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    mean = jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME") / 9
    up = jax.lax.conv_transpose(jax.nn.relu6(top + mean), params["up"], (2, 2), "SAME")
    flat = up.mean((1, 2)) @ params["dense"]
    return {"mask": jax.nn.sigmoid(up), "classes": jax.nn.softmax(flat)}


CNN = {
    "stem": draw(3, 3, 3, 8),
    "scale": draw(8),
    "bias": draw(8),
    "depthwise": draw(3, 3, 1, 8),
    "up": draw(3, 3, 8, 4),
    "dense": draw(4, 6),
}


def attention(params: dict[str, Any], words: Any, mask: Any) -> Any:
    """An embedding and a pre-norm block of four heads with a mask."""
    x = jnp.asarray(params["table"])[words]

    def norm(x: Any) -> Any:
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * params["gain"]

    q, k, v = (jnp.einsum("bsd,dhk->bhsk", norm(x), params[name]) for name in "qkv")
    scores = jnp.einsum("bhsk,bhtk->bhst", q, k) / 8**0.5
    scores = jnp.where(mask[:, None, None, :], scores, -1e9)
    x = x + jnp.einsum("bhst,bhtk,hkd->bsd", jax.nn.softmax(scores), v, params["out"])
    return x + jax.nn.gelu(norm(x) @ params["up"]) @ params["down"]


ATTENTION = {
    "table": draw(50, 32), "gain": draw(32) + 1, "q": draw(32, 4, 8), "k": draw(32, 4, 8),
    "v": draw(32, 4, 8), "out": draw(4, 8, 32), "up": draw(32, 64), "down": draw(64, 32),
}  # fmt: skip


def check(function: Callable[..., Any], args: tuple[Any, ...], folder: Path) -> list[str]:
    """Compare all results; gives the operators of the model."""
    model = to_onnx(jax.jit(function), LoadOptions(example_input=args))
    names = [info.name for info in model.graph.input]
    feeds = {n: np.asarray(leaf) for n, leaf in zip(names, jax.tree_util.tree_leaves(args), strict=True)}
    found = run_image(model, feeds, folder)
    expected = jax.tree_util.tree_leaves(function(*jax.tree_util.tree_map(jnp.asarray, args)))
    for info, value in zip(model.graph.output, expected, strict=True):
        assert found[info.name].dtype == value.dtype, info.name
        assert relative_error(found[info.name], np.asarray(value)) < TOLERANCE, info.name
    return [node.op_type for node in model.graph.node]


def test_perceptron(tmp_path: Path) -> None:
    operators = check(partial(mlp, MLP), (draw(3, 12),), tmp_path)
    assert [operators.count(one) for one in ("MatMul", "Relu", "Expand")] == [3, 2, 0]


def test_convolutional_network(tmp_path: Path) -> None:
    operators = check(partial(cnn, CNN), (draw(2, 16, 16, 3),), tmp_path)
    assert [operators.count(one) for one in ("Conv", "ConvTranspose", "MaxPool", "Expand")] == [2, 1, 1, 0]


def test_attention_block(tmp_path: Path) -> None:
    words = RNG.integers(0, 50, (2, 7)).astype(np.int32)
    check(partial(attention, ATTENTION), (words, np.arange(7) < np.array([[7], [4]])), tmp_path)


def test_parameters_can_be_inputs(tmp_path: Path) -> None:
    check(mlp, (MLP, draw(3, 12)), tmp_path)
    model = to_onnx(jax.jit(mlp), LoadOptions(example_input=(MLP, draw(3, 12))))
    assert [info.name for info in model.graph.input][:2] == ["params[0][0]", "params[0][1]"]
    assert model.graph.input[-1].name == "x"
    assert [info.name for info in model.graph.output] == ["output"]


def primitives(x: Any, i: Any) -> tuple[Any, ...]:
    looped = jax.lax.fori_loop(0, 3, lambda k, c: c * 2 + k, x)
    total, rows = jax.lax.scan(lambda c, t: (c + t, c * t), x[0], x, reverse=True)
    grown = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1.5), (0, x))[1]
    taken = [jnp.take(x, i, axis=0), jnp.take(x, i, axis=1), x[i, 0], x[:, 1], x[1:, ::-1]]
    ranked = [jnp.argmax(x, -1), jnp.argmin(x, 0), jnp.sort(x, -1), jnp.argsort(x, -1), *jax.lax.top_k(x, 2)]
    moved = [
        jnp.pad(x, 1),
        *jnp.split(x, 2),
        jnp.roll(x, 1),
        jnp.tril(x),
        jnp.repeat(x, 2, 0),
        jnp.tile(x, (1, 2)),
    ]
    reduced = [
        jnp.any(x > 1, 0),
        jnp.all(x > -9),
        jnp.prod(x, 0),
        jnp.min(x, 1),
        jnp.linalg.norm(x),
        jnp.cumsum(x, 1),
    ]
    powers = [
        x**3,
        2.0**x,
        jnp.abs(x) ** 0.5,
        jnp.expm1(x),
        jnp.log1p(jnp.abs(x)),
        jnp.sign(x),
        jnp.round(x * 3),
    ]
    waves = [jnp.sin(x), jnp.cos(x), jnp.tanh(x), jax.scipy.special.erf(x), jax.nn.softplus(x), jax.nn.elu(x)]
    chosen = [
        jnp.clip(x, -0.2, 0.3),
        jnp.select([x > 1, x > 0], [x, x * 2], -x),
        jax.lax.cond(i[0] > 1, lambda: x, lambda: -x),
        jax.lax.dynamic_slice(x, (i[0], 0), (1, 2)),
        jax.lax.dynamic_update_slice(x, x[:2, :2] * 2, (1, 1)),
        x.at[0].set(1.0),
        jax.nn.one_hot(i, 5),
        jnp.arange(4) * i[0] % 3,
        (x > 0).astype(jnp.int32) + 1,
        jnp.full((2, 3), 7.0) + x[:1],
    ]
    return looped, total, rows, grown, *taken, *ranked, *moved, *reduced, *powers, *waves, *chosen


def test_primitives(tmp_path: Path) -> None:
    check(primitives, (RNG.normal(0, 1, (4, 3)).astype(np.float32), np.array([1, 2], np.int32)), tmp_path)


TYPES = {"words": "int32", "mask": "bool"}


def test_shapes_in_place_of_examples() -> None:
    options = LoadOptions(input_shapes={"words": (1, 7), "mask": (1, 7)}, input_types=TYPES)
    model = to_onnx(jax.jit(partial(attention, ATTENTION)), options)
    assert sorted(info.name for info in model.graph.input) == ["mask", "words"]
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 7, 32]


def unsupported(x: Any) -> Any:
    y = jax.scipy.special.erfinv(x)
    return jnp.fft.fft(y).real + jax.lax.linalg.cholesky(x)


def test_primitives_without_a_rule_are_listed_with_their_lines() -> None:
    model = to_onnx(jax.jit(unsupported), LoadOptions(example_input=draw(4, 4)))
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_model(model)
    line = unsupported.__code__.co_firstlineno
    for name, place in (("erf_inv", line + 1), ("fft", line + 2), ("cholesky", line + 2)):
        assert re.search(rf"jax\.{name} '\S*{name}@test_jax\.py:{place}'", str(caught.value)), caught.value


def test_wrong_arguments_are_refused() -> None:
    function = jax.jit(partial(mlp, MLP))
    with pytest.raises(OptionError, match="needs example arguments"):
        to_onnx(function, LoadOptions())
    with pytest.raises(OptionError, match="does not fit the function"):
        to_onnx(function, LoadOptions(example_input=draw(3, 11)))
    with pytest.raises(OptionError, match="does not fit the function"):
        to_onnx(function, LoadOptions(example_input=(draw(3, 12), draw(3, 12), draw(1))))
    with pytest.raises(ModelError, match="no Python file"):
        to_onnx(Path("model.jax"), LoadOptions())
    with pytest.raises(ModelError, match=r"number of steps is computed"):
        to_onnx(
            jax.jit(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x)),
            LoadOptions(example_input=draw(3)),
        )
