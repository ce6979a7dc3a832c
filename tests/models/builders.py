"""Well-known architectures as ONNX graphs, from their published descriptions and a dictionary of weights.

Weights bear the names of torchvision (MobileNetV2, ResNet-50) and of Hugging Face transformers (BERT).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET = 17
Weights = dict[str, NDArray[Any]]


class GraphBuilder:
    """Collects nodes; every method takes names of tensors and gives the name of its result."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._scope: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self._scope.append(name)
        yield
        self._scope.pop()

    def op(self, op_type: str, *inputs: str, **attrs: Any) -> str:
        name = "/".join([*self._scope, f"{op_type}_{len(self.nodes)}"])
        self.nodes.append(helper.make_node(op_type, list(inputs), [f"{name}_out"], name, **attrs))
        return f"{name}_out"

    def weight(self, name: str, transposed: bool = False) -> str:
        array = self.weights[name]
        return self.constant(array.T if transposed else array, name)

    def constant(self, value: Any, name: str = "") -> str:
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        name = name or f"const_{len(self._initializers)}"
        self._initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, name: str, *, stride: int = 1, pad: int = 0, group: int = 1) -> str:
        kernel = self.weights[f"{name}.weight"].shape[2:]
        return self.op(
            "Conv",
            x,
            self.weight(f"{name}.weight"),
            kernel_shape=kernel,
            strides=[stride, stride],
            pads=[pad] * 4,
            group=group,
        )

    def batch_norm(self, x: str, name: str) -> str:
        parts = ("weight", "bias", "running_mean", "running_var")
        return self.op("BatchNormalization", x, *(self.weight(f"{name}.{p}") for p in parts), epsilon=1e-5)

    def linear(self, x: str, name: str) -> str:
        """``x @ W.T + b`` for any rank of ``x``, as exporters write it."""
        product = self.op("MatMul", x, self.weight(f"{name}.weight", transposed=True))
        return self.op("Add", product, self.weight(f"{name}.bias"))

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        parts = (self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))
        return self.op("LayerNormalization", x, *parts, axis=-1, epsilon=epsilon)

    def model(
        self, name: str, inputs: Sequence[Any], outputs: dict[str, tuple[str, Sequence[Any]]]
    ) -> ModelProto:
        """The finished model; ``outputs`` gives each output's tensor and shape by its name."""
        for output, (tensor, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [output], f"output/{output}"))
        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, s) for o, (_, s) in outputs.items()]
        graph = helper.make_graph(self.nodes, name, inputs, infos, list(self._initializers.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def image_input() -> Any:
    """``input``: a batch of normalised RGB images of 224 x 224."""
    return helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])


_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride of each stage."""


def mobilenet_v2(weights: Weights) -> ModelProto:
    """MobileNetV2 of width 1 with torchvision's names: ``input`` [N,3,224,224] -> ``logits`` [N,1000]."""
    g = GraphBuilder(weights)

    def conv_bn(x: str, conv: str, norm: str, **attrs: int) -> str:
        return g.batch_norm(g.conv(x, conv, **attrs), norm)

    def relu6(x: str) -> str:
        return g.op("Clip", x, g.constant(np.float32(0), "zero"), g.constant(np.float32(6), "six"))

    x = relu6(conv_bn("input", "features.0.0", "features.0.1", stride=2, pad=1))
    channels, index = 32, 1
    for expansion, out, blocks, first_stride in _MOBILENET_V2:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            prefix, hidden, y, part = f"features.{index}.conv", channels * expansion, x, 0
            with g.scope(f"features.{index}"):
                if expansion != 1:
                    y = relu6(conv_bn(y, f"{prefix}.0.0", f"{prefix}.0.1"))
                    part = 1
                depthwise = f"{prefix}.{part}"
                y = relu6(conv_bn(y, f"{depthwise}.0", f"{depthwise}.1", stride=stride, pad=1, group=hidden))
                y = conv_bn(y, f"{prefix}.{part + 1}", f"{prefix}.{part + 2}")
                x = g.op("Add", x, y) if stride == 1 and channels == out else y
            channels, index = out, index + 1
    x = relu6(conv_bn(x, f"features.{index}.0", f"features.{index}.1"))
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    logits = g.op("Gemm", x, g.weight("classifier.1.weight"), g.weight("classifier.1.bias"), transB=1)
    return g.model("mobilenet_v2", [image_input()], {"logits": (logits, ["N", 1000])})


