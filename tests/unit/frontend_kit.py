"""Small ONNX models, and what they compute by TVM's virtual machine and by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import tvm
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tvm import relax

from tvm_ipu.base.model import Model
from tvm_ipu.frontends.loaders import LoadOptions, load_model
from tvm_ipu.frontends.onnx.load import read_proto
from tvm_ipu.frontends.onnx.prepare import prepare

Feeds = dict[str, np.ndarray]
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name, shape, elem_type=FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def node(op_type, inputs, outputs, **attrs):
    return helper.make_node(op_type, inputs.split(), outputs.split(), name=f"{op_type}:{outputs}", **attrs)


def constant(name, data, dtype=None):
    return numpy_helper.from_array(np.asarray(data, dtype), name)


def make_model(nodes, inputs, outputs, weights=(), *, opset=17, functions=(), domains=()) -> ModelProto:
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=8)


def network(opset=17):
    """Convolution, BatchNormalization, activation, shape arithmetic, LayerNormalization, two outputs."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c scale bias mean var", "n", epsilon=1e-3),
        node("Clip", "n low high", "r"),
        node("Shape", "r", "shape"),
        node("Gather", "shape zero", "batch"),
        node("Unsqueeze", "batch zeros", "batch1"),
        node("Concat", "batch1 rest", "target", axis=0),
        node("Reshape", "r target", "flat"),
        node("LayerNormalization", "flat gain", "normed", axis=-1),
        node("Softmax", "normed", "y", axis=1),
        node("ReduceSum", "flat axes", "total", keepdims=0),
        node("Identity", "total", "z"),
    ]
    weights = [
        constant("w", rng.normal(0, 0.3, (4, 3, 3, 3)), "float32"),
        constant("b", rng.normal(0, 0.3, 4), "float32"),
        constant("scale", rng.uniform(0.5, 1.5, 4), "float32"),
        constant("bias", rng.normal(0, 0.3, 4), "float32"),
        constant("mean", rng.normal(0, 0.3, 4), "float32"),
        constant("var", rng.uniform(0.5, 1.5, 4), "float32"),
        constant("low", 0, "float32"),
        constant("high", 6, "float32"),
        constant("zero", 0),
        constant("zeros", [0]),
        constant("rest", [4, 25]),
        constant("gain", np.linspace(0.5, 1.5, 25), "float32"),
        constant("axes", [2]),
    ]
    outputs = [value("y", ["N", 4, 25]), value("z", ["N", 4])]
    return make_model(nodes, [value("x", ["N", 3, 5, 5])], outputs, weights, opset=opset)


def run_relax(model: Model, feeds: Feeds) -> list[np.ndarray]:
    """Outputs of the imported module, computed by TVM's virtual machine."""
    machine = relax.VirtualMachine(tvm.compile(model.module, target="llvm"), tvm.cpu())
    results = machine["main"](*[tvm.runtime.tensor(feeds[spec.name]) for spec in model.inputs])
    return [result.numpy() for result in results]


def run_onnx(model: ModelProto | Path, feeds: Feeds, outputs: Sequence[str]) -> list[np.ndarray]:
    """Outputs by onnxruntime."""
    source = model if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source).run(list(outputs), feeds)


def random_feeds(model: Model, seed: int = 0) -> Feeds:
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in model.inputs:
        shape = spec.shape
        data = rng.standard_normal(shape) if spec.dtype.is_float else rng.integers(0, 2, shape)
        feeds[spec.name] = np.asarray(data, spec.dtype.label).reshape(shape)
    return feeds


def check_against_onnxruntime(proto: ModelProto, options: LoadOptions | None = None, seed: int = 0) -> Model:
    """Import the model, and compare what it computes with onnxruntime."""
    model = load_model(proto, options or LoadOptions())
    feeds = random_feeds(model, seed)
    names = [spec.name for spec in model.outputs]
    extra = {n: np.asarray(v) for n, v in (options.constants if options else {}).items()}
    expected = run_onnx(proto, feeds | extra, names)
    for name, got, want in zip(names, run_relax(model, feeds), expected, strict=True):
        assert got.shape == want.shape, name
        assert got.dtype == want.dtype, name
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=name)
    return model


def simplified(proto, options=None, keep=lambda domain, op_type: True):
    """The graph after partial evaluation."""
    return prepare(read_proto(proto), options or LoadOptions(), keep)


def op_types(graph):
    return [op.node.op_type for op in graph.ops]
