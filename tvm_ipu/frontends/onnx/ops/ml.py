"""Small operators of classical machine learning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax, te, tirx

from tvm_ipu.frontends.onnx.context import Context, Node, UnsupportedNode, converter
from tvm_ipu.frontends.onnx.ops.common import (
    attr_text,
    choose,
    elementwise,
    is_float,
    kind,
    number,
    required,
    scalar,
)
from tvm_ipu.frontends.onnx.ops.types import convert

R = relax.op
ML = "ai.onnx.ml"


@converter("Binarizer", domain=ML)
def binarizer(ctx: Context, node: Node) -> relax.Expr:
    """Numeric types."""
    threshold = float(node.attrs.get("threshold", 0.0))

    def formula(v: Any) -> Any:
        over = v > number(threshold, kind(v))
        return tirx.Select(over, number(1, kind(v)), number(0, kind(v)))

    return elementwise(ctx, "binarizer", formula, required(node, 0, "X"))


@converter("Scaler", domain=ML)
def scaler(ctx: Context, node: Node) -> relax.Expr:
    """Numeric types; the result is float32."""
    x = convert(ctx, required(node, 0, "X"), "float32")
    offset, scale = (ctx.const(np.array(node.attrs[n], np.float32)) for n in ("offset", "scale"))
    return ctx.emit(R.multiply(R.subtract(x, offset), scale))


@converter("Normalizer", domain=ML)
def normalizer(ctx: Context, node: Node) -> relax.Expr:
    """Numeric types; the result is float32. A divisor of 0 leaves the row as it is."""
    x = convert(ctx, required(node, 0, "X"), "float32")
    norm = attr_text(node, "norm", "MAX", ("MAX", "L1", "L2"))
    if norm == "MAX":
        size = ctx.emit(R.max(R.abs(x), -1, True))
    elif norm == "L1":
        size = ctx.emit(R.sum(R.abs(x), -1, True))
    else:
        size = ctx.emit(R.sqrt(R.sum(R.multiply(x, x), -1, True)))
    zero = R.equal(size, scalar(ctx, 0.0, "float32"))
    return ctx.emit(R.divide(x, R.where(zero, scalar(ctx, 1.0, "float32"), size)))


@converter("Imputer", domain=ML)
def imputer(ctx: Context, node: Node) -> relax.Expr:
    """Floating-point types and int64."""
    x = required(node, 0, "X")
    dtype = ctx.dtype(x)
    suffix = "float" if is_float(dtype) else "int64"
    missing = node.attrs.get(f"replaced_value_{suffix}", 0)
    filling = ctx.const(np.array(node.attrs[f"imputed_value_{suffix}s"], dtype))

    def formula(v: Any, fill: Any) -> Any:
        if is_float(kind(v)) and np.isnan(missing):
            return tirx.Select(tirx.isnan(v), fill, v)
        return tirx.Select(v == number(missing, kind(v)), fill, v)

    return elementwise(ctx, "imputer", formula, x, filling)


@converter("FeatureVectorizer", domain=ML)
def feature_vectorizer(ctx: Context, node: Node) -> relax.Expr:
    """Numeric types; the result is float32."""
    parts = [convert(ctx, x, "float32") for x in node.inputs if x is not None]
    return ctx.emit(R.concat(parts, -1))


@converter("LabelEncoder", domain=ML)
def label_encoder(ctx: Context, node: Node) -> relax.Expr:
    """Numeric keys and values."""
    x = required(node, 0, "X")
    keys, values = (_column(node, name) for name in ("keys", "values"))
    given = node.attrs.get("default_tensor")
    if given is None:
        default = node.attrs.get("default_float", -0.0) if is_float(values.dtype.name) else -1
        given = node.attrs.get("default_int64", default) if values.dtype.kind == "i" else default
    dtype, count = values.dtype.name, len(keys)
    fallback = np.asarray(given).ravel()[0]

    def compute(tensor: te.Tensor, key: te.Tensor, value: te.Tensor) -> te.Tensor:
        def better(a: Any, b: Any) -> Any:
            return tirx.max(a, b)  # of equal keys the last one counts

        last = te.comm_reducer(better, lambda t: tirx.const(-1, t), name="last_key")
        k = te.reduce_axis((0, count), name="k")

        def position(*i: Any) -> Any:
            hit = tensor(*i) == key(k.var)
            if is_float(kind(tensor(*i))):
                hit = tirx.any(hit, tirx.all(tirx.isnan(tensor(*i)), tirx.isnan(key(k.var))))
            return last(tirx.Select(hit, k.var.astype("int32"), number(-1, "int32")), axis=k)

        found = te.compute(tensor.shape, position, name="position")

        def element(*i: Any) -> Any:
            at = found(*i)
            return choose(at >= 0, value(tirx.max(at, 0)), number(fallback.item(), dtype))

        return te.compute(tensor.shape, element, name="label")

    return ctx.te(compute, x, ctx.const(keys.astype(ctx.dtype(x))), ctx.const(values), name="label_encoder")


def _column(node: Node, name: str) -> NDArray[Any]:
    """Keys or values of a label encoder."""
    if f"{name}_strings" in node.attrs:
        raise UnsupportedNode(f"its {name} are strings")
    tensor = node.attrs.get(f"{name}_tensor")
    if tensor is not None:
        array = np.asarray(tensor).ravel()
        if array.dtype.kind not in "iuf":
            raise UnsupportedNode(f"its {name} are strings")
        return array
    if f"{name}_floats" in node.attrs:
        return np.array(node.attrs[f"{name}_floats"], np.float32)
    return np.array(node.attrs[f"{name}_int64s"], np.int64)


@converter("LinearRegressor", domain=ML)
def linear_regressor(ctx: Context, node: Node) -> relax.Expr:
    """Numeric types; the transforms NONE, SOFTMAX and LOGISTIC."""
    x = convert(ctx, required(node, 0, "X"), "float32")
    targets = int(node.attrs.get("targets", 1))
    weight = np.array(node.attrs["coefficients"], np.float32).reshape(targets, -1)
    bias = np.array(node.attrs.get("intercepts", [0.0] * targets), np.float32)
    y = ctx.emit(R.add(R.matmul(x, ctx.const(weight.T)), ctx.const(bias)))
    transform = attr_text(node, "post_transform", "NONE", ("NONE", "SOFTMAX", "LOGISTIC"))
    if transform == "NONE":
        return y
    return ctx.emit(R.nn.softmax(y, -1) if transform == "SOFTMAX" else R.sigmoid(y))