_RESNET50 = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and first stride of each stage."""


def resnet50(weights: Weights) -> ModelProto:
    """ResNet-50 with the stride in the 3x3 convolution: ``input`` [N,3,224,224] -> ``logits`` [N,1000]."""
    g = GraphBuilder(weights)

    def conv_bn(x: str, conv: str, norm: str, **attrs: int) -> str:
        return g.batch_norm(g.conv(x, conv, **attrs), norm)

    x = g.op("Relu", conv_bn("input", "conv1", "bn1", stride=2, pad=3))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, (_, blocks, first_stride) in enumerate(_RESNET50, 1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", first_stride if block == 0 else 1
            with g.scope(name):
                y = g.op("Relu", conv_bn(x, f"{name}.conv1", f"{name}.bn1"))
                y = g.op("Relu", conv_bn(y, f"{name}.conv2", f"{name}.bn2", stride=stride, pad=1))
                y = conv_bn(y, f"{name}.conv3", f"{name}.bn3")
                if block == 0:
                    x = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
                x = g.op("Relu", g.op("Add", y, x))
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    logits = g.op("Gemm", x, g.weight("fc.weight"), g.weight("fc.bias"), transB=1)
    return g.model("resnet50", [image_input()], {"logits": (logits, ["N", 1000])})


def resnet50_weights(seed: int = 0) -> Weights:
    """Random weights that keep the activations of every layer near unit variance."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}

    def conv(name: str, out: int, inner: int, kernel: int) -> None:
        scale = np.sqrt(2 / (inner * kernel * kernel))
        weights[f"{name}.weight"] = (rng.standard_normal((out, inner, kernel, kernel)) * scale).astype(
            np.float32
        )

    def norm(name: str, channels: int, gain: float = 1.0) -> None:
        weights[f"{name}.weight"] = (gain * rng.uniform(0.8, 1.2, channels)).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, channels).astype(np.float32)
        weights[f"{name}.running_mean"] = rng.normal(0, 0.1, channels).astype(np.float32)
        weights[f"{name}.running_var"] = rng.uniform(0.8, 1.2, channels).astype(np.float32)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inner = 64
    for stage, (width, blocks, _) in enumerate(_RESNET50, 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for part, (out, into, kernel) in enumerate(
                ((width, inner, 1), (width, width, 3), (4 * width, width, 1)), 1
            ):
                conv(f"{name}.conv{part}", out, into, kernel)
                norm(f"{name}.bn{part}", out, 0.3 if part == 3 else 1.0)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * width, inner, 1)
                norm(f"{name}.downsample.1", 4 * width)
            inner = 4 * width
    weights["fc.weight"] = rng.normal(0, 0.02, (1000, inner)).astype(np.float32)
    weights["fc.bias"] = rng.normal(0, 0.02, 1000).astype(np.float32)
    return weights


@dataclass(frozen=True)
class BertSize:
    """Dimensions of a BERT encoder."""

    layers: int
    hidden: int
    heads: int
    vocabulary: int = 30522
    positions: int = 512


BERT_BASE = BertSize(12, 768, 12)
MINILM_L6 = BertSize(6, 384, 12)


