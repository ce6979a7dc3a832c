"""A small network of pictures as float and fixed stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.unit.config_kit import one_picture
from tvm_ipu.base.contract import Contract, InputContract, OutputContract
from tvm_ipu.base.graph import Graph
from tvm_ipu.frontends.onnx.plain import graph_to_onnx, load_graph
from tvm_ipu.image.stage import FIXED, FLOAT, Stage, write_stage
from tvm_ipu.quantize.calibrate import CalibrationOptions, calibrate
from tvm_ipu.simulation import compile_runner

Array = np.ndarray

HEIGHT, WIDTH, CLASSES = 12, 16, 10
MEAN, STD = (123.0, 117.0, 104.0), (58.0, 57.0, 57.5)
PICTURE = InputContract("x", "RGB", "YUV_NV12", True, MEAN, STD, 8, 4)
CONTRACT = Contract((PICTURE,), (OutputContract("scores"),))

INI = one_picture("x", "scores", fed="BGR", mean="1:2:3", std="1")
"""A configuration that is not that of these stages."""


def network(seed: int = 0) -> bytes:
    """Transpose, convolutions of two kinds, a residual sum, a pool and a dense layer, from NHWC pictures."""
    random = np.random.default_rng(seed)
    constants: list[Any] = []

    def constant(*shape: int) -> str:
        value = random.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
        constants.append(numpy_helper.from_array(value.astype(np.float32), f"w{len(constants)}"))
        return str(constants[-1].name)

    nodes = [
        helper.make_node("Transpose", ["x"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planar", constant(8, 3, 3, 3), constant(8)], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["first"]),
        helper.make_node("Conv", ["first", constant(8, 1, 3, 3), constant(8)], ["b"], pads=[1] * 4, group=8),
        helper.make_node("Clip", ["b", "low", "high"], ["second"]),
        helper.make_node("Add", ["first", "second"], ["sum"]),
        helper.make_node("Conv", ["sum", constant(16, 8, 1, 1), constant(16)], ["c"], strides=[2, 2]),
        helper.make_node("Sigmoid", ["c"], ["gate"]),
        helper.make_node("Mul", ["c", "gate"], ["third"]),
        helper.make_node("GlobalAveragePool", ["third"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", constant(16, CLASSES), constant(CLASSES)], ["scores"]),
    ]
    for name, value in (("low", 0.0), ("high", 6.0)):
        constants.append(numpy_helper.from_array(np.float32(value), name))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


TOKENS, WIDTH_OF_TOKEN, HEADS = 6, 16, 2


def transformer(seed: int = 0) -> bytes:
    """Layer normalisation written out, attention with two heads, a residual sum, GELU, a dense layer."""
    random = np.random.default_rng(seed)
    constants: list[Any] = []
    width, head = WIDTH_OF_TOKEN, WIDTH_OF_TOKEN // HEADS

    def constant(value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), f"w{len(constants)}"))
        return str(constants[-1].name)

    def weight(*shape: int) -> str:
        return constant((random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32))

    nodes: list[Any] = []

    def op(op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op_type}_{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    last = constant(np.array([-1]))
    distance = op("Sub", "x", op("ReduceMean", "x", last))
    variance = op("ReduceMean", op("Pow", distance, constant(np.float32(2))), last)
    deviation = op("Sqrt", op("Add", variance, constant(np.float32(1e-5))))
    normal = op("Add", op("Mul", op("Div", distance, deviation), weight(width)), weight(width))
    split = constant(np.array([1, TOKENS, HEADS, head]))
    query, key, value = (
        op("Transpose", op("Reshape", op("MatMul", normal, weight(width, width)), split), perm=list(order))
        for order in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
    )
    scores = op("Div", op("MatMul", query, key), constant(np.float32(head**0.5)))
    context = op("Transpose", op("MatMul", op("Softmax", scores), value), perm=[0, 2, 1, 3])
    joined = op("Reshape", context, constant(np.array([1, TOKENS, width])))
    residual = op("Add", op("MatMul", joined, weight(width, width)), "x")
    inner = op("Add", op("MatMul", residual, weight(width, 4 * width)), weight(4 * width))
    erf = op("Erf", op("Div", inner, constant(np.float32(2**0.5))))
    gelu = op("Mul", op("Mul", inner, op("Add", erf, constant(np.float32(1)))), constant(np.float32(0.5)))
    nodes.append(helper.make_node("MatMul", [gelu, weight(4 * width, CLASSES)], ["scores"]))
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, TOKENS, extent])
        for name, extent in (("x", width), ("scores", CLASSES))
    ]
    graph = helper.make_graph(nodes, "transformer", infos[:1], infos[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def tokens(count: int, seed: int = 0) -> list[Array]:
    """Rows for ``transformer``."""
    random = np.random.default_rng(seed)
    return list(random.normal(size=(count, 1, TOKENS, WIDTH_OF_TOKEN)).astype(np.float32))


def pixels(count: int, seed: int = 0) -> list[Array]:
    """Smooth pictures, uint8 [1, HEIGHT, WIDTH, 3]."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 1, 3, 4, 3)).astype(np.float64)
    smooth = coarse.repeat(4, 2).repeat(4, 3) + random.normal(size=(count, 1, HEIGHT, WIDTH, 3)) * 6
    return list(np.clip(smooth, 0, 255).astype(np.uint8))


def normalised(picture: Array) -> Array:
    """What the float network takes."""
    return ((picture - np.float32(MEAN)) / np.float32(STD)).astype(np.float32)


def write_float(path: Path, model: bytes | None = None, contract: Contract = CONTRACT) -> Graph:
    """A float stage of a network."""
    graph = load_graph(model or network())
    write_stage(Stage(FLOAT, graph_to_onnx(graph), contract, "host"), path)
    return graph


def write_fixed(path: Path, graph: Graph, contract: Contract = CONTRACT, **options: Any) -> Graph:
    """Its fixed stage, calibrated on ``pixels``."""

    def samples() -> Iterator[dict[str, Array]]:
        for picture in pixels(8, 1):
            yield {"x": normalised(picture)}

    fixed, ranges = calibrate(
        graph, samples, compile_runner, CalibrationOptions(**{"level": "L1", **options}), contract
    )
    write_stage(Stage(FIXED, graph_to_onnx(fixed), contract, "host", ranges), path)
    return fixed
