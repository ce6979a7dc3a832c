"""Layers of random graphs: products, windows, normalisations, and groups that compilers fuse."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.fuzz.graph_maker import Maker, NotTaken, Tensor
from tests.fuzz.graph_operators import FLOATS, Operator


def weights(m: Maker, shape: tuple[int, ...], dtype: str, share: float = 0.9) -> Tensor:
    """Weights whose sums have about the size of what they multiply; constants mostly."""
    fan = max(1, int(np.prod(shape[1:])))
    array = (m.numbers.normal(size=shape) / np.sqrt(fan)).astype(dtype)
    return m.constant(array) if m.fixed or m.chance(share) else m.input(array)


def window(m: Maker, x: Tensor, dilate: bool = True) -> dict[str, Any]:
    """Attributes of a window over the spatial axes of ``x``."""
    space = x.shape[2:]
    kernel = [m.between(1, min(4, extent)) for extent in space]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    if m.chance(0.4):
        attributes["strides"] = [m.between(1, 3) for _ in space]
    if dilate and m.chance(0.25):
        attributes["dilations"] = [
            m.between(1, 2) if 2 * (k - 1) < extent else 1 for k, extent in zip(kernel, space, strict=True)
        ]
    if m.chance(0.15) and "dilations" not in attributes:
        attributes["auto_pad"] = m.choose("SAME_UPPER", "SAME_LOWER", "VALID")
    elif m.chance(0.6):
        attributes["pads"] = [m.between(0, k - 1) for k in kernel * 2]
    return attributes


def picture(m: Maker, low: int = 3, high: int = 5) -> Tensor:
    """Something with channels; three spatial axes have no integer form."""
    x = m.pick(FLOATS, low, min(high, 4) if m.fixed else high)
    if x.shape[1] > 64:
        raise NotTaken("channels")
    return x


def conv(m: Maker) -> Tensor:
    x = picture(m)
    channels = x.shape[1]
    groups = m.random.choice([1, 1, 1, channels, *(d for d in (2, 3, 4) if channels % d == 0)])
    results = groups * m.between(1, max(1, m.choose(4, 8, 20) // groups))
    attributes = window(m, x)
    shape = (results, channels // groups, *attributes["kernel_shape"])
    bias = [weights(m, (results,), x.dtype)] if m.chance(0.6) else []
    return m.node("Conv", x, weights(m, shape, x.dtype), *bias, group=groups, **attributes)


def conv_transpose(m: Maker) -> object:
    x = picture(m, 3, 5)
    channels = x.shape[1]
    groups = m.random.choice([1, 1, channels, *(d for d in (2, 3) if channels % d == 0)])
    attributes = window(m, x)
    attributes.pop("auto_pad", None)
    shape = (channels, m.between(1, 4), *attributes["kernel_shape"])
    strides = attributes.get("strides")
    if strides and m.chance(0.4):
        attributes["output_padding"] = [m.between(0, s - 1) for s in strides]
    return m.node("ConvTranspose", x, weights(m, shape, x.dtype), group=groups, **attributes)


def pool(m: Maker) -> object:
    x = picture(m)
    op = m.choose("MaxPool", "AveragePool", "AveragePool", "LpPool")
    attributes = window(m, x)
    if "auto_pad" not in attributes and m.chance(0.3):
        attributes["ceil_mode"] = 1
    if op == "AveragePool":
        attributes["count_include_pad"] = m.between(0, 1)
    return m.several(op, x, outputs=2 if op == "MaxPool" and m.chance(0.2) else 1, **attributes)


def global_pool(m: Maker) -> object:
    return m.node(m.choose("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), picture(m))


def matmul(m: Maker) -> object:
    x = m.pick((*FLOATS, "int32"), 1)
    inner = x.shape[-1]
    found = [
        t
        for t in m.tensors.values()
        if t.dtype == x.dtype and t.rank >= 2 and t.shape[-2] == inner and t.shape[:-2] == x.shape[:-2]
    ]
    if found and m.chance(0.5):
        y = m.random.choice(found)
    else:
        batch = x.shape[:-2] if m.chance(0.2) else ()
        y = weights(m, (*batch, inner, m.choose(1, 2, 5, 8, 16, 17)), x.dtype)
    return m.node("MatMul", x, y)


def gemm(m: Maker) -> object:
    x = m.pick(FLOATS, 2, 2)
    a, b = m.between(0, 1), m.between(0, 1)
    rows, inner = x.shape[::-1] if a else x.shape
    columns = m.choose(1, 3, 8, 17)
    y = weights(m, (columns, inner) if b else (inner, columns), x.dtype)
    shape = m.choose((columns,), (1, columns), (rows, 1), (rows, columns), ())
    bias = [m.fresh(shape, x.dtype)] if m.chance(0.6) else []
    scale = {"alpha": 0.5} if m.chance(0.3) else {}
    return m.node("Gemm", x, y, *bias, transA=a, transB=b, **scale, **({"beta": 2.0} if bias else {}))


def einsum(m: Maker) -> object:
    left, right, result = m.choose(
        ("ij", "jk", "ik"), ("bij", "bjk", "bik"), ("bij", "bkj", "bik"), ("bhid", "bhjd", "bhij"),
        ("ij", "ij", "i"), ("bij", "jk", "bki"), ("i", "j", "ij"), ("abc", "acd", "dab"), ("bic", "c", "bi")
    )  # fmt: skip
    x = m.pick(("float32",), len(left), len(left))
    extents = dict(zip(left, x.shape, strict=True))
    y = m.fresh([extents.get(letter, 5) for letter in right], x.dtype)
    return m.node("Einsum", x, y, equation=f"{left},{right}->{result}")


def batch_norm(m: Maker) -> object:
    x = picture(m, 2)
    return _batch_norm(m, x)


def _batch_norm(m: Maker, x: Tensor) -> Tensor:
    channels = x.shape[1]
    scale, bias, mean = (m.constant(m.array((channels,), x.dtype)) for _ in range(3))
    return m.node(
        "BatchNormalization", x, scale, bias, mean, m.constant(m.array((channels,), x.dtype, 0.3, 2.0))
    )


def normalise(m: Maker) -> object:
    x = picture(m, 2)
    op = m.choose(
        "LayerNormalization", "LayerNormalization", "InstanceNormalization", "LRN", "LpNormalization"
    )
    if op == "LayerNormalization":
        axis = m.between(1, x.rank - 1)
        parts = [m.fresh(x.shape[axis:], x.dtype) for _ in range(m.between(1, 2))]
        return m.node(op, x, *parts, axis=axis - m.choose(0, x.rank), epsilon=1e-3)
    if op == "InstanceNormalization":
        return m.node(op, x, *(m.fresh(x.shape[1:2], x.dtype) for _ in range(2)), epsilon=1e-3)
    if op == "LRN":
        return m.node(op, x, size=m.choose(1, 3, 5), alpha=0.1)
    return m.node(op, x, p=m.between(1, 2), axis=m.between(0, x.rank - 1))


def recurrent(m: Maker) -> object:
    x = m.pick(("float32",), 3, 3, 1024)
    op, gates = m.choose(("LSTM", 4), ("GRU", 3), ("RNN", 1))
    direction = m.choose("forward", "reverse", "bidirectional")
    sides, hidden = (2 if direction == "bidirectional" else 1), m.choose(1, 4, 8, 17)
    inputs: list[Tensor | None] = [x, weights(m, (sides, gates * hidden, x.shape[2]), x.dtype)]
    inputs.append(weights(m, (sides, gates * hidden, hidden), x.dtype))
    inputs.append(weights(m, (sides, 2 * gates * hidden), x.dtype) if m.chance(0.6) else None)
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if op == "GRU":
        attributes["linear_before_reset"] = m.between(0, 1)
    if x.shape[0] > 17:
        raise NotTaken("length")
    if m.chance(0.3):
        inputs += [None, m.fresh((sides, x.shape[1], hidden), x.dtype)]
    return m.several(op, *inputs, outputs=m.between(1, 3 if op == "LSTM" else 2), **attributes)


# Groups


def conv_block(m: Maker) -> object:
    """Convolution, normalisation or factors for each channel, activation, and a residual sum."""
    x = conv(m)
    shape = (1, x.shape[1], *(1,) * (x.rank - 2))
    if m.chance(0.5):
        x = _batch_norm(m, x)
    else:
        for op in m.random.sample(["Mul", "Add", "Sub", "Div"], m.between(1, 3)):
            x = m.node(op, x, m.constant(m.array(m.choose(shape, shape[1:], (1,), ()), x.dtype, 0.5, 2.0)))
    if m.chance(0.4):
        x = m.node("Add", x, m.like(x))
    if m.chance(0.6):
        x = m.node(m.choose("Relu", "Sigmoid", "LeakyRelu", "HardSwish"), x)
    if m.chance(0.3):
        x = m.node("Mul", x, m.node("Sigmoid", x))
    return x


def gate(m: Maker) -> object:
    """Squeeze and excite."""
    x = picture(m)
    channels = x.shape[1]
    pooled = m.node("GlobalAveragePool", x)
    shape = (channels, channels, *(1,) * (x.rank - 2))
    scores = m.node("Conv", pooled, weights(m, shape, x.dtype))
    return m.node("Mul", x, m.node(m.choose("Sigmoid", "HardSigmoid"), scores))


def branches(m: Maker) -> object:
    """Products of one tensor with several weights."""
    x = m.pick(FLOATS, 2, 4)
    made = [m.node("MatMul", x, weights(m, (x.shape[-1], m.choose(4, 8, 5)), x.dtype)) for _ in range(3)]
    made = [m.node("Add", one, m.constant(m.array(one.shape[-1:], x.dtype))) for one in made]
    return m.node("Concat", *made, axis=-1)


def attention(m: Maker) -> object:
    x = m.pick(FLOATS, 3, 3, 1024)
    batch, length, width = x.shape
    heads = m.random.choice([h for h in (1, 2, 3, 4) if width % h == 0])
    shape = m.constant([batch, length, heads, width // heads], "int64")

    def part(*perm: int) -> Tensor:
        product = m.node("MatMul", x, weights(m, (width, width), x.dtype))
        return m.node("Transpose", m.node("Reshape", product, shape), perm=perm)

    scores = m.node("MatMul", part(0, 2, 1, 3), part(0, 2, 3, 1))
    scores = m.node("Div", scores, m.constant(np.array((width // heads) ** 0.5, x.dtype)))
    if m.chance(0.5):
        mask = m.fresh(
            m.choose((batch, 1, 1, length), (length, length), (1, 1, length, length)), x.dtype, -5, 0
        )
        scores = m.node("Add", scores, mask)
    context = m.node("MatMul", m.node("Softmax", scores, axis=-1), part(0, 2, 1, 3))
    context = m.node("Transpose", context, perm=[0, 2, 1, 3])
    return m.node("Reshape", context, m.constant([batch, length, width], "int64"))


def written_out_norm(m: Maker) -> object:
    x = m.pick(FLOATS, 2, 4)
    axis = m.constant([-1], "int64")
    distance = m.node("Sub", x, m.node("ReduceMean", x, axis))
    variance = m.node("ReduceMean", m.node("Pow", distance, m.constant(np.array(2, x.dtype))), axis)
    deviation = m.node("Sqrt", m.node("Add", variance, m.constant(np.array(1e-2, x.dtype))))
    return m.node("Mul", m.node("Div", distance, deviation), m.constant(m.array(x.shape[-1:], x.dtype)))


def written_out_gelu(m: Maker) -> object:
    x = m.real()
    inner = m.node("Erf", m.node("Div", x, m.constant(np.array(2**0.5, x.dtype))))
    scaled = m.node("Mul", x, m.node("Add", inner, m.constant(np.array(1, x.dtype))))
    return m.node("Mul", scaled, m.constant(np.array(0.5, x.dtype)))


def shuffle(m: Maker) -> object:
    """Channels or windows moved by a reshape, a transpose and a reshape."""
    x = m.pick((), 3, 4)
    axis = m.between(1, x.rank - 1)
    factor = m.random.choice([d for d in (2, 3, 4, 1) if x.shape[axis] % d == 0])
    inner = [*x.shape[:axis], factor, x.shape[axis] // factor, *x.shape[axis + 1 :]]
    y = m.node("Reshape", x, m.constant(inner, "int64"))
    perm = list(range(y.rank))
    perm[axis], perm[axis + 1] = perm[axis + 1], perm[axis]
    y = m.node("Transpose", y, perm=perm)
    return m.node("Reshape", y, m.constant(m.choose(x.shape, [x.shape[0], -1]), "int64"))


# Fixed point


def scale_of(m: Maker, x: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    low, high = min(0.0, float(x.array.min())), max(0.0, float(x.array.max()), 1e-2)
    scale = max((high - low) / 255, 1e-3)
    if dtype == "uint8":
        return m.constant(np.array(scale, "float32")), m.constant(np.array(round(-low / scale), dtype))
    largest = max(-low, high) / 127
    return m.constant(np.array(largest, "float32")), m.constant(np.array(0, dtype))


def quantised(m: Maker, x: Tensor) -> Tensor:
    """QuantizeLinear and DequantizeLinear."""
    scale, zero = scale_of(m, x, m.random.choice([d for d in ("int8", "uint8") if d in m.dtypes] or ["int8"]))
    return m.node("DequantizeLinear", m.node("QuantizeLinear", x, scale, zero), scale, zero)


def fake_quantise(m: Maker) -> object:
    return quantised(m, m.pick(("float32",)))


def quantised_conv(m: Maker) -> object:
    x = quantised(m, m.pick(("float32",), 4, 4))
    channels = x.shape[1]
    if channels > 64:
        raise NotTaken("channels")
    groups = m.choose(1, 1, channels)
    results = groups * m.between(1, max(1, 16 // groups))
    attributes = window(m, x)
    shape = (results, channels // groups, *attributes["kernel_shape"])
    kernel = m.constant(m.numbers.integers(-127, 128, shape).astype(np.int8))
    fan = int(np.prod(shape[1:]))
    scale = m.constant(m.array((results,), "float32", 0.5, 1.5) / np.float32(80 * np.sqrt(fan)))
    weight = m.node("DequantizeLinear", kernel, scale, m.constant(np.zeros(results, np.int8)), axis=0)
    y = m.node("Conv", x, weight, group=groups, **attributes)
    return _finish(m, y)


def quantised_product(m: Maker) -> object:
    x = quantised(m, m.pick(("float32",), 2, 4))
    shape = (x.shape[-1], m.choose(3, 8, 17))
    kernel = m.constant(m.numbers.integers(-127, 128, shape).astype(np.int8))
    scale = m.constant(np.array(1 / (80 * np.sqrt(shape[0])), "float32"))
    weight = m.node("DequantizeLinear", kernel, scale, m.constant(np.array(0, np.int8)))
    return _finish(m, m.node("MatMul", x, weight))


def _finish(m: Maker, y: Tensor) -> Tensor:
    if m.chance(0.4):
        y = m.node("Add", y, quantised(m, m.like(y)))
    if m.chance(0.5):
        y = m.node(m.choose("Relu", "Sigmoid", "HardSwish"), y)
    return quantised(m, y) if m.chance(0.9) else y


def integer_product(m: Maker) -> object:
    x = m.pick(("uint8", "int8"), 2, 4)
    kernel = m.numbers.integers(-128, 128, (x.shape[-1], 6))
    y = m.constant(kernel.astype(np.int8) if m.chance(0.7) else (kernel + 128).astype(np.uint8))
    sums = m.node("MatMulInteger", x, y, m.constant(np.array(m.between(0, 100), x.dtype)))
    return m.node("Mul", m.node("Cast", sums, to=TensorProto.FLOAT), m.constant(np.array(1e-3, "float32")))


LAYERS: dict[Operator, float] = {
    conv: 4, conv_transpose: 2, pool: 4, global_pool: 1, matmul: 4, gemm: 2, einsum: 1.5, batch_norm: 1.5,
    normalise: 2.5, recurrent: 1, conv_block: 4, gate: 1, branches: 1, attention: 1.5, written_out_norm: 1,
    written_out_gelu: 1, shuffle: 2,
}  # fmt: skip
FIXED: dict[Operator, float] = {
    fake_quantise: 1,
    quantised_conv: 2,
    quantised_product: 1,
    integer_product: 0.7,
}
"""Fixed-point layers of a model; they are for graphs that are not calibrated."""