def bert(weights: Weights, size: BertSize, name: str) -> ModelProto:
    """A BERT encoder for any batch N and length S, as exporters write it.

    ``input_ids``, ``attention_mask``, ``token_type_ids`` int64 [N,S] -> ``last_hidden_state`` [N,S,hidden]
    and ``pooler_output`` [N,hidden].
    """
    g = GraphBuilder(weights)
    depth = size.hidden // size.heads

    def gelu(x: str) -> str:
        erf = g.op("Erf", g.op("Div", x, g.constant(np.float32(np.sqrt(2)), "sqrt_two")))
        half = g.op("Mul", x, g.op("Add", erf, g.constant(np.float32(1), "one")))
        return g.op("Mul", half, g.constant(np.float32(0.5), "half"))

    def split_heads(x: str, perm: Sequence[int]) -> str:
        shape = g.constant(np.array([0, 0, size.heads, depth]), "split_heads")
        return g.op("Transpose", g.op("Reshape", x, shape), perm=perm)

    def attention(x: str, mask: str, prefix: str) -> str:
        query = split_heads(g.linear(x, f"{prefix}.self.query"), (0, 2, 1, 3))
        key = split_heads(g.linear(x, f"{prefix}.self.key"), (0, 2, 3, 1))
        value = split_heads(g.linear(x, f"{prefix}.self.value"), (0, 2, 1, 3))
        scores = g.op("Div", g.op("MatMul", query, key), g.constant(np.float32(np.sqrt(depth)), "sqrt_depth"))
        context = g.op("MatMul", g.op("Softmax", g.op("Add", scores, mask), axis=-1), value)
        merged = g.op("Transpose", context, perm=(0, 2, 1, 3))
        return g.op("Reshape", merged, g.constant(np.array([0, 0, size.hidden]), "merge_heads"))

    with g.scope("embeddings"):
        words = g.op("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids")
        types = g.op("Gather", g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
        length = g.op("Gather", g.op("Shape", "input_ids"), g.constant(np.array([1])), axis=0)
        table = g.weight("embeddings.position_embeddings.weight")
        positions = g.op("Slice", table, g.constant(np.array([0])), length, g.constant(np.array([0])))
        x = g.op("Add", g.op("Add", words, types), positions)
        x = g.layer_norm(x, "embeddings.LayerNorm", 1e-12)
        wide = g.op("Unsqueeze", "attention_mask", g.constant(np.array([1, 2])))
        padding = g.op("Sub", g.constant(np.float32(1), "one"), g.op("Cast", wide, to=TensorProto.FLOAT))
        mask = g.op("Mul", padding, g.constant(np.float32(-10000), "minus_infinity"))
    for layer in range(size.layers):
        prefix = f"encoder.layer.{layer}"
        with g.scope(prefix):
            y = g.linear(attention(x, mask, f"{prefix}.attention"), f"{prefix}.attention.output.dense")
            x = g.layer_norm(g.op("Add", y, x), f"{prefix}.attention.output.LayerNorm", 1e-12)
            y = g.linear(gelu(g.linear(x, f"{prefix}.intermediate.dense")), f"{prefix}.output.dense")
            x = g.layer_norm(g.op("Add", y, x), f"{prefix}.output.LayerNorm", 1e-12)
    first = g.op("Gather", x, g.constant(np.array(0)), axis=1)
    pooled = g.op("Tanh", g.linear(first, "pooler.dense"))
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "S"]) for n in names]
    outputs = {
        "last_hidden_state": (x, ["N", "S", size.hidden]),
        "pooler_output": (pooled, ["N", size.hidden]),
    }
    return g.model(name, inputs, outputs)


def bert_weights(size: BertSize, seed: int = 0) -> Weights:
    """Random weights with the spread of a trained encoder's."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}

    def linear(name: str, out: int, inner: int) -> None:
        weights[f"{name}.weight"] = rng.normal(0, 1 / np.sqrt(inner), (out, inner)).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.05, out).astype(np.float32)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = rng.uniform(0.8, 1.2, size.hidden).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.05, size.hidden).astype(np.float32)

    for table, rows in (
        ("word_embeddings", size.vocabulary),
        ("position_embeddings", size.positions),
        ("token_type_embeddings", 2),
    ):
        weights[f"embeddings.{table}.weight"] = rng.normal(0, 0.05, (rows, size.hidden)).astype(np.float32)
    norm("embeddings.LayerNorm")
    for layer in range(size.layers):
        prefix = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{prefix}.attention.self.{part}", size.hidden, size.hidden)
        linear(f"{prefix}.attention.output.dense", size.hidden, size.hidden)
        linear(f"{prefix}.intermediate.dense", 4 * size.hidden, size.hidden)
        linear(f"{prefix}.output.dense", size.hidden, 4 * size.hidden)
        norm(f"{prefix}.attention.output.LayerNorm")
        norm(f"{prefix}.output.LayerNorm")
    linear("pooler.dense", size.hidden, size.hidden)
    return weights
